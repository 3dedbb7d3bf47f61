"""Maps with errors: reflections are moved or missing, lines of sight stay, and the cloud's tables still fit."""

import numpy as np
import pytest
import torch

from cloud.fusion.twin_map import TwinMap
from sim.plan.weights import find_weights, load_weights
from sim.plan.wrong_map import wrong_map
from sim.world.mismatch import Mismatch

TWIN = load_weights(find_weights("paris-6", "twin", None))
TENSORS = TWIN.cloud()


def test_images_of_reflected_paths_move_and_lines_of_sight_stay() -> None:
    found = wrong_map(TENSORS, Mismatch(map_image_m=0.2))
    step = (found["anchor.offset"] - TENSORS["anchor.offset"]).numpy()
    reflected = TENSORS["anchor.bounces"].numpy() > 0
    assert (step[~reflected] == 0).all()
    assert step[reflected].std(0) == pytest.approx(0.2, rel=0.1)
    assert all(found[name] is TENSORS[name] or torch.equal(found[name], TENSORS[name])
               for name in TENSORS if name != "anchor.offset")  # fmt: skip


def test_missing_reflections_are_missing_at_every_stored_position() -> None:
    found = wrong_map(TENSORS, Mismatch(map_left_out=0.3))
    before = np.bincount(TENSORS["anchor.path"].numpy().view(np.uint16), minlength=len(TENSORS["anchor.offset"]))
    after = np.bincount(found["anchor.path"].numpy().view(np.uint16), minlength=len(before))
    assert ((after == 0) | (after == before)).all()
    reflected = TENSORS["anchor.bounces"].numpy() > 0
    assert (after[~reflected] == before[~reflected]).all()
    assert (after[reflected] == 0).mean() == pytest.approx(0.3, abs=0.05)
    assert int(found["anchor.count"].sum()) == len(found["anchor.path"]) == len(found["anchor.level"])
    # The k-th path of a stored position that is kept is the k-th kept one of before.
    link = np.repeat(np.arange(found["anchor.count"].numel()), found["anchor.count"].numpy().ravel())
    old = np.repeat(np.arange(TENSORS["anchor.count"].numel()), TENSORS["anchor.count"].numpy().ravel())
    kept = after[TENSORS["anchor.path"].numpy().view(np.uint16)] > 0
    np.testing.assert_array_equal(link, old[kept])
    TwinMap(TWIN.config, found)


def test_draws_depend_on_the_seed_alone() -> None:
    one, same, other = (
        wrong_map(TENSORS, Mismatch(map_image_m=0.1, map_left_out=0.1, seed=seed)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["anchor.offset"], other["anchor.offset"])


def test_a_right_map_and_schemes_without_one_stay_as_they_are() -> None:
    assert all(value is TENSORS[name] for name, value in wrong_map(TENSORS, Mismatch(site_m=1.0)).items())
    bare = {"layer.weight": torch.ones(3)}
    assert wrong_map(bare, Mismatch(map_image_m=0.1))["layer.weight"] is bare["layer.weight"]
