"""ECC at the cloud: from reports, in any order and of any subset, to the training network's own fixes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import straight_world
import torch
from torch import Tensor

from cloud.fusion.ecc import EccFusion
from cloud.fusion.scheme import CloudSetup, Fix
from edge.ecc import build
from edge.preprocessing import preprocess
from edge.scheme import EdgeSetup
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from sim.learn.ecc.model import EccModel
from sim.plan.weights import Weights

WORLD = straight_world.scenario(sites=4)
STATIONS = {k: site.position for k, site in enumerate(WORLD.sites)}


def fusion(weights: Weights, bits: int | None) -> EccFusion:
    return EccFusion(CloudSetup(STATIONS, PayloadChoice(bits), weights.config, weights.cloud()))


def groups_of(weights: Weights, bits: int | None, channel: Tensor) -> list[list[Report]]:
    """All reports on channels (B, K, slot, antenna, tone), one group a snapshot."""
    columns = []
    for k in range(channel.shape[1]):
        made = build(EdgeSetup(k, PayloadChoice(bits), weights.config, weights.edge(k)))
        encoded = made.encode(channel[:, k])
        columns.append(
            [
                Report(ReportKey(k, 0, n), payload, side)
                for n, (payload, side) in enumerate(zip(encoded.payloads, encoded.side, strict=True))
            ]
        )
    return [list(group) for group in zip(*columns, strict=True)]


def places(fixes: list[Fix]) -> list[tuple[float, float, float]]:
    return [fix.position for fix in fixes]


def expected(model: EccModel, channel: Tensor, present: Tensor | None = None) -> Tensor:
    x, gain = preprocess(channel, model.phase)
    with torch.no_grad():
        mask = torch.ones(gain.shape, dtype=torch.bool) if present is None else present
        estimate: Tensor = model(x, gain, mask)
        return estimate[:, -model.readout :].mean(1)


@pytest.mark.parametrize("bits", [2, 4, None])
def test_fixes_are_the_training_networks_output(tmp_path: Path, bits: int | None) -> None:
    model, weights = straight_world.ecc(WORLD, bits, tmp_path)
    channel = straight_world.channels(WORLD, 5)
    fixes = fusion(weights, bits).fuse(groups_of(weights, bits, channel))
    np.testing.assert_allclose(places(fixes), expected(model, channel).numpy(), rtol=1e-4, atol=1e-3)
    assert np.std(places(fixes), axis=0).max() > 0.01  # the reports do matter


def test_weights_without_a_readout_give_the_last_position(tmp_path: Path) -> None:  # ECC Eq. 33
    model, weights = straight_world.ecc(WORLD, 4, tmp_path)
    channel = straight_world.channels(WORLD, 5)
    groups = groups_of(weights, 4, channel)
    mean = places(fusion(weights, 4).fuse(groups))
    del weights.config["fusion"]["readout"]
    last = places(fusion(weights, 4).fuse(groups))
    model.readout = 1
    np.testing.assert_allclose(last, expected(model, channel).numpy(), rtol=1e-4, atol=1e-3)
    assert not np.allclose(last, mean, atol=1e-3)


@pytest.mark.parametrize("shape", [{"tone_mixing": False}, {"gain_mask": False}, {"temperature": 3.0}])
def test_variants_of_the_network_are_those_that_were_trained(tmp_path: Path, shape: dict[str, Any]) -> None:
    usual, _ = straight_world.ecc(WORLD, 4, tmp_path)
    model, weights = straight_world.ecc(WORLD, 4, tmp_path, shape=replace(straight_world.SMALL, **shape))
    channel = straight_world.channels(WORLD, 5)
    fixes = places(fusion(weights, 4).fuse(groups_of(weights, 4, channel)))
    np.testing.assert_allclose(fixes, expected(model, channel).numpy(), rtol=1e-4, atol=1e-3)
    assert not np.allclose(fixes, expected(usual, channel).numpy(), atol=1e-3)


@pytest.mark.parametrize("bits", [4, None])
def test_the_order_of_reports_does_not_matter(tmp_path: Path, bits: int | None) -> None:
    _, weights = straight_world.ecc(WORLD, bits, tmp_path)
    (group,) = groups_of(weights, bits, straight_world.channels(WORLD, 1))
    rule = fusion(weights, bits)
    straight = rule.fuse([group])
    for seed in range(4):
        shuffled = [group[i] for i in np.random.default_rng(seed).permutation(len(group))]
        assert rule.fuse([shuffled]) == straight


@pytest.mark.parametrize("kept", [[0], [3], [1, 2], [0, 2, 3]])
def test_a_missing_base_station_is_a_masked_one(tmp_path: Path, kept: list[int]) -> None:
    model, weights = straight_world.ecc(WORLD, 4, tmp_path)
    channel = straight_world.channels(WORLD, 3)
    groups = [[group[k] for k in kept] for group in groups_of(weights, 4, channel)]
    present = torch.zeros(3, len(STATIONS), dtype=torch.bool)
    present[:, kept] = True
    wrecked = channel.clone()
    wrecked[:, [k for k in STATIONS if k not in kept]] = 1.0  # what a masked one says must not matter
    fixes = places(fusion(weights, 4).fuse(groups))
    np.testing.assert_allclose(fixes, expected(model, channel, present).numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fixes, expected(model, wrecked, present).numpy(), rtol=1e-4, atol=1e-3)


def test_every_base_station_matters(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    (group,) = groups_of(weights, 4, straight_world.channels(WORLD, 1))
    rule = fusion(weights, 4)
    fixes = {rule.fuse([[r for r in group if r.key.bs != k]])[0].position for k in (*STATIONS, -1)}
    assert len(fixes) == len(STATIONS) + 1


def test_groups_of_different_sizes_are_fused_together(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    groups = groups_of(weights, 4, straight_world.channels(WORLD, 3))
    mixed = [groups[0], groups[1][:2], groups[2][3:]]
    rule = fusion(weights, 4)
    alone = [rule.fuse([group])[0].position for group in mixed]
    np.testing.assert_allclose(places(rule.fuse(mixed)), alone, rtol=1e-5, atol=1e-4)


def test_no_group_gives_no_fix(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    assert fusion(weights, 4).fuse([]) == []


def test_a_payload_of_another_length_is_refused(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    with pytest.raises(RemoteError):
        fusion(weights, 4).fuse([[Report(ReportKey(0, 0, 0), Payload(b"\x00", 8), bytes(4))]])
