"""A base station's signal processing, from received pilots Y to reports.

Y -> estimate -> scheme: encode, quantise, code -> check -> report
Y -> more energy than noise? -> scheme: mark     -> as a scheme's reports say it
the cloud's state  ->  scheme: answer, code       -> check -> report of a later round
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.estimation import Estimator, LeastSquaresEstimator, LmmseEstimator
from edge.scheme import EdgeScheme, EdgeSetup, Encoded, HearingScheme, RoundScheme, encode_together
from fronthaul.errors import LocalError
from fronthaul.message.messages import Payload, PayloadFormat, Report, ReportKey

CONTEXTS = 256
"""Number of most recent snapshots for which the context of a scheme of several rounds is kept."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Duration of each stage of one call [ns], for the batch as a whole.

    Encoding includes coding to bits; `pack_ns` is the time to check the payloads and make reports of them.
    """

    estimate_ns: int
    encode_ns: int
    pack_ns: int


@dataclass(frozen=True)
class StationSpec:
    """Specification of a base station, sent to the actor that runs it. Holds no position of any user.

    Attributes:
        bs: base station.
        epoch: number of earlier starts.
        build: builds the scheme from `setup`.
        setup: this base station's share of configuration and weights.
        covariance: spatial covariance (tone, antenna, antenna) complex64; None selects least-squares estimation.
        noise_w: noise power per antenna and tone [W].
        power_w: transmit power per tone [W].
        pilots: (tone,) complex64 of unit modulus.
        silence_w: a user is heard if a snapshot's pilots have more energy than this, summed over slots, antennas and
            tones [W].
    """

    bs: int
    epoch: int
    build: Callable[[EdgeSetup], EdgeScheme]
    setup: EdgeSetup
    covariance: Tensor | None
    noise_w: float
    power_w: float
    pilots: Tensor
    silence_w: float = 0.0

    def assemble(self) -> BaseStation:
        """Build the base station."""
        estimator: Estimator = LeastSquaresEstimator(self.power_w, self.pilots)
        if self.covariance is not None:
            estimator = LmmseEstimator(self.covariance, self.noise_w, self.power_w, self.pilots)
        return BaseStation(self.bs, self.epoch, estimator, self.build(self.setup), silence_w=self.silence_w)


class BaseStation:
    """Turns received pilots into reports.

    Attributes:
        bs: base station.
        epoch: number of earlier starts.
        scheme: encoder and quantiser.
        stage_ns: stage times of the last call of `reports`, or of the last `answer` that made a report.
    """

    def __init__(
        self,
        bs: int,
        epoch: int,
        estimator: Estimator,
        scheme: EdgeScheme,
        timer_ns: Callable[[], int] = time.perf_counter_ns,
        silence_w: float = 0.0,
    ) -> None:
        """Combine estimator and scheme.

        `timer_ns` is the clock of the stage times [ns]; `silence_w` as in `StationSpec`.
        """
        self.bs = bs
        self.epoch = epoch
        self.scheme = scheme
        self.stage_ns = StageTimes(0, 0, 0)
        self._estimator = estimator
        self._timer_ns = timer_ns
        self._silence_w = silence_w
        self._contexts: dict[int, Any] = {}

    @property
    def format(self) -> PayloadFormat:
        """Declared size of each report of round 0."""
        return self.scheme.format

    @property
    def answer_format(self) -> PayloadFormat | None:
        """Declared size of each answer; None if the scheme has one round."""
        return self.scheme.answer_format if isinstance(self.scheme, RoundScheme) else None

    def reports(self, snapshots: Sequence[int], received: Tensor) -> list[Report]:
        """Return one report per snapshot.

        Args:
            snapshots: snapshot numbers (B,).
            received: pilots (B, slot, antenna, tone) complex64 [sqrt(W)].

        Raises:
            ValueError: the scheme's output does not match the format that it declares.
        """
        ((reports, self.stage_ns),) = reports_together([(self, snapshots, received)])
        return reports

    def _packed(self, snapshots: Sequence[int], encoded: Encoded) -> list[Report]:
        """Check what the scheme made of snapshots, and make reports of it."""
        scheme = self.scheme
        sides = encoded.side or len(snapshots) * [b""]
        if not len(encoded.payloads) == len(sides) == len(snapshots):
            made = f"{len(encoded.payloads)} payloads and {len(sides)} of what is beside them"
            raise ValueError(f"{scheme.name!r} made {made} of {len(snapshots)} snapshots")
        for payload, side in zip(encoded.payloads, sides, strict=True):
            if (fault := _fault(scheme.format, payload, side)) is not None:
                raise ValueError(f"{scheme.name!r} declares reports of {fault}")
        reports = [
            Report(ReportKey(self.bs, self.epoch, snapshot), payload, side)
            for snapshot, payload, side in zip(snapshots, encoded.payloads, sides, strict=True)
        ]
        for snapshot, context in zip(snapshots, encoded.context, strict=False):
            self._contexts[snapshot] = context
        while len(self._contexts) > CONTEXTS:
            del self._contexts[next(iter(self._contexts))]
        return reports

    def _heard(self, received: Tensor) -> list[bool]:
        numbers = torch.view_as_real(received).flatten(1).numpy().astype(np.float64)
        heard: list[bool] = (np.vecdot(numbers, numbers) > self._silence_w).tolist()
        return heard

    def answer(self, snapshot: int, round_: int, state: Payload) -> Report | None:
        """Answer a state of the cloud.

        Returns:
            The answer; None if the scheme has one round, or if the snapshot was not measured or is no longer held.

        Raises:
            RemoteError: the state does not have the size that the scheme expects.
            ValueError: the state is not of this scheme.
            LocalError: the answer does not match the format that the scheme declares.
        """
        scheme = self.scheme
        if not isinstance(scheme, RoundScheme) or snapshot not in self._contexts:
            return None
        begin_ns = self._timer_ns()
        with torch.inference_mode():
            payload, side = scheme.answer(self._contexts[snapshot], snapshot, round_, state)
        answered_ns = self._timer_ns()
        if (fault := _fault(scheme.answer_format, payload, side)) is not None:
            raise LocalError(f"{scheme.name!r} declares answers of {fault}")
        report = Report(ReportKey(self.bs, self.epoch, snapshot, round_), payload, side)
        self.stage_ns = StageTimes(0, answered_ns - begin_ns, self._timer_ns() - answered_ns)
        return report


def reports_together(
    asked: Sequence[tuple[BaseStation, Sequence[int], Tensor]],
) -> list[tuple[list[Report], StageTimes]]:
    """Return the `reports` of base stations of one process, each of its own snapshots, and their stage times.

    Each step is done for all of them before the next one: between different steps its code leaves the processor's
    caches, which takes as long as the step itself. Stage times are a share of all snapshots' times.

    Args:
        asked: base stations, each with its snapshots and the pilots received in them; one may come several times.

    Raises:
        ValueError: as `BaseStation.reports`.
    """
    timer_ns = asked[0][0]._timer_ns
    begin_ns = timer_ns()
    with torch.inference_mode():
        channels = [station._estimator.estimate(received) for station, _, received in asked]
        estimated_ns = timer_ns()
        made = encode_together([station.scheme for station, _, _ in asked], channels)
        for k, (station, _, received) in enumerate(asked):
            if isinstance(station.scheme, HearingScheme):
                made[k] = station.scheme.mark(made[k], station._heard(received))
    encoded_ns = timer_ns()
    reports = [station._packed(snapshots, own) for (station, snapshots, _), own in zip(asked, made, strict=True)]
    packed_ns = timer_ns()
    times = (estimated_ns - begin_ns, encoded_ns - estimated_ns, packed_ns - encoded_ns)
    count = sum(map(len, reports))
    return [(own, StageTimes(*(len(own) * time_ns // count for time_ns in times))) for own in reports]


def _fault(declared: PayloadFormat, payload: Payload, side: bytes) -> str | None:
    """Describe how a payload deviates from its declared format; None if it does not."""
    if declared.admits(payload.bits, len(side)):
        return None
    return f"{declared}, and made {payload.bits} bit and {len(side)} B"
