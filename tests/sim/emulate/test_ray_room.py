"""Whether the processes of a run find a place on the nodes of a Ray cluster, without Ray."""

import dataclasses
import re
from typing import Any

import pytest

from sim.emulate.ray_room import require_room, reserved
from sim.errors import UserError
from sim.plan.settings import EmulateSettings

SETTINGS = EmulateSettings(scenario="paris-6", driver="ray")
HERE = {"NodeID": "here", "Resources": {"CPU": 2.0}, "Labels": {"site": "east"}}
GPUS = {"NodeID": "there", "Resources": {"CPU": 8.0, "GPU": 2.0}, "Labels": {"site": "west"}}


def asked(**own: Any) -> EmulateSettings:
    """Return settings of a run on Ray that reserves a tenth of a CPU for a base station, and what is asked."""
    return dataclasses.replace(SETTINGS, **({"cpus_per_bs": 0.1, "cloud_cpus": 0.0} | own))


@pytest.mark.parametrize(
    ("stations", "own"),
    [
        (8, {"gpus_per_bs": 0.25}),
        (6, {"gpus_per_bs": 0.3333}),
        (6, {"gpus_per_bs": 0.1, "bs_per_actor": 3}),
        (2, {"gpus_per_bs": 1.0}),
        (1, {"gpus_per_bs": 2.0}),
        (4, {"gpus_per_bs": 0.5, "bs_per_actor": 4}),
        (4, {"gpus_per_bs": 1e-5}),
        (10, {"cpus_per_bs": 1.0}),
        (9, {"cpus_per_bs": 1.0, "cloud_cpus": 1.0}),
        (4, {"cpus_per_bs": 1.0, "node_label": "site"}),
    ],
)
def test_what_fits_is_taken(stations: int, own: dict[str, Any]) -> None:
    require_room(asked(**own), stations, [HERE, GPUS], "here")


@pytest.mark.parametrize(
    ("stations", "own", "sentence"),
    [
        (3, {"gpus_per_bs": 0.6}, "have room for 2 of 3 actors that reserve 0.1 CPUs and 0.6 GPUs each: lower --gpus-"),
        (5, {"gpus_per_bs": 0.4}, "have room for 4 of 5 actors that reserve 0.1 CPUs and 0.4 GPUs each: lower --gpus-"),
        (9, {"gpus_per_bs": 0.25}, "9 base stations and the cloud reserve 2.25 GPUs, Ray has 2: lower --gpus-per-bs"),
        (1, {"gpus_per_bs": 1.5}, "An actor of 1 base stations reserves 1.5 GPUs, and Ray gives a part of one"),
        (5, {"gpus_per_bs": 0.4, "bs_per_actor": 4}, "An actor of 4 base stations reserves 1.6 GPUs, and Ray gives"),
        (1, {"cloud_gpus": 0.5}, "The cloud reserves 0.5 GPUs, the driver's node, where it runs, has 0: lower --cl"),
        (3, {"cpus_per_bs": 3.0}, "have room for 2 of 3 actors that reserve 3 CPUs and 0 GPUs each: lower --cpus-"),
        (
            6,
            {"cpus_per_bs": 1.0, "node_label": "site"},
            "The nodes with site=east of the Ray cluster have room for 2 of",
        ),
        (1, {"node_label": "rack"}, "--node-label rack: no node of the Ray cluster has it"),
    ],
)
def test_what_does_not_fit_is_one_sentence(stations: int, own: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        require_room(asked(**own), stations, [HERE, GPUS], "here")


def test_a_gpu_that_the_cloud_shares_has_room_for_the_rest() -> None:
    chosen = asked(gpus_per_bs=0.3, cloud_gpus=0.5)
    require_room(chosen, 4, [GPUS], "there")
    with pytest.raises(UserError, match="have room for 4 of 5 actors"):
        require_room(chosen, 5, [GPUS], "there")


def test_amounts_are_in_the_steps_of_ray() -> None:
    """It refuses parts of a step, and 0.55 × 20 = 11.000000000000002 GPUs as not whole."""
    assert reserved(1e-6, 0.55 * 20) == {"num_cpus": 1e-4, "num_gpus": 11.0}
    assert reserved(0.0, 0.1 * 3) == {"num_cpus": 0.0, "num_gpus": 0.3}
