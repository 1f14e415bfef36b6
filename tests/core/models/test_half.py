"""The VAEs in fp16: smaller activations, the same frames."""

from __future__ import annotations

import pytest
import tiny
import torch
from generated import det
from golden_cases import DECODE, GOLDEN, decode_inputs

from uav_core.models import half
from uav_core.models.vae import TemporalVAE
from uav_core.sampling.pipeline import load_vae

KINDS = list(tiny.VAES)


def rounded(kind: str, factor: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights that are exact in fp16, for activations ``factor`` times as large."""
    weights = {key: x.half().float() for key, x in tiny.vae_weights(kind).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(half, "SCALE", factor)
        return {key: x * half._factor(key) for key, x in weights.items()}


def fitted(weights: dict[str, torch.Tensor]) -> TemporalVAE:
    """A network that computes in fp32 with what was fitted to fp16."""
    vae = load_vae(weights)
    small = {key: x.float() for key, x in half.fitted_to_half(vae, weights).items()}
    vae.load_state_dict(small, assign=True)
    return vae


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_smaller_activations_give_the_same(kind):
    weights, (z, frames) = rounded(kind), (det("z", (1, 4, 2, 8, 8)), det("f", (1, 3, 2, 8, 8)))
    plain, small = load_vae(weights), fitted(weights)
    frames = frames.clamp(-1, 1)
    assert small.decoder.conv_in.weight.abs().max() * 64 == plain.decoder.conv_in.weight.abs().max()
    torch.testing.assert_close(
        small.decode(z, frames, 0.7), plain.decode(z, frames, 0.7), rtol=1e-4, atol=1e-4
    )
    pixels = det("pixels", (1, 3, 2, 16, 16))
    torch.testing.assert_close(small.encode(pixels), plain.encode(pixels), rtol=1e-4, atol=1e-4)
    # Also where the frames are so flat that epsilon decides.
    flat = torch.full_like(frames, 0.25) + 1e-3 * frames
    torch.testing.assert_close(small.decode(z, flat), plain.decode(z, flat), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", DECODE)
@torch.inference_mode()
def test_fp16_is_close_to_the_reference(case):
    kind, inputs = decode_inputs(case)
    vae = load_vae(tiny.vae_weights(kind), dtype=torch.float16)
    assert {x.dtype for x in vae.parameters()} == {torch.float16}
    expected = GOLDEN[case]
    assert (vae.decode(*inputs) - expected).abs().max() < 5e-3 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_activations_that_overflow_fp16_are_decoded(kind):
    weights, inputs = rounded(kind, 2.0**14), (det("z", (1, 4, 1, 8, 8)), det("f", (1, 3, 1, 8, 8)))
    exact = load_vae(weights).decode(*inputs)
    plain = TemporalVAE(tiny.VAES[kind], dtype=torch.float16)
    plain.load_state_dict(weights)
    assert half.overflowed(plain.decode(*inputs))
    found = load_vae(weights, dtype=torch.float16).decode(*inputs)
    assert not half.overflowed(found)
    assert (found - exact).abs().max() < 1e-2 * exact.abs().max()
