"""A base station alone, without its link."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_nodes import SeveralRounds
from torch import Tensor

from edge.base_station import CONTEXTS, BaseStation, StageTimes, reports_together
from edge.estimation import LmmseEstimator
from edge.scheme import EdgeScheme, Encoded
from fronthaul.codec.bitstream import pack, unpack
from fronthaul.errors import LocalError
from fronthaul.message.messages import Payload, PayloadFormat, ReportKey

SHAPE = SLOTS, ANTENNAS, TONES = 2, 3, 4


class Sign:
    """One bit an entry: the sign of the real part. Keeps what it was given."""

    name = "sign"
    format = PayloadFormat(SLOTS * ANTENNAS * TONES, 1)

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def encode(self, channel: Tensor) -> Encoded:
        self.seen.append(channel)
        index = (channel.real > 0).flatten(1).numpy().astype(np.uint32)
        return Encoded([pack(row, 1) for row in index], [bytes([k]) for k in range(len(channel))])


def observe(snapshot: int) -> Tensor:
    """Snapshot n is seeded with n."""
    return torch.randn(SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(snapshot))


def station(scheme: EdgeScheme, antennas: int = ANTENNAS, tones: int = TONES) -> BaseStation:
    covariance = torch.eye(antennas, dtype=torch.complex64).expand(tones, -1, -1)
    estimator = LmmseEstimator(covariance, 0.0, 1.0, torch.ones(tones, dtype=torch.complex64))
    return BaseStation(5, 2, estimator, scheme, timer_ns=iter(range(0, 100_000, 10)).__next__)


def test_reports_carry_the_schemes_indices_to_the_bit() -> None:
    scheme = Sign()
    made = station(scheme)
    received = torch.stack([observe(n) for n in (7, 8)])
    reports = made.reports([7, 8], received)
    assert [report.key for report in reports] == [ReportKey(5, 2, 7), ReportKey(5, 2, 8)]
    assert [report.side for report in reports] == [b"\0", b"\1"]
    for report, channel in zip(reports, received, strict=True):
        assert report.payload.bits == scheme.format.max_bits
        expected = (channel.real.numpy() > 0).ravel()
        assert np.array_equal(unpack(report.payload, 1, scheme.format.max_bits), expected)
    torch.testing.assert_close(scheme.seen[0], received)  # identity covariance and no noise
    assert made.stage_ns == StageTimes(10, 10, 10)


def test_together_each_base_station_has_its_share_of_the_time_and_reports_as_alone() -> None:
    made = [station(Sign()) for _ in range(3)]
    asked = [(one, range(k + 1), torch.stack([observe(9 * k + n) for n in range(k + 1)])) for k, one in enumerate(made)]
    together = reports_together(asked)
    assert [times.encode_ns for _, times in together] == [10 * (k + 1) // 6 for k in range(3)]
    alone = [one.reports(snapshots, received) for one, snapshots, received in asked]
    assert [reports for reports, _ in together] == alone


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        (
            PayloadFormat(25, 1),
            "'sign' declares reports of 25 bit and 1 B of side information, and made 24 bit and 1 B",
        ),
        (
            PayloadFormat(23, 1, fixed=False),
            "'sign' declares reports of up to 23 bit and 1 B of side information, and made 24",
        ),
        (
            PayloadFormat(24, 3),
            "'sign' declares reports of 24 bit and 3 B of side information, and made 24 bit and 1 B",
        ),
    ],
)
def test_a_scheme_must_keep_to_its_format(declared: PayloadFormat, sentence: str) -> None:
    scheme = Sign()
    scheme.format = declared
    with pytest.raises(ValueError, match=sentence):
        station(scheme).reports([0], observe(0)[None])


class Forgetful(Sign):
    def encode(self, channel: Tensor) -> Encoded:
        encoded = super().encode(channel)
        return Encoded(encoded.payloads[1:], encoded.side)


def test_a_scheme_must_say_something_of_every_snapshot() -> None:
    with pytest.raises(ValueError, match="'sign' made 1 payloads and 2 of what is beside them of 2 snapshots"):
        station(Forgetful()).reports([7, 8], torch.stack([observe(n) for n in (7, 8)]))


class Unary(Sign):
    """As many ones as the snapshot's place in its batch."""

    format = PayloadFormat(3, fixed=False)

    def encode(self, channel: Tensor) -> Encoded:
        return Encoded([pack(np.ones(k, np.uint32), 1) for k in range(len(channel))])


def test_reports_may_differ_in_length_up_to_what_is_declared() -> None:
    received = torch.stack([observe(n) for n in range(4)])
    reports = station(Unary()).reports([0, 1, 2, 3], received)
    assert [report.payload.bits for report in reports] == [0, 1, 2, 3]
    assert {report.side for report in reports} == {b""}
    with pytest.raises(ValueError, match="declares reports of up to 3 bit and 0 B of side information, and made 4 bit"):
        station(Unary()).reports(list(range(5)), torch.stack([observe(n) for n in range(5)]))


def test_formats_are_the_schemes() -> None:
    one, several = station(Sign()), station(SeveralRounds(), 1, 2)
    assert one.format == PayloadFormat(24, 1) and one.answer_format is None
    assert several.format == PayloadFormat.uniform(8, 1, 1) and several.answer_format == PayloadFormat.uniform(16, 1)


def measured(made: BaseStation, snapshots: list[int]) -> None:
    numbers = torch.tensor(snapshots, dtype=torch.complex64)
    made.reports(snapshots, numbers[:, None, None, None].expand(-1, 1, 1, 2))


def test_an_answer_is_made_of_what_was_measured_and_the_state() -> None:
    made = station(SeveralRounds(), 1, 2)
    measured(made, [7, 8])
    report = made.answer(8, 3, Payload(b"\x05", 8))
    assert report is not None and report.key == ReportKey(5, 2, 8, 3)
    assert report.payload == Payload(bytes([5, 8]), 16) and report.side == b""
    assert made.stage_ns == StageTimes(0, 10, 10)


def test_there_is_no_answer_to_what_was_never_measured_or_too_long_ago() -> None:
    made = station(SeveralRounds(), 1, 2)
    assert made.answer(0, 1, Payload(b"\x05", 8)) is None
    measured(made, list(range(CONTEXTS)))
    measured(made, [CONTEXTS])
    assert made.answer(0, 1, Payload(b"\x05", 8)) is None
    assert made.answer(1, 1, Payload(b"\x05", 8)) is not None
    assert station(Sign()).answer(0, 1, Payload(b"\x05", 8)) is None


class Careless(SeveralRounds):
    name = "careless"

    def answer(self, context: Any, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        return Payload(bytes(4), 32), b""


def test_an_answer_must_keep_to_its_size() -> None:
    made = station(Careless(), 1, 2)
    measured(made, [0])
    with pytest.raises(LocalError, match="'careless' declares answers"):
        made.answer(0, 1, Payload(b"\x05", 8))
