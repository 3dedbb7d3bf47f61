"""Scenarios whose carrier phases are drawn: the run's radios receive exactly those, whoever takes part."""

import dataclasses

import numpy as np
import pytest
import tiny_world
import torch

from sim.emulate.emulator import emulate
from sim.plan.plan import Plan, compose, padded_paths
from sim.plan.settings import EmulateSettings
from sim.plan.weights import load_weights
from sim.toml.write import toml_text
from sim.world.channel import pad_paths, redrawn_phases
from sim.world.scenario import Scenario, scenario_table


def drawn() -> Scenario:
    world = tiny_world.scenario()
    quiet = dataclasses.replace(world.link_budget, noise="none")
    return dataclasses.replace(world, phases="drawn", link_budget=quiet)


def plan(settings: EmulateSettings, world: Scenario) -> Plan:
    assert settings.weights is not None
    return compose(settings, world, tiny_world.paths(world), load_weights(settings.weights))


def test_phases_are_drawn_by_the_scenarios_seed_site_by_site(settings: EmulateSettings) -> None:
    world = drawn()
    paths = tiny_world.paths(world)
    traced = pad_paths(paths, world.numerology.carrier_hz)
    made = padded_paths(world, paths)
    expected = redrawn_phases(traced, range(3), world.tracing.seed)
    assert torch.equal(made.coefficient, expected.coefficient)
    assert torch.allclose(made.coefficient.abs(), traced.coefficient.abs())
    assert not torch.allclose(made.coefficient, traced.coefficient)
    assert torch.equal(padded_paths(tiny_world.scenario(), paths).coefficient, traced.coefficient)


@pytest.mark.parametrize("changes", [{"bs": 2}, {"bs": 2, "random_subset": True}, {"snapshots": 5}, {"seed": 9}])
def test_a_run_receives_the_same_phases_whoever_takes_part(
    settings: EmulateSettings, changes: dict[str, int | bool]
) -> None:
    whole = plan(settings, drawn())
    part = plan(dataclasses.replace(settings, **changes), drawn())  # type: ignore[arg-type]
    plain = plan(settings, dataclasses.replace(drawn(), phases="traced"))
    for here, there, traced in zip(part.sites, whole.sites, plain.sites, strict=False):
        ours, theirs = ([one.radio._paths.coefficient[n] for n in range(5)] for one in (here, there))  # type: ignore[attr-defined]
        assert all(torch.allclose(a, b, rtol=1e-6, atol=0.0) for a, b in zip(ours, theirs, strict=True))
        assert not torch.allclose(there.radio.observe(3), traced.radio.observe(3))


def test_a_run_with_drawn_phases_is_one_like_any_other(settings: EmulateSettings) -> None:
    settings.output.parent.joinpath("tiny.toml").write_text(toml_text(scenario_table(drawn())))
    first, second = (emulate(settings).summary["error_3d_m"] for _ in range(2))
    assert first == second and np.isfinite(first["mean"])
