"""`inspect` of a frame of `twin`: the atoms of its payload, each number beside the bits it was read from."""

import re
from pathlib import Path

import numpy as np
import pytest

import cli
from edge.twin import fields
from fronthaul.codec.bitstream import pack_mixed
from fronthaul.message.messages import Payload
from fronthaul.payload.twin import report_widths
from sim.emulate.emulator import emulate
from sim.inspect.frames import frame_view
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings

BITS, STATION = 96, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = EmulateSettings(
        scheme="twin", snapshots=4, driver="process", controls=False, options=(("bits_per_report", BITS),),
        output=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip
    return emulate(settings).folder


def test_the_fields_are_the_payload_s_bits_in_order(folder: Path) -> None:
    [report] = frame_view(folder, STATION, 1).reports
    assert report.payload.bits == BITS
    sent = [field for field in report.fields if field.bits]
    assert sum(field.bits for field in sent) == BITS
    again = pack_mixed(np.array([field.index for field in sent], np.uint32), np.array([field.bits for field in sent]))
    assert again == report.payload


def test_values_are_cells_of_their_ranges(folder: Path) -> None:
    """Computed anew: index and width give a value; delays are of 1/720 kHz, angles of a full turn."""
    [report] = frame_view(folder, STATION, 1).reports
    for field in report.fields:
        if not field.bits:
            continue
        cell = (field.index + 0.5) / 2**field.bits
        if field.name == "delay":
            period_ns = 1e9 / 720e3
            assert field.value == pytest.approx(cell * period_ns, abs=1e-3)
            assert field.step == pytest.approx(period_ns / 2**field.bits)
            assert float(field.words.removesuffix(" m")) == pytest.approx(field.value * 0.299792458, abs=2e-3)
        elif "angle" in field.name:
            assert field.value == pytest.approx(-np.pi + 2 * np.pi * cell, abs=1e-5)
            # Half a wavelength apart: π sin(angle from broadside) between neighbours.
            assert np.radians(float(field.words[:-1])) == pytest.approx(np.arcsin(field.value / np.pi), abs=1e-4)
        elif field.name == "phase":
            assert field.value == pytest.approx(-180 + 360 * cell, abs=1e-3)


def test_the_first_delay_is_the_user_s_distance(folder: Path) -> None:
    """Station 2 sees the user of snapshot 1 on a straight line, whose path is the strongest."""
    plan = load_plan(EmulateSettings(scheme="twin", snapshots=4))
    distance = np.linalg.norm(plan.truth[1] - plan.scenario.sites[STATION].position)
    [report] = frame_view(folder, STATION, 1).reports
    delay = next(field for field in report.fields if field.name == "delay")
    assert float(delay.words.removesuffix(" m")) == pytest.approx(distance, abs=1.0)


def test_an_empty_report_has_no_fields() -> None:
    setup = load_plan(EmulateSettings(scheme="twin", snapshots=1)).sites[0].station.setup
    assert fields(setup, Payload(b"", 0)) == []
    widths = report_widths(setup.config, 128)
    assert len(fields(setup, Payload(bytes(16), 128))) == 5 * len(widths) + 1


def test_inspect_prints_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(folder), "--link", str(STATION), "--frame", "1"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"atom 1 +power +[01]+ +-\d", text)
    assert re.search(r"atom 1 +phase +not sent", text)
    assert re.search(r"atom 1 +delay +[01]{10,} .* ns .* m", text)
    assert re.search(r"the rest +power +[01]{2} ", text)


def test_other_schemes_show_what_they_showed(tmp_path: Path) -> None:
    run = emulate(EmulateSettings(snapshots=2, driver="process", controls=False, output=tmp_path)).folder
    [report] = frame_view(run, 0, 0).reports
    assert report.fields == ()
    assert len(report.index)
