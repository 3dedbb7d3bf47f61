"""Translate the settings of a link into queueing disciplines of tc, and check that the kernel supports them.

The kernel shapes packets, below TCP, whereas `fronthaul.link.link_model` shapes frames, above it. TCP therefore
retransmits a lost or corrupt packet: its frame arrives late instead of never, and no fate in a ledger shows the loss.
The same holds for a packet that finds the queue full; the sender's own TCP notices this and waits. tbf delays the
packets that follow a packet, not the packet itself, so a packet that finds the line idle leaves at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from fronthaul.account.costs import ETHERNET_HEADER_BYTES, PREAMBLE_FCS_GAP_BYTES
from fronthaul.link.link_config import IMPAIRMENTS, LinkConfig
from fronthaul.message.messages import Direction
from sim.errors import UserError
from sim.kernel.probe import NetnsSupport

MTU_BYTES = 1500
"""Longest IP packet of a veth pair [B]."""

_FULL_FRAME_BYTES = MTU_BYTES + ETHERNET_HEADER_BYTES
_BURST_S = 1e-3  # bucket size as time at the rate: kernel wake-ups that are late by less do not reduce the rate
_BURST_FRAMES = 4
_NO_LIMIT_BYTES = 1 << 30
_NETEM_PACKETS = 1_000_000  # netem's queue; its default of 1000 would act as a second queue limit
_PARETO_SHAPE_3_DEVIATION = math.sqrt(3)  # standard deviation of the Lomax distribution over its mean

Configs = Mapping[tuple[int, Direction], LinkConfig | None]


def check_shapeable(configs: Configs, support: NetnsSupport) -> None:
    """Check that the kernel can shape all links as configured, before anything is created.

    Raises:
        UserError: a setting cannot be shaped; the message names it.
    """
    if not (support.root and support.namespaces and support.veth):
        lacking = support.missing[0].rstrip(".") if support.missing else "Network namespaces cannot be made here"
        raise UserError(f"{lacking}: leave out --netns to have the link model shape the links.")
    for (bs, direction), config in configs.items():
        if config is None:
            continue
        where = f"(BS {bs}, {direction})"
        without = "leave out --netns to have the link model do it"
        if config.jitter_s and config.jitter == "exponential" and support.netem:
            raise UserError(f"netem knows no exponential jitter {where}: choose another jitter_shape, or {without}.")
        for lacks, keys in _lacking(config, support):
            raise UserError(f"{lacks}: {', '.join(keys)} {where} cannot be shaped by --netns; {without}.")
        if config.queue_bytes is not None and config.queue_bytes < _FULL_FRAME_BYTES:
            raise UserError(
                f"A queue of {config.queue_bytes} B {where} takes no full Ethernet frame, so nothing long would ever "
                f"pass: --netns needs one of at least {_FULL_FRAME_BYTES} B."
            )
        other = configs.get((bs, Direction.DOWN if direction is Direction.UP else Direction.UP))
        if config.outages != (() if other is None else other.outages):
            raise UserError(
                f"The outages of BS {bs} differ between up and down: --netns takes the whole link down; {without}."
            )


def _lacking(config: LinkConfig, support: NetnsSupport) -> Iterable[tuple[str, list[str]]]:
    """Yield each feature that the kernel lacks, with the keys of `config` that need it."""
    for discipline, has in (("tbf", support.tbf), ("netem", support.netem)):
        keys = [key for key, it in IMPAIRMENTS.items() if it.kernel == discipline and it.is_set(config)]
        if keys and not has:
            yield f"The kernel has no {discipline}", keys
    if config.loss and not support.netem and not support.nft_or_iptables:
        yield "The kernel has no netem, and neither nft nor iptables drops packets at random", ["loss"]


def qdiscs(config: LinkConfig, *, netem: bool) -> list[str]:
    """Return the queueing disciplines of one direction, as arguments of ``tc qdisc add dev ...``.

    Args:
        config: settings of the link; its outages are ignored here.
        netem: whether the kernel has netem; if not, only rate and queue are shaped.
    """
    disciplines = []
    emulation = _netem(config) if netem else ""
    if emulation:
        disciplines.append(f"root handle 1: netem limit {_NETEM_PACKETS}{emulation}")
    if config.rate_bps is not None:
        place = "parent 1:1 handle 10:" if emulation else "root handle 10:"
        line_bytes = _FULL_FRAME_BYTES + PREAMBLE_FCS_GAP_BYTES
        burst_bytes = max(_BURST_FRAMES * line_bytes, math.ceil(config.rate_bps / 8 * _BURST_S))
        limit_bytes = _NO_LIMIT_BYTES if config.queue_bytes is None else config.queue_bytes
        # tbf counts the Ethernet header by itself; the rest of the modelled line is its overhead.
        disciplines.append(
            f"{place} tbf rate {max(8, round(config.rate_bps))}bit burst {burst_bytes} "
            f"limit {limit_bytes} overhead {PREAMBLE_FCS_GAP_BYTES}"
        )
    return disciplines


def _netem(config: LinkConfig) -> str:
    """Return the options of netem; empty if none is needed."""
    words = ""
    if config.mean_delay_s:
        words += f" delay {_microseconds(config.mean_delay_s)}"
        # netem's second number is the half width of a uniform jitter, and of the others the standard deviation.
        if config.jitter_s and config.jitter == "uniform":
            words += f" {_microseconds(config.jitter_s)}"
        elif config.jitter_s and config.jitter == "normal":
            words += f" {_microseconds(config.jitter_s / 3)} distribution normal"
        elif config.jitter_s and config.jitter == "pareto":
            words += f" {_microseconds(config.jitter_s * _PARETO_SHAPE_3_DEVIATION)} distribution pareto"
    if config.burst is not None:
        # One chain does both: a packet is lost by the chain or else by chance.
        burst = config.burst
        bad, good = (1 - (1 - chance) * (1 - config.loss) for chance in (burst.loss_bad, burst.loss_good))
        words += " loss gemodel " + " ".join(_percent(p) for p in (burst.to_bad, burst.to_good, bad, good))
    elif config.loss:
        words += f" loss random {_percent(config.loss)}"
    for option, chance in (("duplicate", config.duplicate), ("corrupt", config.corrupt)):
        if chance:
            words += f" {option} {_percent(chance)}"
    if config.reorder and config.mean_delay_s:  # without a delay there is nothing to skip
        words += f" reorder {_percent(config.reorder)}"
    return words


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.3f}us"


def _percent(share: float) -> str:
    return f"{share * 100:.7f}%"
