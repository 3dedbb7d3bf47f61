"""The fusion centre: reports to fixes, in one round or in several, with the time that takes."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cloud.collector import Gathered
from cloud.fusion.scheme import Exchange, Fix, Fusion, RoundFusion
from fronthaul.errors import FronthaulError
from fronthaul.message.messages import Payload, Report, ReportKey

LAST_ROUND = 255
"""Rounds are numbered in 8 bits."""


class FusionError(FronthaulError):
    """A fusion rule that does not cope with reports which it was given; one sentence that names their snapshots."""


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
            FusionError: the fusion rule raised, or returned another number of fixes.
        """
        assert not isinstance(self._fusion, RoundFusion)
        begin_ns = self._timer_ns()
        with _named([report.key.snapshot for group in groups for report in group[:1]]):
            fixes = self._fusion.fuse(groups)
            if len(fixes) != len(groups):
                raise ValueError(f"the fusion rule made {len(fixes)} fixes from {len(groups)} snapshots")
        self.fuse_ns = self._timer_ns() - begin_ns
        return fixes

    def open(self, snapshot: int) -> OpenExchange:
        """Begin the rounds of a snapshot.

        Raises:
            FusionError: the fusion rule raised.
        """
        assert isinstance(self._fusion, RoundFusion)
        with _named([snapshot]):
            return OpenExchange(self._fusion.open(snapshot))

    def advance(self, state: OpenExchange, gathered: Gathered) -> Payload | Fix:
        """Take the answers of a round; return the state to broadcast next, or the fix.

        Raises:
            FusionError: the fusion rule raised.
        """
        state.used += [report.key for report in gathered.reports]
        state.last = gathered
        begin_ns = self._timer_ns()
        with _named([gathered.snapshot]):
            answer = state.exchange.advance(gathered.reports)
        state.fuse_ns += self._timer_ns() - begin_ns
        return answer

    def conclude(self, snapshot: int, state: OpenExchange) -> Fix | None:
        """End the rounds of a snapshot; return the best fix so far, None if there is none.

        Raises:
            FusionError: the fusion rule raised.
        """
        with _named([snapshot]):
            return state.exchange.conclude()


def replay_exchange(center: FusionCenter, snapshot: int, rounds: Sequence[Sequence[Report]]) -> Fix | None:
    """Go through logged rounds again; None where they end before there is a fix."""
    state = center.open(snapshot)
    for round_, reports in enumerate(rounds):
        last_bs = reports[-1].key.bs if reports else 0
        answer = center.advance(state, Gathered(snapshot, round_, tuple(reports), 0, last_bs))
        if isinstance(answer, Fix):
            return answer
    return center.conclude(snapshot, state)


@contextmanager
def _named(snapshots: Sequence[int]) -> Iterator[None]:
    """Have whatever a fusion rule raises say which snapshots it was given."""
    try:
        yield
    except Exception as error:  # a rule is anybody's code, and may raise anything
        numbers = [str(snapshot) for snapshot in dict.fromkeys([*snapshots[:1], *snapshots[-1:]])]
        which = f"snapshot{'s' if len(numbers) > 1 else ''} {' to '.join(numbers)}"
        what = textwrap.shorten(str(error), 300, placeholder=" …")
        raise FusionError(f"{which} cannot be fused: {what} ({type(error).__name__})") from error
