"""Snapshots at sites that are synthesised together are, to the bit, those that each radio observes alone."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import straight_world
import torch

from fronthaul.draws import Stream, generator
from sim.world import radio as module
from sim.world.channel import PaddedPaths
from sim.world.pilot_store import PilotStore
from sim.world.radio import CACHED, Radio
from sim.world.scenario import Array, ClockErrors, LinkBudget

WORLD = straight_world.scenario()
CLOCKS = ClockErrors(ue_bias_ns=50, bs_sigma_ns=3, per_slot_phase=True, bs_limit_sigmas=2.0)
SNR = LinkBudget(noise="snr", snr_db=7.0)
ONE_SLOT = dataclasses.replace(WORLD.numerology, slots=1)
WORLDS = {
    "thermal": WORLD,
    "clocks": dataclasses.replace(WORLD, clock=CLOCKS),
    "snr": dataclasses.replace(WORLD, link_budget=SNR),
    "no noise": dataclasses.replace(WORLD, link_budget=LinkBudget(noise="none")),
    "taps": dataclasses.replace(WORLD, numerology=dataclasses.replace(ONE_SLOT, ifft=512, taps=101)),
    "one antenna": dataclasses.replace(WORLD, clock=CLOCKS, numerology=ONE_SLOT, array=Array(1, 1)),
    "two polarisations": dataclasses.replace(WORLD, array=Array(2, 2, polarizations=2), user_array=Array(1, 2)),
    "velocities": WORLD,
    "measured": dataclasses.replace(WORLD, clock=CLOCKS, numerology=ONE_SLOT, array=Array(1, 1)),
}
USERS, PATHS = 11, 13


def radio(name: str, site: int, store: PilotStore | None = None, seed: int = 7) -> Radio:
    """Random paths: rounding differs in each."""
    world, draw = WORLDS[name], torch.Generator().manual_seed(site)

    def direction() -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(USERS, 1, PATHS, 3, generator=draw), dim=-1)

    def gain(*shape: int) -> torch.Tensor:
        return torch.randn(USERS, 1, *shape, dtype=torch.complex64, generator=draw) * 1e-5

    paths = PaddedPaths(
        gain(PATHS),
        300 * torch.rand(USERS, 1, PATHS, generator=draw),
        direction(),
        direction(),
        matrix=gain(PATHS, 2, 2) if world.polarized else None,
        velocity=torch.randn(USERS, 3, generator=draw) if name == "velocities" else None,
        csi=gain(*world.csi_shape) if name == "measured" else None,
    )
    return Radio(world, paths, site, seed, store)


@pytest.mark.parametrize("name", WORLDS)
def test_together_and_alone_are_the_same_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    radios = [radio(name, site) for site in range(3)]
    for size in (CACHED, 1000):  # in one piece, and in several
        monkeypatch.setattr("sim.world.radio.CACHED", size)
        asked = [(radios[0], [*range(5, 25)]), (radios[1], []), (radios[2], [9, 3, 14])]
        together = Radio.observe_together(asked)
        assert [len(received) for received in together] == [20, 0, 3]
        for (one, snapshots), received in zip(asked, together, strict=True):
            for snapshot, pilots in zip(snapshots, received, strict=True):
                assert torch.equal(pilots, one.observe(snapshot))
    assert math.isfinite(together[0].abs().sum()) and together[0].abs().min() > 0


def test_a_streams_draws_are_those_of_a_generator_for_each_key() -> None:
    stream = Stream(3, "noise")
    for key in ((1, 2), (12,), (1, 2), ()):
        drawn, expected = stream.at(*key), generator(3, "noise", *key)
        for one in (drawn, expected):
            one.random(3, dtype="float32")  # leaves half a word behind
        assert drawn.standard_normal(5).tolist() == expected.standard_normal(5).tolist()
    with pytest.raises(ValueError, match=re.escape("0x1f")):
        Stream(3, "no\x1fise")


def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of snapshots in each piece that is synthesised from now on."""
    sizes: list[int] = []

    def counted(rows: Sequence[Any], received: torch.Tensor) -> None:
        sizes.append(len(rows))
        usual(rows, received)

    usual = module._receive_piece
    monkeypatch.setattr(module, "_receive_piece", counted)
    return sizes


def test_a_store_gives_later_runs_what_earlier_ones_received(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Radio.observe_together([(radio("clocks", site), range(6)) for site in range(2)])
    store, sizes = PilotStore(), made(monkeypatch)
    Radio.observe_together([(radio("clocks", site, store), [0, 4]) for site in range(2)])
    for fresh in ([8], []):  # the first run saw two of six snapshots, the second all
        sizes.clear()
        received = Radio.observe_together([(radio("clocks", site, store), range(6)) for site in range(2)])
        assert sizes == fresh
        assert all(map(torch.equal, received, expected))
        received[0].zero_()  # what a run does to its pilots reaches no other
    for other in (radio("clocks", 0, store, seed=8), radio("thermal", 0, store), radio("clocks", 2, store)):
        sizes.clear()
        other.observe(0)
        assert sizes == [1]


def test_a_full_store_gives_up_the_oldest_radio(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 8 * math.prod(WORLD.csi_shape)
    store, sizes = PilotStore(limit_bytes=3 * one), made(monkeypatch)
    for site, snapshots, fresh in ((0, 2, [2]), (1, 2, [2]), (1, 2, []), (0, 1, [1]), (2, 5, [5]), (2, 5, [2])):
        sizes.clear()
        (received,) = Radio.observe_together([(radio("thermal", site, store), range(snapshots))])
        assert sizes == fresh
        assert torch.equal(received[0], radio("thermal", site).observe(0))
