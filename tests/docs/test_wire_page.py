"""docs/wire.md: its decoder reads captures as ledgers have them, its example and numbers are the code's."""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from fronthaul.link.link_file import LinkPlan, with_options
from fronthaul.log.pcapng import CaptureWriter
from fronthaul.message import wire
from fronthaul.message.compact import pack
from fronthaul.message.messages import Direction, Frame, Payload, Report, ReportKey
from sim.emulate.emulator import emulate
from sim.inspect.frames import frame_view
from sim.plan.settings import EmulateSettings

DOCS = Path(__file__).resolve().parents[2] / "docs"
DECODER = DOCS / "decode_capture.py"
KEY = ("direction", "bs", "epoch", "seq", "part", "snapshot", "round", "crc32", "side", "payload_bits")


@pytest.fixture(scope="module")
def decoder() -> ModuleType:
    """The decoder, as a module."""
    spec = importlib.util.spec_from_file_location("decode_capture", DECODER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decoded(path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return what the decoder prints, run with nothing but the standard library to import."""
    command = [sys.executable, "-I", "-S", str(DECODER), str(path), *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.parametrize(("bundle", "compact"), [(1, False), (4, False), (1, True), (4, True)])
def test_a_capture_decodes_to_the_rows_of_its_ledger(settings: EmulateSettings, bundle: int, compact: bool) -> None:
    links = with_options(LinkPlan(), {"loss": "10%", "duplicate": "20%", "corrupt": "20%", "delay": "1ms"})
    run = emulate(replace(settings, links=links, batch=bundle, bundle=bundle, compact=compact)).folder
    errors = 0
    for bs in range(3):
        found = decoded(run / f"links/bs-{bs:03d}.pcapng")
        rows = pq.read_table(run / f"links/bs-{bs:03d}.parquet").to_pylist()
        came = [row for row in rows if row["frame_fate"] in ("delivered", "duplicate")]
        read = [one for one in found if "error" not in one]
        assert Counter((*(one[name] for name in KEY), one["payload"], one["t_ns"]) for one in read) == Counter(
            (*(row[name] for name in KEY[:-2]), row["side"].hex(), row["payload_bits"], row["payload"].hex(), t_ns)
            for row in came
            if (t_ns := row["t_release_ns"]) is not None
        )
        corrupt = [row for row in rows if row["frame_fate"] == "corrupt" and row["part"] == 0]
        assert [one["error"] for one in found if "error" in one] == len(corrupt) * ["corrupt"]
        errors += len(corrupt)
        view = frame_view(run, bs, came[0]["seq"])
        with_indices = [one for one in decoded(run / f"links/bs-{bs:03d}.pcapng", "4") if "error" not in one]
        of_frame = [one["indices"] for one in with_indices if one["seq"] == view.seq]
        assert of_frame == [report.index.tolist() for report in view.reports]
    assert errors > 0


def test_pieces_of_long_messages_and_mixed_bundles_decode(decoder: ModuleType, tmp_path: Path) -> None:
    mixed = Frame(5, tuple(Report(ReportKey(7, 1, n, n), Payload(bytes(n), 8 * n), b"side") for n in range(4)))
    long = Frame(6, (Report(ReportKey(7, 1, 9), Payload(bytes(70_000), 560_000)),))
    writer = CaptureWriter(tmp_path / "bs.pcapng", 7)
    writer.write([(Direction.UP, 5, wire.encode(mixed), 2**62), (Direction.DOWN, 6, wire.encode(long), 8)])
    writer.close()
    data = (tmp_path / "bs.pcapng").read_bytes()
    (up, t_ns, first), (down, _, second) = decoder.messages(data)
    assert (up, t_ns, down) == ("up", 2**62, "down")
    assert (first, second) == (wire.encode(mixed), wire.encode(long))
    assert [(one["snapshot"], one["round"], one["payload_bits"]) for one in decoder.reports(first)] == [
        (n, n, 8 * n) for n in range(4)
    ]
    assert [one["side"] for one in decoder.reports(first)] == 4 * [b"side".hex()]
    assert len(list(decoder.messages(data[:-1]))) == 1  # a block that is not whole ends the file


def test_the_example_is_the_frame_it_says(decoder: ModuleType) -> None:
    page = (DOCS / "wire.md").read_text()
    found = re.search(r"^21 0003[0-9a-f ]+$", page, re.MULTILINE)
    assert found
    example = bytes.fromhex(found[0])
    assert example == wire.encode(Frame(7, (Report(ReportKey(3, 1, 9), Payload(b"\xab\xc0", 11), b"gain"),)))
    assert decoder.indices(b"\xa7\x00", 3, 3) == [5, 1, 6]
    compact = re.search(r"`(a879 [0-9a-f ]+)`", page)
    assert compact and bytes.fromhex(compact[1]) == pack(example)
    assert decoder.Whole().form(pack(example), 3, 1, 7) == example


def test_the_table_of_costs_is_what_its_script_prints() -> None:
    spec = importlib.util.spec_from_file_location("wire_costs", DOCS / "wire_costs.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.table() in (DOCS / "fronthaul.md").read_text(encoding="utf-8"), "run docs/wire_costs.py"


def test_the_page_has_every_control_message_and_the_lengths_of_the_code() -> None:
    page = (DOCS / "wire.md").read_text()
    for kind, control in wire._KINDS.items():
        (row,) = re.findall(rf"^\| `{kind}` \|.*$", page, re.MULTILINE)
        places = [row.index(f"`{name}`") for name in wire._FIELDS_OF[control]]
        assert places == sorted(places)
    assert (wire.VERSION, wire.HEADER_BYTES, wire.BUNDLE_HEADER_BYTES, wire.MIXED_KEY_BYTES) == (2, 15, 11, 9)
