"""A collector of three base stations, and frames for it."""

from cloud.collector import Collector, CollectorRules
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Payload, PayloadFormat, Registration, Report, ReportKey

INTERVAL, DEADLINE, T0 = 100, 250, 1000
STATIONS = frozenset({0, 1, 2})
RULES = CollectorRules(stations=STATIONS, snapshots=4, interval_ns=INTERVAL, deadline_ns=DEADLINE, minimum_bs=2)
CLOSED_LOOP = CollectorRules(stations=STATIONS, snapshots=4, interval_ns=0, deadline_ns=DEADLINE)
D, DUP, REJ = FrameFate.DELIVERED, FrameFate.DUPLICATE, FrameFate.REJECTED


def report(bs: int, snapshot: int, *, epoch: int = 0, round: int = 0, bits: int = 8, side: bytes = b"") -> Report:
    return Report(ReportKey(bs, epoch, snapshot, round), Payload(bytes(bits // 8), bits), side)


def frame(*reports: Report) -> Frame:
    return Frame(0, reports)


def single(bs: int, snapshot: int, *, epoch: int = 0, round: int = 0) -> Frame:
    return frame(report(bs, snapshot, epoch=epoch, round=round))


def registration(bs: int, epoch: int = 0, *, rounds: bool = False) -> Registration:
    here = (0.0, 0.0, 0.0)
    answer = PayloadFormat.uniform(8, 1, 0) if rounds else None
    return Registration(bs, epoch, "s", PayloadFormat.uniform(4, 2, 0), answer, position=here, orientation=here)


def collector(
    rules: CollectorRules = RULES, *, started: bool = True, registered: bool = True, rounds: bool = False
) -> Collector:
    made = Collector(rules)
    for bs in sorted(rules.stations) if registered else ():
        assert made.register(registration(bs, rounds=rounds)) is None
    if started:
        made.start(T0)
    return made


def handed_out(made: Collector) -> list[tuple[int, list[int]]]:
    return [(g.snapshot, [r.key.bs for r in g.reports]) for g in made.take_ready()]
