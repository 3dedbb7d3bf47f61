"""MFCNet and ADCPM: networks computed again by hand, and the same fixes from reports as from channels in one place."""

from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch
from straight_world import Array
from torch import nn

from cloud.fusion.adcpm import AdcpmFusion, AdcpmNetwork
from cloud.fusion.mfcnet import MfcNetFusion, MfcNetwork
from cloud.fusion.regression import PositionRegression
from cloud.fusion.scheme import CloudSetup
from edge import adcpm, mfcnet
from edge.adcpm import angle_delay_power
from edge.preprocessing import channel_gain, preprocess
from edge.scheme import EdgeSetup
from fronthaul.message.messages import Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from sim.learn.ecc.baselines import POSITIONERS, Baseline, train_baselines
from sim.learn.trainer import Schedule
from sim.plan.weights import load_weights, save_weights

WORLD = straight_world.scenario(sites=3)
STATIONS = {k: site.position for k, site in enumerate(WORLD.sites)}
LOSSLESS = PayloadChoice(None)
EDGES = {"adcpm": adcpm.make, "mfcnet": mfcnet.make}
FUSIONS = {"adcpm": AdcpmFusion, "mfcnet": MfcNetFusion}
NAMES: tuple[Baseline, ...] = ("adcpm", "mfcnet")


def test_power_over_beams_and_delays_is_that_of_a_sum_by_hand() -> None:
    rows, columns, tones = 2, 3, 5
    channel = torch.randn(4, 7, rows * columns, tones, dtype=torch.complex64)
    power = angle_delay_power(channel, rows, columns).double().numpy()
    h = channel.to(torch.complex128).numpy()
    for beam_c, beam_r, delay in ((0, 0, 0), (1, 1, 3), (2, 0, 4)):
        total = np.zeros((4, 7), complex)
        for c in range(columns):
            for r in range(rows):
                for f in range(tones):
                    turn = -beam_c * c / columns - beam_r * r / rows + delay * f / tones
                    total += h[:, :, c * rows + r, f] * np.exp(2j * np.pi * turn)
        expected = (np.abs(total) ** 2 / (rows * columns * tones)).mean(1)
        np.testing.assert_allclose(power[:, beam_c * rows + beam_r, delay], expected, rtol=1e-5)
    gain = channel_gain(channel).double().numpy()
    np.testing.assert_allclose(power.sum((1, 2)), gain**2 / 7, rtol=1e-5)


def by_hand(regression: PositionRegression, features: Array, gain: Array, present: Array) -> Array:
    level = (20 * np.log10(gain) - value(regression.gain_mean)) / value(regression.gain_deviation)
    y = np.concatenate([features, np.where(present, level, 0), present], 1)
    linear = [layer for layer in regression.layers if isinstance(layer, nn.Linear)]
    for n, layer in enumerate(linear):
        y = y @ value(layer.weight).T + value(layer.bias)
        y = np.maximum(y, 0) if n < len(linear) - 1 else y
    return value(regression.centre) + value(regression.extent) * y


def value(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def normed(norm: nn.GroupNorm, x: Array) -> Array:
    axes = tuple(range(1, x.ndim))
    unit = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + norm.eps)
    shape = (-1, *[1] * (x.ndim - 2))
    return unit * value(norm.weight).reshape(shape) + value(norm.bias).reshape(shape)


def given() -> tuple[torch.Tensor, torch.Tensor]:
    """Gains and presence of two snapshots, the second without base station 1."""
    present = torch.tensor([[True, True, True], [True, False, True]])
    return torch.tensor([[1e-4, 2e-5, 3e-6], [5e-5, 1.0, 2e-5]]), present


