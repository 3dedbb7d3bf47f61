"""Users that no base station hears: no fix is made of noise, whatever the scheme."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_scores
import tiny_vinloc
import tiny_world
import torch

from fronthaul.payload.ecc import is_heard
from sim.emulate.emulator import run_plan
from sim.inspect.replay import replay
from sim.plan.plan import compose
from sim.plan.weights import load_weights
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers, read_table
from sim.world.channel import pad_paths, receiver_noise, silence_w
from sim.world.radio import Radio
from sim.world.scenario import load_scenario

HEARD = np.ones((tiny_world.USERS, 3), bool)
HEARD[1, 0] = HEARD[3, [1, 2]] = HEARD[4] = False
"""Who is heard where: snapshot 1 not at BS 0, snapshot 3 only there, snapshot 4 nowhere."""

SCHEMES = [
    *((scheme, ()) for scheme in ("ecc", "rss", "rss-rounds")),
    *(("diffloc", (("where", where),)) for where in ("edge", "central", "one-shot")),
]


@pytest.mark.parametrize(("scheme", "options"), SCHEMES)
def test_who_is_heard_by_nobody_is_nowhere(tmp_path: Path, scheme: str, options: tuple[tuple[str, str], ...]) -> None:
    tiny = tiny_scores if scheme == "diffloc" else tiny_world
    settings = replace(tiny.write(tmp_path), scheme=scheme, bits=4, snapshots=8, capture=False, options=options)
    world = tiny.scenario()
    paths = tiny_vinloc.silenced(tiny_world.paths(world), HEARD)
    assert settings.weights is not None
    plan = compose(settings, world, paths, load_weights(settings.weights), weights_path=settings.weights)
    result = run_plan(plan)
    summary, folder = result.summary, RunFolder(result.folder)
    assert (summary["fixes"], summary["undetermined"]) == (7, 1)
    assert summary["excluded"] == {"0": 1, "1": 1, "2": 1}
    assert summary["bytes"]["side"] == 3 * 8 * plan.format.side_bytes
    assert 4 not in read_table(folder.fixes)["snapshot"].to_pylist()
    for bs, ledger in read_ledgers(folder).items():
        if bs is None:
            continue
        rows = [row for row in ledger.to_pylist() if row["report_fate"] is not None and row["round"] == 0]
        for row in rows:
            said = is_heard(row["side"]) if scheme == "ecc" else row["side"] == b"\1"
            assert said == HEARD[row["snapshot"], bs]
            assert row["payload_bits"] == plan.format.max_bits
            assert (row["report_fate"] == "unused") == (row["snapshot"] == 4)
    events = read_table(folder.path / "links" / "events.parquet").to_pylist()
    assert [event["detail"] for event in events if event["kind"] == "fusion"] == [
        "snapshot 4 came to no finite position: every base station receives nothing from the user"
    ]
    assert replay(result.folder).ok


def test_noise_alone_is_hardly_ever_heard_and_a_user_is() -> None:
    world = load_scenario("paris-6")
    draw = torch.Generator().manual_seed(1)
    white = torch.randn(4000, *world.csi_shape, 2, generator=draw)
    energy_w = receiver_noise(world, torch.zeros(()), white).abs().square().sum((1, 2, 3))
    assert not (energy_w > silence_w(world)).any()
    slots, antennas, tones = world.csi_shape
    count = slots * antennas * tones
    assert math.isclose(silence_w(world), world.tone_noise_w * (count + 5 * math.sqrt(count)))
    tiny = tiny_world.scenario()
    padded = pad_paths(tiny_world.paths(tiny), tiny.numerology.carrier_hz)
    for bs in range(3):
        radio = Radio(tiny, padded.site(bs), bs, 0)
        assert all(radio.observe(n).abs().square().sum() > silence_w(tiny) for n in range(len(radio)))


def test_correlated_noise_of_taps_is_hardly_ever_heard() -> None:
    whole = load_scenario("paris-7")
    numerology = replace(whole.numerology, tones=64, ifft=128, taps=24)
    world = replace(whole, numerology=numerology, link_budget=replace(whole.link_budget, noise="thermal"))
    white = torch.randn(500, *world.csi_shape, 2, generator=torch.Generator().manual_seed(1))
    energy_w = receiver_noise(world, torch.zeros(()), white).abs().square().sum((1, 2, 3)).double()
    threshold = silence_w(world)
    assert not (energy_w > threshold).any()
    assert math.isclose((threshold - energy_w.mean()) / energy_w.std(), 5.0, rel_tol=0.15)
    assert silence_w(whole) == 0.0  # without noise, any energy is a user's
