"""Configuration of a link: the validated parameters of `link_model.LinkModel`, each declared with its impairment."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, get_type_hints

from fronthaul.link.impairment import (
    BURSTS,
    RATE,
    SHAPE,
    SHARE,
    SIZE,
    TIME,
    TIMES,
    GilbertElliott,
    Impairment,
    JitterShape,
    Reported,
)


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Configuration of one direction of one link; the default leaves all messages untouched.

    Attributes:
        rate_bps: line rate, in modelled Ethernet bytes [bit/s]; None is without limit.
        delay_s: minimum delay after the line [s].
        jitter_s: mean of the random delay added to delay_s [s]; the mean delay is delay_s + jitter_s.
        jitter: its distribution, see `link_model.unit_jitter`.
        loss: probability that a frame is lost, independent of other frames.
        burst: loss in bursts, on top of `loss`.
        duplicate: probability that the link copies a frame; the copy takes its own turn on the line.
        reorder: probability that a frame skips delay and jitter.
        corrupt: probability that one to three bits of a frame flip.
        outages: (start, end) [s] after time zero, in ascending order: frames sent in one are dropped, the end excluded.
        queue_bytes: maximum size of the queue before the line, the arriving frame included, in modelled Ethernet bytes
            [B]; None is without limit. A frame already on the line does not count; without a rate nothing waits.

    Raises:
        LocalError: a value out of range, which the message names.
    """

    rate_bps: Annotated[
        float | None,
        Impairment(
            "rate",
            RATE,
            "Line rate, such as 10mbit",
            default="no limit",
            values="1mbit,10mbit",
            optional=True,
            kernel="tbf",
            report=Reported("rate_bps", "rate_bps", "rate_bps", "rate\n[Mbit/s]", 1e-6),
        ),
    ] = None
    delay_s: Annotated[
        float,
        Impairment(
            "delay",
            TIME,
            "One-way delay, such as 2ms",
            values="0,2ms,5ms",
            kernel="netem",
            report=Reported("delay_s", "mean_delay_s", "delay_mean_s", "delay\n[ms]", 1e3),
        ),
    ] = 0.0
    jitter_s: Annotated[
        float,
        Impairment(
            "jitter",
            TIME,
            "Mean of the random delay on top of --delay, such as 500us",
            values="0,500us",
            kernel="netem",
        ),
    ] = 0.0
    jitter: Annotated[
        JitterShape,
        Impairment(
            "jitter_shape",
            SHAPE,
            "Distribution of the jitter",
            default="uniform",
            values="uniform,pareto",
            needs=("jitter",),
        ),
    ] = "uniform"
    loss: Annotated[
        float,
        Impairment(
            "loss",
            SHARE,
            "Probability that a frame is lost, such as 1% or 0.01",
            default="0",
            values="0,5%,20%",
            report=Reported("loss", "mean_loss", "loss", "loss\n[%]", 100.0),
        ),
    ] = 0.0
    burst: Annotated[
        GilbertElliott | None,
        Impairment(
            "burst",
            BURSTS,
            "Losses in bursts: probabilities to the bad state and back (then of loss in it, outside), such as '1% 25%'",
            values="'none,1% 25%'",
            optional=True,
            kernel="netem",
        ),
    ] = None
    duplicate: Annotated[
        float,
        Impairment(
            "duplicate",
            SHARE,
            "Probability that a frame arrives twice, such as 1%",
            default="0",
            values="0,1%",
            kernel="netem",
            report=Reported("duplicate", "duplicate", "duplicate", "duplicate\n[%]", 100.0),
        ),
    ] = 0.0
    reorder: Annotated[
        float,
        Impairment(
            "reorder",
            SHARE,
            "Probability that a frame skips delay and jitter, such as 1%",
            default="0",
            values="1%,5%",
            needs=("delay", "jitter"),
            kernel="netem",
            report=Reported("reorder", "reorder", "reorder", "reorder\n[%]", 100.0),
        ),
    ] = 0.0
    corrupt: Annotated[
        float,
        Impairment(
            "corrupt",
            SHARE,
            "Probability that bits of a frame flip, such as 1%",
            default="0",
            values="0,1%",
            kernel="netem",
            report=Reported("corrupt", "corrupt", "corrupt", "corrupt\n[%]", 100.0),
        ),
    ] = 0.0
    outages: Annotated[
        tuple[tuple[float, float], ...],
        Impairment(
            "outage",
            TIMES,
            "Times without a link after time zero, such as '2s-3s, 8s-8.5s'",
            optional=True,
            report=Reported("outages", "outage_count", "outage_drops", "outages →\ndropped", counts=True),
        ),
    ] = ()
    queue_bytes: Annotated[
        int | None,
        Impairment(
            "queue",
            SIZE,
            "What may wait for the line, such as 64kB",
            default="no limit",
            values="16kB,64kB",
            optional=True,
            needs=("rate",),
            report=Reported("queue_bytes", "queue_bytes", "queue_drops", "queue [kB] →\ndropped", 1e-3, counts=True),
        ),
    ] = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for impairment in IMPAIRMENTS.values():
            impairment.check(self)

    @property
    def mean_delay_s(self) -> float:
        """Mean delay after the line, for a frame that is neither reordered nor held back [s]."""
        return self.delay_s + self.jitter_s

    @property
    def mean_loss(self) -> float:
        """Probability that a frame that reaches the line is lost, bursts included."""
        kept = 1.0 if self.burst is None else 1.0 - self.burst.mean_loss
        return 1.0 - (1.0 - self.loss) * kept

    @property
    def outage_count(self) -> int:
        """Number of outages."""
        return len(self.outages)


def _declared() -> dict[str, Impairment]:
    hints = get_type_hints(LinkConfig, include_extras=True)
    found = {}
    for spec in dataclasses.fields(LinkConfig):
        [impairment] = hints[spec.name].__metadata__
        found[impairment.key] = dataclasses.replace(impairment, field=spec.name, absent=spec.default)
    return found


IMPAIRMENTS: Mapping[str, Impairment] = _declared()
"""Every impairment by its key."""
