"""The learned fusion: least squares where a network trusts everything, its own estimate where it trusts nothing."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cloud.fusion.learned_paths import COLUMNS, LearnedFusion, PathNetwork, PathShape, slot_table
from cloud.fusion.scheme import NOTHING_HEARD, CloudSetup
from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.measurements import SPEED_OF_LIGHT, Path

PLACE = np.array([[90.0, 0.0, 25.0], [-90.0, 20.0, 28.0], [0.0, 90.0, 24.0], [10.0, -90.0, 26.0]])
CONFIG = {
    "low": [-80.0, -80.0, 1.5], "high": [80.0, 80.0, 20.0],
    "errors": {"range_m": [1.0, 0.3], "azimuth": [1.0, 1e-3], "zenith": [1.0, 8e-3]},
}  # fmt: skip
SHAPE = PathShape(slots=3, trusted=2, iterations=12)
USER = np.array([12.0, -31.0, 12.0])


def line_of_sight(user: np.ndarray, place: np.ndarray) -> Path:
    line = user - place
    distance = float(np.linalg.norm(line))
    return Path(distance / SPEED_OF_LIGHT, math.atan2(line[1], line[0]), math.acos(line[2] / distance), -90.0)


def network(prior: float, trust: float) -> PathNetwork:
    """One whose precisions and weights are the same everywhere, as exponents, whatever it reads."""
    torch.manual_seed(0)
    made = PathNetwork(SHAPE, torch.from_numpy(PLACE), CONFIG).eval()
    with torch.no_grad():
        for layer in (made.out, made.verdict):
            layer.weight.zero_()
            layer.bias.zero_()
        made.out.bias[:3] = 0.25
        made.out.bias[3:6] = 1.0 + prior
        made.verdict.bias.view(SHAPE.trusted, 2, 3)[:, 0] = trust
    return made


def tables(count: int = 1) -> Tensor:
    """Exact lines of sight, first of three slots."""
    rows = [slot_table([line_of_sight(USER, place)], SHAPE.slots) for place in PLACE]
    return torch.stack(rows).float()[None].expand(count, -1, -1, -1).clone()


def test_with_equal_weights_it_is_least_squares() -> None:
    assert network(-8.0, 0.0)(tables())[0, -1].detach().numpy() == pytest.approx(USER, abs=1e-2)


def test_a_clock_behind_all_ranges_is_what_least_squares_make_of_it() -> None:
    """Against a solution by NumPy, with ranges 5 m too long and the same scales."""
    late = tables()
    late[..., 0, 0] += 5.0
    x = USER.copy()
    scale = np.array([0.3, 1e-3, 8e-3])
    for _ in range(20):
        rows, right = [], []
        for place in PLACE:

            def model(at: np.ndarray, place: np.ndarray = place) -> np.ndarray:
                path = line_of_sight(at, place)
                return np.array([path.delay_s * SPEED_OF_LIGHT, path.azimuth, path.zenith]) / scale

            truth = model(USER) + np.array([5.0, 0.0, 0.0]) / scale
            step = 1e-4 * np.eye(3)
            rows.append(np.stack([(model(x + one) - model(x - one)) / 2e-4 for one in step], 1))
            right.append(truth - model(x))
        x = x + np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
    assert np.linalg.norm(x - USER) > 0.01
    assert network(-8.0, 0.0)(late)[0, -1].detach().numpy() == pytest.approx(x, abs=2e-2)


def test_what_it_does_not_trust_or_is_not_there_does_not_move_its_own_estimate() -> None:
    own = np.array([20.0, 20.0, 10.75 + 0.25 * 9.25])  # a quarter of the way to the corner
    assert network(6.0, -12.0)(tables())[0, -1].detach().numpy() == pytest.approx(own, abs=0.1)
    nothing = torch.full((1, len(PLACE), SHAPE.slots, COLUMNS), math.nan)
    assert network(-8.0, 6.0)(nothing)[0, -1].detach().numpy() == pytest.approx(own, abs=1e-3)


def test_phases_tell_by_their_differences_alone() -> None:
    """Beside a first slot that has no phase, but the power of the strongest sample."""
    torch.manual_seed(1)
    made = PathNetwork(PathShape(slots=4, trusted=1), torch.from_numpy(PLACE), CONFIG)
    given = torch.cat([tables()[:, :, :1]] * 4, 2)
    given[:, :, 1:, 1:3] = math.nan
    given[:, :, 2:, 3] -= 5.0
    given[:, :, 1:, 4] = torch.tensor([0.3, 1.2, 4.0])
    turned, other = given.clone(), given.clone()
    turned[..., 4] += 1.0
    other[:, :, 3, 4] += 1.0
    first, alike, apart = (made(one).detach() for one in (given, turned, other))
    torch.testing.assert_close(first, alike, atol=1e-3, rtol=0)
    assert (first - apart).abs().max() > 1e-2


def test_gradients_are_finite_with_reports_and_fields_missing() -> None:
    torch.manual_seed(1)
    made = PathNetwork(SHAPE, torch.from_numpy(PLACE), CONFIG)
    given = tables(3)
    given[0, 2] = math.nan
    given[1, :, :, 1:3] = math.nan
    given[2] = math.nan
    made(given).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.parameters())


def test_reports_make_fixes_alone_or_together_and_silence_is_excluded() -> None:
    made = network(-8.0, 0.0)
    config = CONFIG | {
        "networks": {"path": {"shape": vars(SHAPE), "stations": len(PLACE), "reports": {"k": 0}}},
    }
    tensors = {f"path.{name}": value for name, value in made.state_dict().items()}
    setup = CloudSetup({k: tuple(place.tolist()) for k, place in enumerate(PLACE)}, PayloadChoice(4), config, tensors)
    fusion = LearnedFusion(setup, "path", lambda payload: [line_of_sight(USER, PLACE[payload.data[0]])], {"k": 0})
    group = [Report(ReportKey(k, 0, 0), Payload(bytes([k]), 8), b"") for k in range(len(PLACE))]
    group[1] = Report(ReportKey(1, 0, 0), Payload(b"", 0), b"")
    silent = [Report(ReportKey(k, 0, 0), Payload(b"", 0), b"") for k in range(len(PLACE))]
    whole, few, none = fusion.fuse([group, group[2:], silent])
    assert whole.position == pytest.approx(USER, abs=1e-2) and few.position == pytest.approx(USER, abs=1e-2)
    assert whole.excluded == {1: NOTHING_HEARD} and not few.excluded
    assert all(map(math.isnan, none.position)) and len(none.excluded) == len(PLACE)
    assert fusion.fuse([group[::-1]])[0].position == whole.position
    with pytest.raises(ValueError, match="trained for k=0, not 3"):
        LearnedFusion(setup, "path", lambda payload: [], {"k": 3})
