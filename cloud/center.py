"""The fusion centre: reports to fixes, in one round or in several, with the time that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cloud.collector import Gathered
from cloud.fusion.scheme import Exchange, Fix, Fusion, RoundFusion
from fronthaul.messages import Payload, Report, ReportKey

LAST_ROUND = 255
"""Rounds are numbered in 8 bits."""


@dataclass(slots=True)
class OpenExchange:
    """The rounds of one snapshot so far.

    Attributes:
        exchange: the scheme's side of it.
        used: reports that went in.
        fuse_ns: what fusion took so far [ns].
        last: the gathering that went in last.
    """

    exchange: Exchange
    used: list[ReportKey] = field(default_factory=list)
    fuse_ns: int = 0
    last: Gathered | None = None


class FusionCenter:
    """Runs a fusion rule. A fix is a pure function of its used reports and the run's seed.

    Attributes:
        fuse_ns: what the last call of `fixes` took [ns].
    """

    def __init__(self, fusion: Fusion | RoundFusion, timer_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        """Use `fusion`; `timer_ns` is what stage times are read from [ns]."""
        self._fusion = fusion
        self._timer_ns = timer_ns
        self.fuse_ns = 0

    @property
    def has_rounds(self) -> bool:
        """Whether a fix takes several rounds: `open` and `advance` instead of `fixes`."""
        return isinstance(self._fusion, RoundFusion)

    def fixes(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Return one fix a group; a group is the used reports of one snapshot, ordered by BS.

        Raises:
            ValueError: the fusion rule returned another number of fixes.
        """
        assert not isinstance(self._fusion, RoundFusion)
        begin_ns = self._timer_ns()
        fixes = self._fusion.fuse(groups)
        self.fuse_ns = self._timer_ns() - begin_ns
        if len(fixes) != len(groups):
            raise ValueError(f"the fusion rule made {len(fixes)} fixes from {len(groups)} snapshots")
        return fixes

    def open(self, snapshot: int) -> OpenExchange:
        """Begin the rounds of a snapshot."""
        assert isinstance(self._fusion, RoundFusion)
        return OpenExchange(self._fusion.open(snapshot))

    def advance(self, state: OpenExchange, gathered: Gathered) -> Payload | Fix:
        """Take the answers of a round; return the state to broadcast next, or the fix."""
        state.used += [report.key for report in gathered.reports]
        state.last = gathered
        begin_ns = self._timer_ns()
        answer = state.exchange.advance(gathered.reports)
        state.fuse_ns += self._timer_ns() - begin_ns
        return answer


def replay_exchange(center: FusionCenter, snapshot: int, rounds: Sequence[Sequence[Report]]) -> Fix | None:
    """Go through logged rounds again; None where they end before there is a fix."""
    state = center.open(snapshot)
    for round_, reports in enumerate(rounds):
        last_bs = reports[-1].key.bs if reports else 0
        answer = center.advance(state, Gathered(snapshot, round_, tuple(reports), 0, last_bs))
        if isinstance(answer, Fix):
            return answer
    return state.exchange.conclude()
