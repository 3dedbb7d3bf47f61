"""Pictures of a run: the map shows sites and users, whatever their extent."""

import dataclasses

import numpy as np
import pytest
import straight_world
from matplotlib.figure import Figure

from sim.emulate.run_pictures import draw_position_map


@pytest.mark.parametrize("room_m", [20.0, 800.0])
def test_the_map_is_filled_by_sites_and_users(room_m: float) -> None:
    world = straight_world.scenario(2)
    corners = [(0.0, 0.0, 3.0), (room_m, room_m, 3.0)]
    sites = tuple(dataclasses.replace(site, position=at) for site, at in zip(world.sites, corners, strict=True))
    axes = Figure().add_subplot()
    truth = np.array([[room_m / 2, room_m / 3, 1.0]])
    draw_position_map(axes, dataclasses.replace(world, sites=sites), 2, truth, truth + 0.5)
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert low < 0 and high > room_m
        assert high - low < 1.25 * room_m
