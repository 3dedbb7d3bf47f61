"""The moving average of weights: what it is, that it is left alone, and that it resumes."""

import pytest
import torch
from torch import nn

from sim.learn.average import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def walk(made: nn.Module, average: WeightAverage, steps: int, seed: int) -> list[torch.Tensor]:
    """Random steps of all weights; return those of the first layer after each step."""
    draw = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        with torch.no_grad():
            for value in made.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn(value.shape, generator=draw))
        average.update()
        seen.append(made[0].weight.detach().clone())  # type: ignore[index]
    return seen


def test_it_moves_by_the_share_of_steps_so_far() -> None:
    made = network()
    first = made[0].weight.detach().clone()  # type: ignore[index]
    average = WeightAverage(made, 0.25)
    mean = first.double()
    for number, weight in enumerate(walk(made, average, 40, 2), 1):
        mean += (weight - mean) / (1 + 0.25 * number)
    with average.applied():
        torch.testing.assert_close(made[0].weight.detach().double(), mean, rtol=1e-5, atol=1e-5)  # type: ignore[index]


def test_buffers_are_averaged_and_the_networks_own_weights_come_back() -> None:
    made = network()
    average = WeightAverage(made, 0.5)
    walk(made, average, 10, 3)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with average.applied():
        assert not torch.equal(made.state_dict()["1.running_mean"], before["1.running_mean"])
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]), name
    average.apply()
    assert not torch.equal(made.state_dict()["0.weight"], before["0.weight"])


def test_a_share_of_zero_is_the_weights_themselves() -> None:
    made = network()
    average = WeightAverage(made, 0.0)
    last = walk(made, average, 5, 4)[-1]
    average.apply()
    assert torch.equal(made[0].weight, last)  # type: ignore[index]


def test_it_resumes() -> None:
    whole, cut = network(), network()
    one, first = WeightAverage(whole, 0.3), WeightAverage(cut, 0.3)
    walk(whole, one, 6, 5)
    walk(cut, first, 6, 5)
    second = WeightAverage(cut, 0.3)
    second.load_state_dict(first.state_dict())
    walk(whole, one, 6, 6)
    walk(cut, second, 6, 6)
    one.apply()
    second.apply()
    torch.testing.assert_close(cut.state_dict(), whole.state_dict())


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_an_error_within_leaves_the_weights(share: float) -> None:
    made = network()
    average = WeightAverage(made, share)
    last = walk(made, average, 3, 7)[-1]
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert torch.equal(made[0].weight, last)  # type: ignore[index]
