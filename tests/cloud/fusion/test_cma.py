"""Channel-masked attention against a plain implementation of ECC Eq. 23-28 with explicit tokens."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from cloud.fusion.cma import ChannelMaskedAttention, CmaFusionNetwork

BATCH, STATIONS, TONES, COEFFICIENTS, WIDTH = 3, 4, 5, 6, 8
Float = npt.NDArray[np.float64]


def attention(temperature: float = 1.0) -> ChannelMaskedAttention:
    torch.manual_seed(0)
    made = ChannelMaskedAttention(STATIONS, COEFFICIENTS, WIDTH, temperature)
    with torch.no_grad():
        made.query.normal_()  # larger than at the start of a training, so that attention is far from uniform
        made.station.normal_()
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    latent = torch.randn(BATCH, STATIONS, TONES, COEFFICIENTS, generator=draw)
    gain = torch.randn(BATCH, STATIONS, generator=draw)
    present = torch.ones(BATCH, STATIONS, dtype=torch.bool)
    present[1, 2] = False
    present[2, [0, 1, 3]] = False
    return latent, gain, present


def softmax(values: Float) -> Float:
    shifted: Float = np.exp(values - values.max(-1, keepdims=True))
    shifted /= shifted.sum(-1, keepdims=True)
    return shifted


def gates(gain: Float, temperature: float) -> Float:
    return softmax(gain / temperature)  # ECC Eq. 23


def plain(module: ChannelMaskedAttention, latent: Float, gate: list[Float], present: npt.NDArray[np.bool_]) -> Float:
    """Token by token, with the whole attention matrix; q comes last in the sequence."""
    names = ("projection", "station", "query", "key.weight", "value.weight")
    state = {name: module.state_dict()[name].double().numpy() for name in names}
    out = np.empty((len(latent), latent.shape[2], WIDTH))
    for b, f in np.ndindex(len(latent), latent.shape[2]):
        known = np.flatnonzero(present[b])
        tokens = [latent[b, k, f] @ state["projection"][k] + state["station"][k] for k in known]
        sequence = np.stack([*tokens, state["query"]])  # ECC Eq. 24: [x_1 … x_K, q]
        keys = sequence @ state["key.weight"].T
        weights = softmax(sequence @ keys.T / np.sqrt(WIDTH))  # ECC Eq. 25: all rows
        values = np.diag([*gate[b], 1.0]) @ sequence @ state["value.weight"].T  # ECC Eq. 26
        out[b, f] = (weights @ values)[-1]  # ECC Eq. 27-28: q's row
    return out


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_equations_23_to_28_token_by_token(temperature: float) -> None:
    module, (latent, gain, present) = attention(temperature), inputs()
    gate = [gates(gain[b][present[b]].double().numpy(), temperature) for b in range(BATCH)]
    expected = plain(module, latent.double().numpy(), gate, present.numpy())
    np.testing.assert_allclose(module(latent, gain, present).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("temperature", "limit"), [(1e6, "equal"), (1e-6, "strongest")])
def test_the_gates_limits_in_temperature(temperature: float, limit: str) -> None:
    module, (latent, gain, present) = attention(temperature), inputs()
    gate = []
    for b in range(BATCH):
        own = gain[b][present[b]].double().numpy()
        gate.append(np.full(len(own), 1 / len(own)) if limit == "equal" else (own == own.max()).astype(np.float64))
    expected = plain(module, latent.double().numpy(), gate, present.numpy())
    np.testing.assert_allclose(module(latent, gain, present).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_absent_base_stations_are_without_influence() -> None:
    module, (latent, gain, present) = attention(), inputs()
    other, louder = latent.clone(), gain.clone()
    other[~present], louder[~present] = 1e3, 50.0
    assert torch.equal(module(other, louder, present), module(latent, gain, present))


def test_tones_are_fused_one_by_one() -> None:
    module, (latent, gain, present) = attention(), inputs()
    flipped = module(latent.flip(2), gain, present).flip(1)
    torch.testing.assert_close(flipped, module(latent, gain, present))


def test_gradients_flow_to_parameters_and_latents() -> None:
    module, (latent, gain, present) = attention(), inputs()
    latent.requires_grad_(), gain.requires_grad_()
    module(latent, gain, present).square().sum().backward()
    for tensor in (*module.parameters(), latent, gain):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.any()
    assert latent.grad is not None and not latent.grad[~present].any()


def network(**changes: tuple[float, float, float]) -> CmaFusionNetwork:
    torch.manual_seed(0)
    return CmaFusionNetwork(stations=STATIONS, coefficients=COEFFICIENTS, width=WIDTH, hidden=12, **changes)


def test_one_position_a_tone_in_units_of_the_service_area() -> None:
    latent, gain, present = inputs()
    gain = gain.exp()
    unit = network()(latent, gain, present)
    assert unit.shape == (BATCH, TONES, 3)
    centre, extent = (10.0, -20.0, 5.0), (80.0, 60.0, 10.0)
    scaled = network(centre=centre, extent=extent)(latent, gain, present)
    torch.testing.assert_close(scaled, torch.tensor(centre) + torch.tensor(extent) * unit)


def test_evidence_accumulates_in_frequency_order() -> None:  # ECC Eq. 32: step n has seen tones 1 … n only
    latent, gain, present = inputs()
    later = latent.clone()
    later[:, :, 3] += 1
    one, other = (network()(z, gain.exp(), present) for z in (latent, later))
    assert torch.equal(one[:, :3], other[:, :3])
    assert (one[:, 3:] != other[:, 3:]).any((0, 2)).all()


def test_gains_are_standardised_in_decibels() -> None:
    made = network()
    made.gain_mean.copy_(torch.tensor([-60.0, -70.0, -80.0, -90.0]))
    made.gain_deviation.copy_(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    gain = np.array([[1e-3, 1e-4, 1e-4, 1e-5]])
    expected = (20 * np.log10(gain) - made.gain_mean.numpy()) / made.gain_deviation.numpy()
    standardised = made.standardised_gain(torch.from_numpy(gain)).numpy()
    np.testing.assert_allclose(standardised, expected, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(made.standardised_gain(torch.zeros(1, STATIONS))).all()
