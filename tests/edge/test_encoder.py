"""The encoder's matrix products are the convolutions they stand for; its latent is aligned with the tones."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.encoder import Down, Residual, SegNetDecoder, SegNetEncoder, ToneMixing, Up, cosine_loss

BATCH, TONES, SLOTS, ANTENNAS, COEFFICIENTS = 3, 6, 4, 2, 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encoder(**changes: int) -> SegNetEncoder:
    torch.manual_seed(1)
    shape = {"tones": TONES, "slots": SLOTS, "antennas": ANTENNAS, "coefficients": COEFFICIENTS, "width": 8}
    return SegNetEncoder(**(shape | changes))


def as_images(x: Tensor) -> Tensor:
    """(B, F, W, C) to torch's (B, C, F, W)."""
    return x.permute(0, 3, 1, 2)


def test_down_is_a_strided_convolution() -> None:
    torch.manual_seed(0)
    inputs, outputs, stride = 3, 4, 5
    down, x = Down(inputs, outputs, stride), normal(BATCH, TONES, 2 * stride, inputs)
    kernel = down.weight.weight.reshape(outputs, stride, inputs).permute(0, 2, 1)[:, :, None]  # (O, C, 1, stride)
    expected = functional.conv2d(as_images(x), kernel, down.weight.bias, stride=(1, stride))
    torch.testing.assert_close(as_images(down(x)), expected)


def test_up_is_a_strided_transposed_convolution() -> None:
    torch.manual_seed(0)
    inputs, outputs, stride = 3, 4, 5
    up, x = Up(inputs, outputs, stride), normal(BATCH, TONES, 2, inputs)
    assert up.weight.bias is not None
    with torch.no_grad():
        up.weight.bias.copy_(normal(outputs).repeat(stride))  # a convolution has one bias a channel
    kernel = up.weight.weight.reshape(stride, outputs, inputs).permute(2, 1, 0)[:, :, None]  # (C, O, 1, stride)
    expected = functional.conv_transpose2d(as_images(x), kernel, up.weight.bias[:outputs], stride=(1, stride))
    torch.testing.assert_close(as_images(up(x)), expected)


def test_residual_is_a_convolution_over_three_tones() -> None:
    torch.manual_seed(0)
    channels = 4
    block, x = Residual(channels), normal(BATCH, TONES, 3, channels)
    kernel = block.first.weight.reshape(channels, 3, channels).permute(0, 2, 1)[..., None]  # (O, C, 3, 1)
    hidden = functional.conv2d(as_images(block.norm(x)), kernel, block.first.bias, padding=(1, 0)).relu()
    point = block.second.weight[:, :, None, None]
    expected = as_images(x) + functional.conv2d(hidden, point, block.second.bias)
    torch.testing.assert_close(as_images(block(x)), expected)


def test_tone_mixing_maps_the_tones_of_each_channel_alike() -> None:
    torch.manual_seed(0)
    block, x = ToneMixing(TONES, 4, 10), normal(2, TONES, 3, 4)
    y = block.norm(x)
    for w in range(3):
        for c in range(4):
            made = block.gather(block.spread(y[:, :, w, c]).relu())
            torch.testing.assert_close(block(x)[:, :, w, c], x[:, :, w, c] + made)


@pytest.mark.parametrize(("slots", "antennas"), [(4, 2), (10, 4), (7, 1), (1, 4)])
def test_shapes_for_any_number_of_slots(slots: int, antennas: int) -> None:
    shape = {"tones": TONES, "slots": slots, "antennas": antennas, "coefficients": COEFFICIENTS, "width": 8}
    x = normal(BATCH, 2, TONES, slots * antennas)
    latent = SegNetEncoder(**shape)(x)
    assert latent.shape == (BATCH, TONES, COEFFICIENTS)
    assert SegNetDecoder(**shape)(latent).shape == x.shape


def test_the_decoder_mirrors_the_encoder() -> None:
    shape = {"tones": TONES, "slots": SLOTS, "antennas": ANTENNAS, "coefficients": COEFFICIENTS, "width": 8}
    down = [m for m in SegNetEncoder(**shape).body if isinstance(m, Down)]
    up = [m for m in SegNetDecoder(**shape).body if isinstance(m, Up)]
    assert [m.stride for m in up] == [m.stride for m in reversed(down)]
    assert [m.weight.in_features for m in up] == [m.weight.out_features for m in reversed(down)]


def test_training_gives_each_coefficient_zero_mean_and_unit_variance() -> None:
    latent = encoder().train()(3 + 20 * normal(64, 2, TONES, SLOTS * ANTENNAS)).flatten(0, 1)
    torch.testing.assert_close(latent.mean(0), torch.zeros(COEFFICIENTS), rtol=0, atol=1e-5)
    torch.testing.assert_close(latent.var(0, correction=0), torch.ones(COEFFICIENTS), rtol=1e-2, atol=0)


def test_the_same_scale_is_used_for_all_tones() -> None:
    model = encoder()
    assert isinstance(model.scale, nn.BatchNorm1d) and model.scale.num_features == COEFFICIENTS


def test_without_tone_mixing_a_tone_reaches_its_neighbours_only() -> None:
    model = encoder(depth=0).eval()
    x = normal(1, 2, TONES, SLOTS * ANTENNAS)
    for tone in range(TONES):
        other = x.clone()
        other[:, :, tone] += normal(1, 2, SLOTS * ANTENNAS, seed=2)
        changed = (model(other) - model(x)).abs().amax((0, 2)) > 1e-6
        assert changed.nonzero()[:, 0].tolist() == [f for f in (tone - 1, tone, tone + 1) if 0 <= f < TONES]


def test_gradients_reach_every_parameter() -> None:
    model = encoder()
    model(normal(4, 2, TONES, SLOTS * ANTENNAS)).square().mul(normal(4, TONES, COEFFICIENTS)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_cosine_loss_in_float64() -> None:  # ECC Eq. 22
    x, y = normal(BATCH, 2, TONES, 4), normal(BATCH, 2, TONES, 4, seed=1)
    h, g = ((part[:, 0] + 1j * part[:, 1]).numpy().astype("complex128").reshape(BATCH, -1) for part in (x, y))
    cosine = abs((h.conj() * g).sum(1)) / ((abs(h) ** 2).sum(1) * (abs(g) ** 2).sum(1)) ** 0.5
    assert float(cosine_loss(x, y)) == pytest.approx(-cosine.mean(), rel=1e-5)


def test_the_cosine_loss_lies_between_minus_one_and_zero() -> None:
    x = normal(BATCH, 2, TONES, 4)
    assert float(cosine_loss(x, x)) == pytest.approx(-1, abs=1e-6)
    assert -1 <= float(cosine_loss(x, normal(BATCH, 2, TONES, 4, seed=1))) <= 0
    one, other = torch.zeros(1, 2, TONES, 4), torch.zeros(1, 2, TONES, 4)
    one[..., :2], other[..., 2:] = 1, 1
    assert float(cosine_loss(one, other)) == 0
    assert torch.isfinite(cosine_loss(torch.zeros_like(one), other))


def test_the_cosine_loss_ignores_scale_and_global_phase() -> None:
    x, y = normal(BATCH, 2, TONES, 4), normal(BATCH, 2, TONES, 4, seed=1)
    turned = torch.view_as_real(torch.complex(y[:, 0], y[:, 1]) * (3 - 4j)).movedim(-1, 1)
    torch.testing.assert_close(cosine_loss(x, turned), cosine_loss(x, y))
    torch.testing.assert_close(cosine_loss(5 * x, y), cosine_loss(x, y))
