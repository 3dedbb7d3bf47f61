"""Streams kept on another machine are, byte for byte, those that would have been kept here."""

import errno
from pathlib import Path
from typing import Any

import pytest

from fronthaul.errors import LocalError
from fronthaul.log.received import Arrival, read_received
from fronthaul.log.recorder import Recorder
from fronthaul.log.remote import Keeper, RemoteFolder
from fronthaul.log.sent import Departure, read_journal
from fronthaul.log.stream_names import SENT, edge_name
from fronthaul.message.messages import Direction, Goodbye, Ping
from fronthaul.message.wire import encode
from fronthaul.transport.zmtp import ZMTP_NULL

NAME = edge_name(3, 0)
FIRST, SECOND = (Departure(encode(Ping(3, 0, t_ns)), t_ns, t_ns) for t_ns in (1, 2))


class Link:
    """A keeper behind a network: calls are carried out in order, and at the latest when somebody waits for them."""

    def __init__(self, folder: Path, space: float = float("inf")) -> None:
        """Keep up to `space` bytes in all."""
        self._keeper = Keeper(folder)
        self._space = space
        self._waiting: list[tuple[str, int, bytes | None]] = []
        self.cut = False

    def write(self, name: str, offset: int, data: bytes) -> Any:
        """Put a write on the line."""
        self._waiting.append((name, offset, data))
        return len(self._waiting)

    def truncate(self, name: str, size: int) -> Any:
        """Put a cut on the line."""
        self._waiting.append((name, size, None))
        return len(self._waiting)

    def await_all(self, calls: list[Any]) -> None:
        """Carry out what is on the line."""
        if self.cut:
            raise LocalError("cannot be reached")
        waiting, self._waiting = self._waiting, []
        for name, offset, data in waiting:
            if data is None:
                self._keeper.truncate(name, offset)
                continue
            self._space -= len(data)
            if self._space < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self._keeper.write(name, offset, data)
            self._keeper.write(name, offset, data)  # as when the keeper was started again

    def lose(self) -> None:
        """Lose the writer's node: what is still on the line never arrives."""
        self._waiting, self.cut = [], True


def recorded(folder: Path | RemoteFolder) -> Recorder:
    """Record two messages sent, the last of which is taken back and sent again, and one received."""
    recorder = Recorder(folder, NAME, sends=Direction.UP, transport=ZMTP_NULL, capture_bs=3)
    recorder.sent(3, [FIRST])
    recorder.sent(3, [SECOND])
    recorder._journal.take_back()
    recorder.sent(3, [SECOND])
    recorder.received([Arrival(3, encode(Goodbye(3, 0, 1)), 5, None)])
    return recorder


def test_files_are_the_same_as_on_this_machine(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    for folder in (here, RemoteFolder(Link(there))):
        recorded(folder).close()
    assert {path.name for path in here.iterdir()} == {path.name for path in there.iterdir()}
    for path in here.iterdir():
        assert path.read_bytes() == (there / path.name).read_bytes()


def test_a_message_is_on_the_keepers_disk_before_it_leaves(tmp_path: Path) -> None:
    """Nothing of it is lost with the node; of what was received, the last rows may be."""
    link = Link(tmp_path)
    recorder = recorded(RemoteFolder(link))
    link.lose()
    assert read_journal(tmp_path / f"{NAME}{SENT}")["message"].to_pylist() == [FIRST.message, SECOND.message]
    assert len(read_received(tmp_path / f"{NAME}-received.arrow")) == 0
    with pytest.raises(LocalError, match="cannot be reached"):
        recorder.sent(3, [FIRST])


def test_a_full_disk_of_the_keeper_is_told_before_the_message_leaves(tmp_path: Path) -> None:
    recorder = Recorder(RemoteFolder(Link(tmp_path, space=4000)), NAME, sends=Direction.UP, transport=ZMTP_NULL)
    with pytest.raises(LocalError, match="a stream cannot be written on the driver's node: No space left on device"):
        for _ in range(100):
            recorder.sent(3, [FIRST])
    kept = read_journal(tmp_path / f"{NAME}{SENT}")
    assert 0 < len(kept) < 100


@pytest.mark.parametrize("name", ["run.toml", "../bs-000-epoch-0-sent.arrow", f"{NAME}-/../../x", "/etc/passwd", ""])
def test_a_keeper_writes_streams_of_its_folder_alone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    for call in (lambda: Keeper(folder).write(name, 0, b"x"), lambda: Keeper(folder).truncate(name, 0)):
        with pytest.raises(LocalError, match="is not the name of a stream"):
            call()
    assert list(folder.iterdir()) == [] and list(tmp_path.iterdir()) == [folder]
