"""The fusion centre: turns reports into fixes, round by round, and measures the time this takes."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cloud.collector import Gathered
from cloud.fusion.scheme import Exchange, Fix, Fusion, OneRound, OneRoundFusion, as_fusion
from fronthaul.errors import FronthaulError
from fronthaul.message.messages import Payload, Report, ReportKey

LAST_ROUND = 255
"""Highest round number: rounds are numbered with 8 bits."""


class FusionError(FronthaulError):
    """A fusion rule failed on the reports it was given; the message names their snapshots."""


@dataclass(slots=True)
class OpenExchange:
    """The rounds of one snapshot so far.

    Attributes:
        exchange: the scheme's state of the exchange.
        used: keys of the reports passed to the fusion rule.
        fuse_ns: fusion time so far [ns].
        last: the latest gathering passed to the fusion rule.
    """

    exchange: Exchange
    used: list[ReportKey] = field(default_factory=list)
    fuse_ns: int = 0
    last: Gathered | None = None


class FusionCenter:
    """Runs a fusion rule. A fix is a pure function of its used reports and the seed of the run.

    Attributes:
        asks: whether the rule may need further rounds, in which base stations answer to a broadcast state.
    """

    def __init__(self, rule: Fusion | OneRoundFusion, timer_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        """Use `rule`; `timer_ns` is the timer that measures fusion times [ns]."""
        self._fusion = as_fusion(rule)
        self._timer_ns = timer_ns
        self.asks = not isinstance(self._fusion, OneRound)

    def open(self, snapshot: int) -> OpenExchange:
        """Begin the rounds of a snapshot.

        Raises:
            FusionError: the fusion rule raised.
        """
        with _named([snapshot]):
            return OpenExchange(self._fusion.open(snapshot))

    def advance(self, turns: Sequence[tuple[OpenExchange, Gathered]]) -> list[Payload | Fix]:
        """Fuse one round's reports of several snapshots; return for each the state to broadcast next, or the fix.

        Raises:
            FusionError: the fusion rule raised, or returned a wrong number of fixes.
        """
        groups = [gathered.reports for _, gathered in turns]
        for (state, gathered), reports in zip(turns, groups, strict=True):
            state.used += [report.key for report in reports]
            state.last = gathered
        begin_ns = self._timer_ns()
        with _named([gathered.snapshot for _, gathered in turns]):
            answers = self._answers([state.exchange for state, _ in turns], groups)
        took_ns = self._timer_ns() - begin_ns
        for state, _ in turns:
            state.fuse_ns += took_ns
        return answers

    def conclude(self, snapshot: int, state: OpenExchange) -> Fix | None:
        """End the rounds of a snapshot; return the best fix so far, or None if there is none.

        Raises:
            FusionError: the fusion rule raised.
        """
        with _named([snapshot]):
            return state.exchange.conclude()

    def _answers(self, exchanges: Sequence[Exchange], groups: Sequence[Sequence[Report]]) -> list[Payload | Fix]:
        if isinstance(self._fusion, OneRound):  # all at once
            return [*self._fusion.fuse(groups)]
        return [exchange.advance(reports) for exchange, reports in zip(exchanges, groups, strict=True)]


def replay_exchanges(center: FusionCenter, logged: Mapping[int, Sequence[Sequence[Report]]]) -> list[Fix | None]:
    """Replay logged rounds, given by snapshot, all snapshots at once; None for a snapshot that ends without a fix."""
    states = {snapshot: center.open(snapshot) for snapshot in logged}
    fixes: dict[int, Fix] = {}
    for round_ in range(max(map(len, logged.values()), default=0)):
        going = [snapshot for snapshot, rounds in logged.items() if snapshot not in fixes and round_ < len(rounds)]
        if not going:
            break
        gathered = [Gathered(snapshot, round_, tuple(logged[snapshot][round_]), 0, 0) for snapshot in going]
        answers = center.advance([(states[one.snapshot], one) for one in gathered])
        fixes |= {s: answer for s, answer in zip(going, answers, strict=True) if isinstance(answer, Fix)}
    return [fixes.get(snapshot) or center.conclude(snapshot, state) for snapshot, state in states.items()]


@contextmanager
def _named(snapshots: Sequence[int]) -> Iterator[None]:
    """Turn any exception of a fusion rule into a `FusionError` that names the snapshots."""
    try:
        yield
    except Exception as error:  # a rule may be third-party code, and may raise anything
        numbers = [str(snapshot) for snapshot in dict.fromkeys([*snapshots[:1], *snapshots[-1:]])]
        which = f"snapshot{'s' if len(numbers) > 1 else ''} {' to '.join(numbers)}"
        what = textwrap.shorten(str(error), 300, placeholder=" …")
        raise FusionError(f"{which} cannot be fused: {what} ({type(error).__name__})") from error
