"""The figures that tell a lack of positions from a lack of training."""

from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch

from sim.learn.ecc.model import EccShape
from sim.learn.ecc.train import EccTraining, train_ecc
from sim.learn.trainer import Schedule
from sim.plan.weights import load_weights
from sim.reproduce.ecc.gap import gap

WORLD = straight_world.scenario()
PATHS = straight_world.trace(WORLD, straight_world.positions(WORLD, 120), [((1.0, 0.0, 0.0), 170.0)])
SHAPE = EccShape(coefficients=8, encoder_width=16, encoder_depth=1, fusion_width=32, hidden=32)


@pytest.mark.parametrize(("bits", "jitter_m"), [(4, 0.5), (4, 0.0), (None, 0.5)])
def test_three_finite_errors_the_last_as_trained(tmp_path: Path, bits: int | None, jitter_m: float) -> None:
    schedule = Schedule(epochs=4, batch=8, warmup_steps=5)
    training = EccTraining(bits=bits, jitter_m=jitter_m, stage_one_epochs=0, shape=SHAPE, schedule=schedule)
    file = tmp_path / "ecc.safetensors"
    (trained,) = train_ecc(WORLD, PATHS, {file: training}, lambda _: None, device=torch.device("cpu")).values()
    assert load_weights(file).config["record"]["jitter_m"] == jitter_m
    errors = gap(WORLD, PATHS, file)
    assert list(errors) == ["training", "training, moved", "validation"]
    assert np.isfinite(list(errors.values())).all() and min(errors.values()) > 0
    # Validation draws the same noise as the training's own; the weights went through half precision, the steps moved.
    assert errors["validation"] == pytest.approx(trained, rel=0.05)
    assert errors["training"] != errors["training, moved"]
