"""Lines through the gains of training positions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import straight_world
import tiny_vinloc

from sim.errors import UserError
from sim.learn.rss import train_rss


def test_a_site_that_no_path_reaches_has_no_line(tmp_path: Path) -> None:
    wide = straight_world.scenario()
    world = replace(wide, splits=replace(wide.splits, test=10, validation=10))
    paths = straight_world.trace(world, straight_world.positions(world, 60))
    paths = replace(paths, mirror=np.zeros((0, 4), np.float32))
    heard = np.ones((60, 3), bool)
    heard[:, 1] = False
    with pytest.raises(UserError, match=r"^Site 1 hears fewer than 3 of the 40 training positions"):
        train_rss(world, tiny_vinloc.silenced(paths, heard), "random", tmp_path / "rss.safetensors")
    assert list(tmp_path.iterdir()) == []
