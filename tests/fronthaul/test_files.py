"""Files are written whole or not at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fronthaul.files import whole_file, write_parquet


def test_a_file_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_parquet_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"bs": [0, 1], "payload": [b"", None]})
    path = tmp_path / "bs-000.parquet"
    write_parquet(table, path)
    assert pq.read_table(path).equals(table)
    write_parquet(table.slice(0, 0), path)
    assert pq.read_table(path).num_rows == 0

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_parquet(table, path)
    assert pq.read_table(path).num_rows == 0
    assert list(tmp_path.iterdir()) == [path]
