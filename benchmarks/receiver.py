"""Processor time of the thread that receives, per report: the cloud's intake against bare pyzmq, one report a message.

All has arrived before the time starts, as at a cloud that is slower than its base stations: then neither the senders'
speed counts nor how busy the machine is.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import zmq

from benchmarks.peers import TIMEOUT_S, poll, registered_collector
from benchmarks.samples import STATIONS, reports
from fronthaul.log.recorder import Recorder
from fronthaul.message.messages import Direction, Frame
from fronthaul.message.wire import encode
from fronthaul.transport.identity import identity
from fronthaul.transport.zeromq import QUEUE_MESSAGES, DealerTransport, RouterTransport

REPORTS = QUEUE_MESSAGES // 2
"""Reports of each base station: they fit into the queues."""
PAUSE_S = 0.2
"""Until all has arrived [s]."""


@contextmanager
def receivers(folder: Path) -> Iterator[tuple[Callable[[int], float], Callable[[], float]]]:
    """Yield our side, given the most messages of a poll, and bare pyzmq; each sends all and returns its time [µs]."""
    messages = [
        [encode(Frame(n, (report,))) for n, report in enumerate(reports(REPORTS, bs=bs, first=0))]
        for bs in range(STATIONS)
    ]
    number = count()
    with ExitStack() as stack:
        cloud = stack.enter_context(closing(RouterTransport()))
        edges = [stack.enter_context(closing(DealerTransport(cloud.address, bs))) for bs in range(STATIONS)]

        def socket(kind: int) -> zmq.Socket[bytes]:
            made = stack.enter_context(stack.enter_context(zmq.Context()).socket(kind))
            made.setsockopt(zmq.RCVTIMEO, round(TIMEOUT_S * 1000))
            made.setsockopt(zmq.LINGER, 0)
            return made

        router, dealers = socket(zmq.ROUTER), [socket(zmq.DEALER) for _ in range(STATIONS)]
        port = router.bind_to_random_port("tcp://127.0.0.1")
        for bs, dealer in enumerate(dealers):
            dealer.setsockopt(zmq.IDENTITY, identity(bs))
            dealer.connect(f"tcp://127.0.0.1:{port}")

        def ours(most: int) -> float:
            collector = registered_collector(REPORTS)
            with closing(
                Recorder(folder, f"taken-{next(number)}", sends=Direction.DOWN, transport=cloud.costs)
            ) as recorder:
                for edge, own in zip(edges, messages, strict=True):
                    for message in own:
                        edge.send(message)
                begin_s = _begin()
                gathered = 0
                while gathered < REPORTS:
                    poll(cloud, collector, recorder, most)
                    gathered += len(collector.take_ready())
                return _us(begin_s)

        def bare() -> float:
            for dealer, own in zip(dealers, messages, strict=True):
                for message in own:
                    dealer.send(message)
            begin_s = _begin()
            for _ in range(STATIONS * REPORTS):
                router.recv_multipart()
            return _us(begin_s)

        yield ours, bare


def _begin() -> float:
    time.sleep(PAUSE_S)
    gc.collect()
    gc.freeze()
    return time.thread_time()


def _us(begin_s: float) -> float:
    return 1e6 * (time.thread_time() - begin_s) / (STATIONS * REPORTS)