def test_mfcnet_is_what_it_says() -> None:
    torch.manual_seed(1)
    network = MfcNetwork(stations=3, tones=7, coefficients=4, width=6, blocks=2, hidden=8, centre=(1.0, 2.0, 3.0),
                         extent=(4.0, 5.0, 6.0))  # fmt: skip
    network.regression.gain_mean.fill_(-90.0)
    network.regression.gain_deviation.fill_(7.0)
    gain, present = given()
    channel = torch.randn(2, 3, 7, 4)
    x = value(channel) * present.numpy()[:, :, None, None]
    x = np.stack([np.concatenate([x[b, k].T for k in range(3)]) for b in range(2)])  # (B, K·C, F)
    x = np.einsum("oc,bcf->bof", value(network.entry.weight)[..., 0], x) + value(network.entry.bias)[:, None]
    for block in network.blocks:
        y = normed(block.norm, x)
        parts = []
        for branch in block.branches:
            kernel = value(branch.weight)
            wide = np.pad(y, ((0, 0), (0, 0), (kernel.shape[2] // 2,) * 2))
            made = sum(np.einsum("oc,bcf->bof", kernel[..., n], wide[..., n : n + 7]) for n in range(kernel.shape[2]))
            parts.append(np.maximum(made + value(branch.bias)[:, None], 0))
        mix = block.mix
        x = x + np.einsum("oc,bcf->bof", value(mix.weight)[..., 0], np.concatenate(parts, 1))
        x = x + value(mix.bias)[:, None]
    expected = by_hand(network.regression, x.reshape(2, -1), gain.double().numpy(), present.numpy())
    np.testing.assert_allclose(value(network(channel, gain, present))[:, 0], expected, atol=1e-4)


def test_adcpms_network_is_what_it_says() -> None:
    torch.manual_seed(2)
    network = AdcpmNetwork(stations=3, antennas=4, tones=6, width=5, blocks=2, hidden=8)
    gain, present = given()
    power = torch.rand(2, 3, 4, 6) ** 8
    raw = value(power)
    level = 1 + np.log10(np.maximum(raw / raw.max((2, 3), keepdims=True), 1e-4)) / 4
    x = level * present.numpy()[:, :, None, None]

    def convolved(layer: nn.Conv2d, x: Array) -> Array:
        kernel = value(layer.weight)
        made = sum(
            np.einsum("oc,bcmf->bomf", kernel[..., i, j], np.roll(x, (1 - i, 1 - j), (2, 3)))
            for i in range(3)
            for j in range(3)
        )
        return np.asarray(made + value(layer.bias)[:, None, None])

    x = convolved(network.entry, x)
    for block in network.blocks:
        inner = np.maximum(convolved(block.first, normed(block.norm, x)), 0)
        x = x + convolved(block.second, inner)
        x = np.stack([x[..., n : n + 2].max(-1) for n in range(0, x.shape[-1], 2)], -1)
    expected = by_hand(network.regression, x.reshape(2, -1), gain.double().numpy(), present.numpy())
    np.testing.assert_allclose(value(network(power, gain, present))[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_fixes_from_reports_are_the_training_networks_output(name: Baseline, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = POSITIONERS[name](WORLD).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()  # as the file keeps them
    model.network.regression.gain_mean.fill_(-80.0)
    covariance = torch.eye(4, dtype=torch.complex64).expand(3, WORLD.csi_shape[2], -1, -1)
    save_weights(tmp_path / "made.safetensors", model.weights(covariance, {}))
    weights = load_weights(tmp_path / "made.safetensors")
    channel = straight_world.channels(WORLD, 5)
    columns = []
    for k in range(3):
        edge = EDGES[name](EdgeSetup(k, LOSSLESS, weights.config, weights.edge(k)))
        encoded = edge.encode(channel[:, k])
        sides = encoded.side or [b""] * 5
        assert edge.name == name and encoded.payloads[0].bits == edge.format.max_bits
        columns.append(
            [Report(ReportKey(k, 0, n), p, s) for n, (p, s) in enumerate(zip(encoded.payloads, sides, strict=True))]
        )
    groups = [[column[n] for column in columns[::-1]] for n in range(5)]
    groups[1] = groups[1][1:]
    rule = FUSIONS[name](CloudSetup(STATIONS, LOSSLESS, weights.config, weights.cloud()))
    x, gain = preprocess(channel, model.phase)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[1, 2] = False
    with torch.no_grad():
        expected = model(x, gain, present)[:, 0]
    found = np.array([fix.position for fix in rule.fuse(groups)])
    np.testing.assert_allclose(found, expected.double().numpy(), atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_in_bits_are_refused(name: Baseline) -> None:
    with pytest.raises(ValueError, match="--bits is lossless"):
        EDGES[name](EdgeSetup(0, PayloadChoice(4), {"rows": 2, "columns": 2, "tones": 8}, {}))


def test_payloads_of_the_papers_grid() -> None:
    config = {"rows": 2, "columns": 2, "tones": 24, "slots": 10, "antennas": 4, "phase": "slot"}
    bits = {name: EDGES[name](EdgeSetup(0, LOSSLESS, config, {})).format.max_bits for name in NAMES}
    assert bits == {"adcpm": 3072, "mfcnet": 61440}


def test_both_learn_on_the_same_snapshots(tmp_path: Path) -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 400), [((1.0, 0.0, 0.0), 170.0)])
    prior_m = float(np.linalg.norm(paths.position - paths.position.mean(0), axis=1).mean())
    outputs: dict[Path, Baseline] = {tmp_path / f"{name}.safetensors": name for name in NAMES}
    schedule = Schedule(epochs=4, batch=16, warmup_steps=10)
    found = train_baselines(WORLD, paths, outputs, schedule, lambda _: None, checkpoint=tmp_path / "both.pt")
    assert max(found.values()) < 0.6 * prior_m
    for output, name in outputs.items():
        config = load_weights(output).config
        assert config["scheme"] == name and config["record"]["validation_mean_3d_m"] == pytest.approx(
            found[output], abs=1e-3
        )
