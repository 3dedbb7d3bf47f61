"""`reproduce vinloc-fig7`, on shipped paths."""

import json
from pathlib import Path

from sim.reproduce import tables
from sim.reproduce.vinloc import angles


def test_each_of_two_paths_stands_in_the_beam_of_its_angle_at_the_tap_of_its_delay(tmp_path: Path) -> None:
    """Beams and taps that follow from the traced geometry alone, against the synthesised channel."""
    text = tables.reproduce(angles.NAME, tmp_path).read_text()
    (record,) = json.loads((tmp_path / f"{angles.NAME}.json").read_text())
    assert record["result"]["links"] >= 5 and record["result"]["in_their_beam"] == 1.0
    assert "| two paths | " in text and (tmp_path / f"{angles.NAME}.png").is_file()
