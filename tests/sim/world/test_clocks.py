"""Truncated synchronisation errors, and carrier phases that are drawn anew."""

import dataclasses
import math

import numpy as np
import pytest
import straight_world
import torch
from scipy import stats

from sim.world.channel import Motion, PaddedPaths, Synthesizer, pad_paths, redrawn_phases
from sim.world.clocks import site_errors_ns, truncated
from sim.world.radio import Radio, drawn_motion
from sim.world.scenario import ClockErrors, Scenario

WORLD = straight_world.scenario()
CARRIER = WORLD.numerology.carrier_hz
WALLS: list[straight_world.Wall] = [((1.0, 0.0, 0.0), 170.0), ((0.48, 0.6, 0.64), 150.0)]


# Clocks


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0, 4.0])
def test_truncated_draws_have_the_truncated_distribution(limit: float) -> None:
    drawn = truncated(torch.randn(20_000, generator=torch.Generator().manual_seed(0)), limit)
    assert drawn.dtype == torch.float32 and float(drawn.abs().max()) <= limit
    expected = stats.truncnorm(-limit, limit)
    assert stats.kstest(drawn.numpy(), expected.cdf).pvalue > 0.01
    assert float(drawn.std()) == pytest.approx(expected.std(), rel=0.02)


def test_truncation_keeps_order_and_sign_and_tails_stay_finite() -> None:
    normal = torch.tensor([-40.0, -9.0, -3.0, -1e-9, 0.0, 0.3, 2.0, 9.0, 40.0], dtype=torch.float64)
    made = truncated(normal, 2.0)
    assert made.isfinite().all() and (made.diff() >= 0).all() and float(made.abs().max()) <= 2.0
    torch.testing.assert_close(made, -truncated(-normal, 2.0))
    torch.testing.assert_close(truncated(normal[2:7], 12.0), normal[2:7])  # a limit far away changes nothing


def test_no_limit_leaves_the_draws_of_before() -> None:
    normal = torch.randn(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(site_errors_ns(ClockErrors(bs_sigma_ns=7.0), normal), normal * 7.0)


def test_motion_and_radio_draw_within_the_limit() -> None:
    clock = ClockErrors(bs_sigma_ns=50.0, bs_limit_sigmas=2.0)
    limited, free = (dataclasses.replace(WORLD, clock=c) for c in (clock, ClockErrors(bs_sigma_ns=50.0)))
    drawn = [Motion.draw(world, 4000, torch.Generator().manual_seed(0)).clock_s * 1e9 for world in (limited, free)]
    assert float(drawn[0].abs().max()) <= 100.001 < float(drawn[1].abs().max())
    assert float(drawn[0].std()) == pytest.approx(50 * stats.truncnorm(-2, 2).std(), rel=0.03)
    assert (drawn[0].abs() <= drawn[1].abs() + 1e-3).all()  # one draw each, mapped

    padded = pad_paths(straight_world.trace(WORLD, straight_world.positions(WORLD, 1)), CARRIER)
    errors = {world: [radio_error_ns(world, padded, n) for n in range(400)] for world in (limited, free)}
    assert max(map(abs, errors[limited])) <= 100.001 < max(map(abs, errors[free]))
    assert np.std(errors[limited]) == pytest.approx(50 * stats.truncnorm(-2, 2).std(), rel=0.1)
    assert Motion.draw(free, 3, torch.Generator().manual_seed(0)).clock_s.dtype == torch.float32


def radio_error_ns(world: Scenario, padded: PaddedPaths, snapshot: int) -> float:
    return float(drawn_motion([(Radio(world, padded.site(0), 0, 5), snapshot)], padded).clock_s) * 1e9


# Phases


def test_redrawn_phases_are_uniform_and_keep_everything_else() -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 400), WALLS)
    padded = pad_paths(straight_world.polarized(paths), CARRIER, matrices=True)
    made = redrawn_phases(padded, range(3), 1)
    torch.testing.assert_close(made.coefficient.abs(), padded.coefficient.abs())
    turn = (made.coefficient * padded.coefficient.conj()).angle()
    assert stats.kstest((turn.flatten().numpy() / (2 * math.pi)) % 1, "uniform").pvalue > 0.01
    assert turn.unique().numel() > 0.99 * turn.numel()  # one for each path
    assert made.matrix is not None and padded.matrix is not None
    torch.testing.assert_close(made.matrix, padded.matrix * torch.polar(torch.ones(()), turn)[..., None, None])
    for field in ("distance", "site_direction", "user_direction"):
        assert torch.equal(getattr(made, field), getattr(padded, field))


def test_redrawn_phases_are_keyed_by_seed_site_and_path() -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 30), WALLS)
    padded = pad_paths(paths, CARRIER)
    made = redrawn_phases(padded, range(3), 1)
    assert torch.equal(redrawn_phases(padded, range(3), 1).coefficient, made.coefficient)
    parts = {
        "a site draws by itself": (redrawn_phases(padded.site(2), [2], 1), made.coefficient[:, 2:]),
        "whoever follows": (redrawn_phases(padded[:7], range(3), 1), made.coefficient[:7]),
        "however wide the padding": (
            redrawn_phases(pad_paths(paths, CARRIER, limit=2), range(3), 1),
            made.coefficient[..., :2],
        ),
    }
    for why, (drawn, expected) in parts.items():
        assert torch.allclose(drawn.coefficient, expected, rtol=1e-5, atol=0), why
    for other in (redrawn_phases(padded, range(3), 2), redrawn_phases(padded, [3, 4, 5], 1)):
        assert not torch.isclose(other.coefficient, made.coefficient).any()


def test_redrawn_phases_change_how_paths_add_and_nothing_of_a_single_one() -> None:
    still = Motion(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 3, WORLD.numerology.slots))
    synthesizer = Synthesizer(WORLD)
    for walls, same in (([], True), (WALLS, False)):
        padded = pad_paths(straight_world.trace(WORLD, straight_world.positions(WORLD, 5), walls), CARRIER)
        before = synthesizer.response(padded, still).abs()
        after = synthesizer.response(redrawn_phases(padded, range(3), 1), still).abs()
        assert torch.allclose(before, after, rtol=1e-4) == same
