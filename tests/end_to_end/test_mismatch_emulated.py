"""Runs in worlds that differ from the scenario: every scheme is in the same one, and the summary says which."""

from pathlib import Path

import numpy as np
import pytest

from sim.emulate.emulator import emulate
from sim.inspect.replay import replay
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings


def settings(folder: Path, scheme: str, mismatch: str) -> EmulateSettings:
    path = folder / "wrong.toml"
    path.write_text(f'extends = "paris-6"\n[mismatch]\n{mismatch}\n')
    return EmulateSettings(
        scenario=str(path), scheme=scheme, snapshots=12, driver="process", controls=False, output=folder / "runs"
    )


def test_every_scheme_is_in_the_same_world_and_says_so(tmp_path: Path) -> None:
    said = "antenna_deg = 3.0\nsite_m = 0.1\nscattering_db = -25.0"
    words = "sites 0.1 m off on each axis; unmapped scattering at -25 dB; antennas 3° and 0 dB off"
    received = []
    for scheme in ("ecc", "twin", "rss"):
        wanted = settings(tmp_path, scheme, said)
        result = emulate(wanted)
        assert [note for note in result.summary["notes"] if words in note]
        assert replay(result.folder).ok
        received.append(load_plan(wanted).sites[1].radio.observe(5).numpy())
    assert (received[0] == received[1]).all() and (received[0] == received[2]).all()
    exact = load_plan(EmulateSettings(snapshots=12)).sites[1].radio.observe(5).numpy()
    assert np.linalg.norm(received[0] - exact) / np.linalg.norm(exact) > 0.01


@pytest.mark.parametrize(("mismatch", "option"), [("site_m = 0.2", ("site_mm", 200)), ("map_image_m = 0.5", None)])
def test_errors_make_fixes_worse(tmp_path: Path, mismatch: str, option: tuple[str, int] | None) -> None:
    from dataclasses import replace

    exact = emulate(EmulateSettings(scheme="twin", snapshots=12, driver="process", controls=False, output=tmp_path))
    wanted = settings(tmp_path, "twin", mismatch)
    wrong = emulate(wanted)
    assert wrong.summary["error_3d_m"]["mean"] > 1.3 * exact.summary["error_3d_m"]["mean"]
    assert not any("world" in note for note in exact.summary["notes"])
    if option is not None:
        aware = emulate(replace(wanted, options=(option,)))
        assert aware.summary["coverage_90"] > wrong.summary["coverage_90"]
