"""Weights files: safetensors with the configuration as metadata, network weights in half precision.

Tensor names: ``edge.<k>.…`` belongs to base station k (encoder, covariance, quantiser steps), ``cloud.…`` to the cloud.
Covariances and steps stay in single precision, since both ends must agree on them bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sim.errors import UserError
from sim.world.store import ASSET_FOLDER

_FORMAT = "cofix-weights-1"


@dataclass(frozen=True)
class Weights:
    """A scheme's configuration and tensors; `digest` names the file's content."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str = ""

    def edge(self, bs: int) -> dict[str, Tensor]:
        """Base station `bs`'s share, its prefix stripped; of a path-loss table, its own row."""
        share = self._share(f"edge.{bs}.")
        table = self.tensors.get("cloud.path_loss")
        if table is not None and bs < len(table):
            share.setdefault("path_loss", table[bs].clone())
        return share

    def cloud(self) -> dict[str, Tensor]:
        """The cloud's share, its prefix stripped."""
        return self._share("cloud.")

    def _share(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def save_weights(path: Path, weights: Weights) -> None:
    """Write a weights file (temporary name, then rename); networks' floating point tensors in half precision."""
    exact = ("covariance", "step", "gain_", "centre", "extent", "path_loss", "scale.")
    tensors = {
        name: value.contiguous() if any(word in name for word in exact) else _halved(value)
        for name, value in weights.tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, temporary, metadata={"format": _FORMAT, "config": json.dumps(weights.config, sort_keys=True)})
    temporary.replace(path)


def load_weights(path: Path) -> Weights:
    """Read a weights file.

    Raises:
        UserError: it is missing, truncated or no weights file of this project.
    """
    if not path.is_file():
        raise UserError(f"The weights {path} are missing; train them with `python cli.py train`, or restore the file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise UserError(f"{path} is not a weights file of this project (format {metadata.get('format')!r}).")
            config = json.loads(metadata["config"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        sentence = f"The weights {path} are truncated or damaged ({error}); restore or train them again."
        raise UserError(sentence) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Weights(config, tensors, digest)


def find_weights(scenario: str, scheme: str, bits: int | None) -> Path:
    """Return the shipped weights for a payload of `bits`; for others than those shipped, the nearest (larger first).

    Raises:
        UserError: nothing is shipped for this scenario and scheme.
    """
    folder = ASSET_FOLDER / scenario
    exact = folder / f"{scheme}-{'lossless' if bits is None else f'b{bits}'}.safetensors"
    if exact.is_file():
        return exact
    single = folder / f"{scheme}.safetensors"
    if single.is_file():
        return single
    shipped = {int(p.stem.rsplit("-b", 1)[1]): p for p in folder.glob(f"{scheme}-b[1-8].safetensors")}
    if bits is None or not shipped:
        raise UserError(
            f"No weights are shipped for scenario {scenario!r}, scheme {scheme!r}, "
            f"{'lossless' if bits is None else f'{bits} bits'}: name a file with --weights, or train one."
        )
    return shipped[min(shipped, key=lambda b: (abs(b - bits), -b))]


def _halved(value: Tensor) -> Tensor:
    return value.to(torch.float16).contiguous() if value.is_floating_point() else value.contiguous()
