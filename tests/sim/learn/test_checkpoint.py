"""One file for what a stopped training goes on from."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sim.errors import UserError
from sim.learn.checkpoint import Checkpoint, read_checkpoint

IDENTITY = {"job": "a", "schedule": {"epochs": 2.0, "subset": (3, 4)}}


def linear(value: float) -> nn.Linear:
    made = nn.Linear(3, 2)
    nn.init.constant_(made.weight, value)
    return made


def test_parts_and_step_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "a.pt"
    Checkpoint(path, IDENTITY, {"model": linear(2.0)}).save(7)
    assert [file.name for file in path.parent.iterdir()] == ["a.pt"]
    model = linear(0.0)
    again = Checkpoint(path, IDENTITY, {"model": model})
    assert again.resume() == 7
    assert torch.equal(model.weight, torch.full((2, 3), 2.0))
    saved = read_checkpoint(path, mapped=True)
    assert (saved.identity, saved.step, saved.state.keys()) == (IDENTITY, 7, {"model"})
    again.remove()
    assert again.resume() == 0


def test_another_trainings_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    Checkpoint(path, IDENTITY, {"model": linear(2.0)}).save(7)
    for identity, name in (({**IDENTITY, "job": "b"}, "model"), (IDENTITY, "network")):
        model = linear(0.0)
        with pytest.raises(UserError, match="belongs to another training; remove it") as caught:
            Checkpoint(path, identity, {name: model}).resume()
        assert str(path) in str(caught.value)
        assert not model.weight.any()


@pytest.mark.parametrize("length", [0, 10, -100])
def test_a_damaged_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.pt"
    Checkpoint(path, IDENTITY, {"model": linear(2.0)}).save(7)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"a\.pt is damaged"):
        Checkpoint(path, IDENTITY, {"model": linear(0.0)}).resume()


def test_without_a_path_nothing_is_kept() -> None:
    checkpoint = Checkpoint(None, IDENTITY, {"model": linear(0.0)})
    checkpoint.save(1)
    assert checkpoint.resume() == 0
    checkpoint.remove()
