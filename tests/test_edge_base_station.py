"""A base station alone, and on its link."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edge.base_station import BaseStation
from edge.estimation import LmmseEstimator
from edge.node import EdgeNode, Refused, Schedule, run_schedule
from edge.scheme import Encoded
from fronthaul.bitstream import unpack
from fronthaul.clock import SimulatedClock
from fronthaul.errors import LocalError, TransportError
from fronthaul.journal import SendJournal, read_stream
from fronthaul.memory import MemoryNetwork
from fronthaul.messages import Abort, Frame, Goodbye, Registration, ReportKey, Welcome
from fronthaul.transport import CloudTransport, identity
from fronthaul.wire import decode, encode

SHAPE = SLOTS, ANTENNAS, TONES = 2, 3, 4


class Sign:
    """One bit an entry: the sign of the real part. Keeps what it was given."""

    name = "sign"
    bits = 1
    coefficients = SLOTS * ANTENNAS * TONES
    side_bytes = 1

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def encode(self, channel: Tensor) -> Encoded:
        self.seen.append(channel)
        index = (channel.real > 0).flatten(1).numpy().astype(np.uint32)
        return Encoded(index, [bytes([k]) for k in range(len(channel))])


class FakeRadio:
    """Snapshot n is seeded with n."""

    def observe(self, snapshot: int) -> Tensor:
        return torch.randn(SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(snapshot))


def station(scheme: Sign) -> BaseStation:
    covariance = torch.eye(ANTENNAS, dtype=torch.complex64).expand(TONES, -1, -1)
    estimator = LmmseEstimator(covariance, 0.0, 1.0, torch.ones(TONES, dtype=torch.complex64))
    return BaseStation(5, 2, estimator, scheme, timer_ns=iter(range(0, 1000, 10)).__next__)


def test_reports_carry_the_schemes_indices_to_the_bit() -> None:
    scheme = Sign()
    made = station(scheme)
    received = torch.stack([FakeRadio().observe(n) for n in (7, 8)])
    reports = made.reports([7, 8], received)
    assert [report.key for report in reports] == [ReportKey(5, 2, 7), ReportKey(5, 2, 8)]
    assert [report.side for report in reports] == [b"\0", b"\1"]
    for report, channel in zip(reports, received, strict=True):
        assert report.payload.bits == scheme.coefficients
        expected = (channel.real.numpy() > 0).ravel()
        assert np.array_equal(unpack(report.payload, 1, scheme.coefficients), expected)
    torch.testing.assert_close(scheme.seen[0], received)  # identity covariance and no noise
    assert (made.stage_ns.estimate_ns, made.stage_ns.encode_ns, made.stage_ns.pack_ns) == (10, 10, 10)


@pytest.mark.parametrize("change", ["coefficients", "side_bytes"])
def test_a_scheme_must_keep_to_its_sizes(change: str) -> None:
    scheme = Sign()
    setattr(scheme, change, 3)
    with pytest.raises(ValueError, match="'sign' declares"):
        station(scheme).reports([0], FakeRadio().observe(0)[None])


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(50)


@pytest.fixture
def linked(tmp_path: Path, clock: SimulatedClock) -> Iterator[tuple[EdgeNode, CloudTransport]]:
    """Yield a node and the other end of its link."""
    network = MemoryNetwork()
    journal = SendJournal(tmp_path / "journal.arrow", 5)
    edge = EdgeNode(
        station(Sign()),
        FakeRadio(),
        network.edge(5),
        journal,
        clock,
        position=(1.0, 2.0, 3.0),
        orientation=(0.1, 0.2, 0.0),
    )
    yield edge, network.cloud()
    edge.close()


Linked = tuple[EdgeNode, CloudTransport]


def test_a_node_registers_paces_itself_journals_and_leaves(linked: Linked, tmp_path: Path) -> None:
    edge, cloud = linked
    edge.register()
    cloud.send(identity(5), encode(Welcome(5, 2)))
    edge.await_welcome(0.0)
    run_schedule([edge], Schedule(t0_ns=1000, interval_ns=100, snapshots=5, batch=2))
    edge.close()

    messages = []
    while (received := cloud.receive(0.0)) is not None:
        messages.append(decode(received[1]))
    registration, *frames, goodbye = messages
    assert registration == Registration(5, 2, "sign", 1, 24, 1, position=(1.0, 2.0, 3.0), orientation=(0.1, 0.2, 0.0))
    assert goodbye == Goodbye(5, 2, 5)
    assert [(f.seq, f.report.key.snapshot) for f in frames if isinstance(f, Frame)] == [(n, n) for n in range(5)]
    rows = read_stream(tmp_path / "journal.arrow").to_pylist()
    # A batch is due with its last snapshot.
    assert [row["t_sent_ns"] for row in rows] == [1100, 1100, 1300, 1300, 1400]
    assert [row["payload"] for row in rows] == [f.report.payload.data for f in frames if isinstance(f, Frame)]
    outcome = edge.outcome()
    assert (outcome.bs, outcome.epoch, outcome.frames) == (5, 2, 5)
    assert [row.t_start_ns for row in outcome.stages] == [1100, 1100, 1300, 1300, 1400]
    sent = [encode(message) for message in (registration, goodbye)]
    assert outcome.control_sent == sum(2 + len(data) for data in sent)
    assert outcome.control_received == 2 + len(encode(Welcome(5, 2)))


def test_a_node_writes_down_before_it_sends(linked: Linked, tmp_path: Path) -> None:
    edge, cloud = linked
    edge.prepare([0])
    edge._transport.close()
    with pytest.raises(LocalError, match="closed"):
        edge.transmit([0], 0)
    assert len(read_stream(tmp_path / "journal.arrow")) == 1
    assert cloud.receive(0.0) is None


def test_a_rehearsal_leaves_no_trace(linked: Linked, tmp_path: Path) -> None:
    edge, cloud = linked
    edge.rehearse()
    assert cloud.receive(0.0) is None
    assert len(read_stream(tmp_path / "journal.arrow")) == 0
    assert edge.outcome().stages == []


def test_refusal_silence_and_nonsense_are_told_apart(linked: Linked) -> None:
    edge, cloud = linked
    with pytest.raises(TransportError, match="did not answer BS 5"):
        edge.await_welcome(0.0)
    cloud.send(identity(5), encode(Abort("not today")))
    with pytest.raises(Refused, match="not today"):
        edge.await_welcome(0.0)
    cloud.send(identity(5), encode(Welcome(5, 1)))
    with pytest.raises(TransportError, match="Welcome"):
        edge.await_welcome(0.0)
