"""One network in memory for all base stations of a process that share its weights."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
_KNOWN: weakref.WeakValueDictionary[tuple[Any, ...], nn.Module] = weakref.WeakValueDictionary()


def shared_network(
    kind: type[Network], shape: Mapping[str, Any], weights: Mapping[str, Tensor], device: torch.device
) -> Network:
    """Return ``kind(**shape)`` with `weights`, for evaluation on `device`.

    Base stations whose setups hold the same tensors, not equal ones, get the same network as long as one of them keeps
    it. Nobody may change it.
    """
    key = kind, repr(sorted(shape.items())), device, *((name, id(weights[name])) for name in sorted(weights))
    known = _KNOWN.get(key)
    if isinstance(known, kind):
        return known
    network = kind(**shape)
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    network.eval().to(device)
    _KNOWN[key] = network
    weakref.finalize(network, list(weights.values()).clear)  # till then no other tensors have their identities
    return network
