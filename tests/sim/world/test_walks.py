"""Walks: drawn in a made-up place here, and in a traced scene in tests/sim/world/test_tracer.py."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import straight_world

from sim.world.scenario import Site, Walk, load_scenario
from sim.world.walks import area_test, draw_walks

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
WALK = Walk((1.5, 2.5), snapshots=10, interval_s=1.0)


class Room:
    """A square of 40 m, and a wall along x = 0 with a door at |y| < 2 m."""

    def admits(self, point: Points) -> Mask:
        mask: Mask = (np.abs(point[:, :2]) <= 20).all(1)
        return mask

    def clear(self, start: Points, end: Points) -> Mask:
        crossing = start[:, 0] * end[:, 0] < 0
        share = start[:, 0] / np.where(crossing, start[:, 0] - end[:, 0], 1.0)
        y = start[:, 1] + share * (end[:, 1] - start[:, 1])
        mask: Mask = ~crossing | (np.abs(y) < 2)
        return mask


def starts(count: int, seed: int = 0) -> Points:
    x = np.random.default_rng(seed).uniform(-20, 20, (count, 3))
    x[:, 2] = 1.5
    return x


def test_a_walk_keeps_its_speed_and_its_interval() -> None:
    walk = replace(WALK, interval_s=0.5)
    room = Room()
    made = draw_walks(walk, starts(300), room.admits, room.clear, np.random.default_rng(1))
    assert made.position.shape == made.velocity.shape == (300, 10, 3)
    speed = np.linalg.norm(made.velocity, axis=2)
    assert (speed >= 1.5).all() and (speed <= 2.5).all()
    np.testing.assert_allclose(speed, speed[:, :1].repeat(10, 1))
    assert speed[:, 0].std() == pytest.approx(1 / 12**0.5, rel=0.15)
    # Each velocity leads to the next position, but for the single precision of the latter.
    np.testing.assert_allclose(np.diff(made.position, axis=1), 0.5 * made.velocity[:, :-1], atol=1e-5)
    np.testing.assert_array_equal(made.velocity[:, -1], made.velocity[:, -2])
    assert (made.position == made.position.astype(np.float32)).all()
    np.testing.assert_allclose(made.position[:, 0], starts(300), atol=1e-5)
    assert (made.position[..., 2] == 1.5).all()


def test_a_heading_is_kept_until_something_stands_in_the_way() -> None:
    free = draw_walks(WALK, starts(50), lambda p: np.ones(len(p), bool), lambda a, b: np.ones(len(a), bool), rng())
    np.testing.assert_array_equal(free.velocity, free.velocity[:, :1].repeat(10, 1))
    room = Room()
    walks = draw_walks(replace(WALK, speed_mps=(4.0, 6.0)), starts(400), room.admits, room.clear, rng())
    turned = (np.abs(np.diff(walks.velocity[:, :-1], axis=1)) > 1e-9).any(2)
    ahead = walks.position[:, 1:-1] + walks.velocity[:, :-2]
    here, there = walks.position[:, 1:-1].reshape(-1, 3), ahead.reshape(-1, 3)
    blocked = ~(room.admits(there) & room.clear(here, there))
    assert turned.any() and not turned.all()
    np.testing.assert_array_equal(turned.ravel(), blocked)


def test_no_walk_leaves_the_area_or_crosses_a_wall() -> None:
    room = Room()
    walks = draw_walks(replace(WALK, speed_mps=(4.0, 9.0)), starts(400), room.admits, room.clear, rng())
    assert len(walks.position) > 390
    assert room.admits(walks.position.reshape(-1, 3)).all()
    before, after = (part.reshape(-1, 3) for part in (walks.position[:, :-1], walks.position[:, 1:]))
    assert room.clear(before, after).all()
    assert (before[:, 0] * after[:, 0] < 0).any()  # through the door


def test_walks_without_a_way_on_are_discarded() -> None:
    cell = np.array([[0.0, 0.0, 1.5], [10.0, 0.0, 1.5]])

    def admits(point: Points) -> Mask:  # the first starts in a cell of 1 m
        mask: Mask = (np.abs(point[:, :2]) < 1).all(1) | (point[:, 0] > 2)
        return mask

    walks = draw_walks(replace(WALK, speed_mps=(1.8, 2.0)), cell, admits, lambda a, b: np.ones(len(a), bool), rng())
    assert len(walks.position) in (0, 1)  # the second may have walked into a corner
    assert (walks.position[:, 0, 0] == 10).all()
    none = draw_walks(WALK, cell, lambda p: np.zeros(len(p), bool), lambda a, b: np.zeros(len(a), bool), rng())
    assert none.position.shape == (0, 10, 3)


def test_a_walk_of_one_snapshot_is_a_position() -> None:
    walks = draw_walks(replace(WALK, snapshots=1), starts(5), Room().admits, Room().clear, rng())
    assert walks.position.shape == walks.velocity.shape == (5, 1, 3)


def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def test_the_hull_is_that_of_the_sites_within_the_box() -> None:
    sites = tuple(Site((x, y, 25.0)) for x, y in [(0.0, 0.0), (100.0, 0.0), (0.0, 100.0), (20.0, 20.0)])
    users = replace(straight_world.scenario().users, low=(-50.0, -50.0, 1.5), high=(60.0, 200.0, 1.5), area="hull")
    inside = area_test(replace(straight_world.scenario(), sites=sites, users=users))
    points = {(30.0, 30.0): True, (1.0, 98.0): True, (51.0, 51.0): False, (-1.0, 5.0): False, (70.0, 5.0): False}
    assert inside(np.array([(*p, 1.5) for p in points])).tolist() == list(points.values())
    assert not inside(np.array([[30.0, 30.0, 1.6]])).any()
    assert inside(np.zeros((0, 3))).shape == (0,)


def test_the_box_alone_is_the_default() -> None:
    world = straight_world.scenario()
    assert world.users.area == "box"
    points = straight_world.positions(world, 50)
    assert area_test(world)(points).all()
    assert not area_test(world)(points + np.array([500.0, 0, 0])).any()


def test_paris_7s_hull_lies_within_its_box() -> None:
    paris = load_scenario("paris-7")
    corner = np.array([site.position[:2] for site in paris.sites])
    assert (corner >= paris.users.low[:2]).all() and (corner <= paris.users.high[:2]).all()
    width = np.ptp(corner, axis=0)
    assert 200 < width[1] < width[0] < 245
