"""Written down first, then sent; what the transport does not take is written down again with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fronthaul.clock import SimulatedClock
from fronthaul.errors import QueueFull, TransportError
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import TRANSPORT_FULL, Departure, amended, corrupted, read_journal
from fronthaul.log.stream_names import SENT
from fronthaul.message.messages import Direction, Goodbye
from fronthaul.message.wire import encode
from fronthaul.sender.sender import QUEUE_PAUSE_NS, Sender
from fronthaul.transport.zmtp import ZMTP_NULL

FIRST, SECOND = (Departure(encode(Goodbye(2, 0, frames)), 10, 20) for frames in range(2))


class End:
    """A sender, and a transport that does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / f"end{SENT}"
        self.recorder = Recorder(folder, "end", sends=Direction.DOWN, transport=ZMTP_NULL)
        self.clock = SimulatedClock(100)
        self.trouble: list[TransportError] = []
        self.put: list[tuple[int, bytes, int]] = []
        self.gone: list[int | None] = []
        self.sender = self.made()

    def made(self, *, goes_on: bool = False) -> Sender:
        return Sender(self.recorder, self.clock, self._put, lambda bs, _: self.gone.append(bs), goes_on=goes_on)

    def _put(self, bs: int, data: bytes, t_release_ns: int) -> None:
        assert any(row["message"] == FIRST.message for row in self.rows())  # before anything is sent
        if self.trouble:
            raise self.trouble.pop(0)
        self.put.append((bs, data, t_release_ns))

    def rows(self) -> list[dict[str, Any]]:
        return amended(read_journal(self.journal).to_pylist())

    def reasons(self) -> list[str | None]:
        return [row["drop_reason"] for row in self.rows()]


@contextmanager
def end(folder: Path) -> Iterator[End]:
    made = End(folder)
    try:
        yield made
    finally:
        made.recorder.close()


def lost(kind: type[TransportError], data: bytes) -> TransportError:
    error = kind("of an earlier one")
    error.undelivered = data
    return error


def test_what_the_link_model_dropped_is_not_sent_and_what_it_flipped_is(tmp_path: Path) -> None:
    flipped = SECOND._replace(flipped=(3,))
    with end(tmp_path) as made:
        made.sender.send(2, [FIRST._replace(drop_reason="loss"), flipped])
        assert made.put == [(2, corrupted(flipped), 20)]
        assert made.reasons() == ["loss", None]


@pytest.mark.parametrize(
    ("kind", "reason", "gone"), [(QueueFull, TRANSPORT_FULL, []), (TransportError, "disconnected", [2])]
)
def test_what_is_not_taken_is_amended_and_the_rest_goes_on(
    tmp_path: Path, kind: type[TransportError], reason: str, gone: list[int]
) -> None:
    with end(tmp_path) as made:
        made.trouble = [kind("not now")]
        made.sender.send(2, [FIRST, SECOND])
        assert [data for _, data, _ in made.put] == [SECOND.message]
        assert made.reasons() == [reason, None] and made.gone == gone


def test_what_an_error_keeps_from_being_sent_is_amended_too(tmp_path: Path) -> None:
    with end(tmp_path) as made:
        made.sender = Sender(made.recorder, made.clock, made._put, refuse)
        made.trouble = [TransportError("gone for good")]
        with pytest.raises(TransportError, match="gone for good"):
            made.sender.send(2, [FIRST, SECOND])
        assert made.put == [] and made.reasons() == ["disconnected"] * 2


def refuse(bs: int | None, error: TransportError) -> None:
    raise error


def test_patience_waits_for_a_full_queue_and_ends(tmp_path: Path) -> None:
    with end(tmp_path) as made:
        made.sender.patience_ns = 3 * QUEUE_PAUSE_NS
        made.trouble = [QueueFull("full")] * 3
        made.sender.send(2, [FIRST])
        assert made.clock.now_ns() == 100 + 3 * QUEUE_PAUSE_NS and made.reasons() == [None]
        made.trouble = [QueueFull("full")] * 9
        made.sender.send(2, [SECOND])
        assert made.clock.now_ns() == 100 + 6 * QUEUE_PAUSE_NS and made.reasons() == [None, TRANSPORT_FULL]


def test_news_of_an_earlier_message_amend_that_one_and_do_not_cost_this_one(tmp_path: Path) -> None:
    with end(tmp_path) as made:
        made.sender.send(2, [FIRST])
        made.trouble = [lost(TransportError, FIRST.message), lost(TransportError, b"no message any more")]
        made.sender.send(2, [SECOND])
        assert made.reasons() == ["disconnected", None] and made.gone == [2, None]
        with pytest.raises(TransportError, match="broke down"):
            made.sender.note_lost(TransportError("the thread of the delay line broke down"))


def test_an_end_of_several_links_goes_on_while_a_message_waits_for_room(tmp_path: Path) -> None:
    with end(tmp_path) as made:
        made.sender = made.made(goes_on=True)
        made.sender.patience_ns = 10 * QUEUE_PAUSE_NS
        made.trouble = [QueueFull("full")]
        made.sender.send_all([(2, FIRST), (3, SECOND)])
        made.sender.send(2, [SECOND])  # behind the first, even if there is room by now
        assert [(bs, data) for bs, data, _ in made.put] == [(3, SECOND.message)]
        assert made.sender.waits and made.clock.now_ns() == 100
        made.trouble = [QueueFull("full")]
        made.sender.resume()
        assert len(made.put) == 1 and made.sender.waits
        made.sender.resume()
        assert [(bs, data) for bs, data, _ in made.put[1:]] == [(2, FIRST.message), (2, SECOND.message)]
        assert not made.sender.waits and made.reasons() == [None] * 3


@pytest.mark.parametrize("last", [False, True])
def test_what_waited_too_long_is_amended(tmp_path: Path, last: bool) -> None:
    with end(tmp_path) as made:
        made.sender = made.made(goes_on=True)
        made.sender.patience_ns = 10 * QUEUE_PAUSE_NS
        made.trouble = [QueueFull("full")] * 9
        made.sender.send(2, [FIRST])
        if not last:
            made.clock.sleep_until(100 + made.sender.patience_ns)
        made.sender.resume(last=last)
        assert made.put == [] and not made.sender.waits and made.reasons() == [TRANSPORT_FULL]


def test_what_waits_for_one_that_is_gone_is_amended(tmp_path: Path) -> None:
    with end(tmp_path) as made:
        made.sender = made.made(goes_on=True)
        made.sender.patience_ns = 10 * QUEUE_PAUSE_NS
        made.trouble = [QueueFull("full"), TransportError("not connected")]
        made.sender.send(2, [FIRST])
        made.sender.resume()
        assert made.gone == [2] and not made.sender.waits and made.reasons() == ["disconnected"]
