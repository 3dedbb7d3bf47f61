"""How much of the cloud's log a link may fill besides reports, so that no flood fills the disk.

    allowed = FIRST + EACH * delivered frames + PER_S * seconds since the link was heard first

Delivered frames, of which a run has a limited number, are always logged. Everything else counts against the allowance:
corrupt, duplicate and rejected frames, and control messages. What exceeds it is counted, neither logged nor answered.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

FIRST = 10_000
"""Allowance of every link [messages]."""
EACH = 4
"""Allowance for each delivered frame [messages]: a link model may corrupt four frames of five."""
PER_S = 1000
"""Allowance per second [messages/s]."""


@dataclass(slots=True)
class _Link:
    since_ns: int
    delivered: int = 0
    logged: int = 0
    left_out: int = 0
    left_out_bytes: int = 0


class Allowance:
    """Decides by link what is logged. Connections that belong to none of the base stations share one allowance."""

    def __init__(self, stations: Collection[int]) -> None:
        """Start with nothing logged."""
        self._stations = stations
        self._links: dict[int | None, _Link] = {}

    def delivered(self, bs: int | None, now_ns: int, count: int = 1) -> None:
        """Count delivered frames of `bs`, the first of which arrived at `now_ns` [ns]."""
        self._link(bs, now_ns).delivered += count

    def admits(self, bs: int | None, size: int, now_ns: int) -> bool:
        """Return whether another message of `bs` may be logged, and count it, `size` bytes long [B]."""
        link = self._link(bs, now_ns)
        if link.logged >= FIRST + EACH * link.delivered + PER_S * (now_ns - link.since_ns) // 1_000_000_000:
            link.left_out += 1
            link.left_out_bytes += size
            return False
        link.logged += 1
        return True

    def take_left_out(self) -> dict[int | None, str]:
        """Return a sentence for each link of which messages were left out since the last call."""
        found = {}
        for bs, link in self._links.items():
            if link.left_out:
                found[bs] = f"{link.left_out} messages of {link.left_out_bytes} B were too many and are not in the log"
                link.left_out = link.left_out_bytes = 0
        return found

    def _link(self, bs: int | None, now_ns: int) -> _Link:
        key = bs if bs in self._stations else None
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = _Link(now_ns)
        return link
