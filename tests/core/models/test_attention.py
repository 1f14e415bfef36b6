import pytest
import tiny
import torch
from generated import det
from tile_pictures import Largest
from torch.nn.attention import SDPBackend, sdpa_kernel

from uav_core.models import attention
from uav_core.models.attention import MAX_SCORES, scaled_dot_product


def qkv(tokens: int, width: int, batch: int = 1):
    return (det(f"attention {name}", (batch, tokens, width)) for name in "qkv")


def test_scores_are_bounded_without_a_fused_kernel():
    tokens = 4608
    assert 4 * tokens**2 > MAX_SCORES
    q, k, v = qkv(tokens, 8)
    fused = scaled_dot_product(q, k, v, 1)
    with sdpa_kernel(SDPBackend.MATH), Largest() as largest:
        bounded = scaled_dot_product(q, k, v, 1)
    assert largest.nbytes <= MAX_SCORES
    torch.testing.assert_close(bounded, fused, rtol=1e-6, atol=1e-6)


def test_fused_attention_stays_in_one_piece(monkeypatch):
    monkeypatch.setattr(attention, "MAX_SCORES", 1024)
    monkeypatch.setattr(attention, "_in_parts", None)
    # One head of 512, as in the released VAEs.
    q, k, v = qkv(96, 512)
    with Largest() as largest:
        scaled_dot_product(q, k, v, 1)
    assert largest.nbytes <= q.nbytes


@pytest.mark.parametrize("shape", [(1, 2, 1, 40), (3, 1, 40, 40), (40, 40), (1, 2, 40, 40)])
def test_masks_are_cut_with_the_queries(monkeypatch, shape):
    q, k, v = qkv(40, 16, batch=3)
    mask = det("mask", shape)
    expected = scaled_dot_product(q, k, v, 2, mask)
    # 7 queries at a time: 3 of a batch, 2 heads, 40 keys, 4 bytes.
    monkeypatch.setattr(attention, "MAX_SCORES", 7 * 3 * 2 * 40 * 4)
    with sdpa_kernel(SDPBackend.MATH):
        got = scaled_dot_product(q, k, v, 2, mask)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


# Not inference_mode: there attention stays one operation, whose inner tensors are not seen.
@torch.no_grad()
def test_the_vae_never_holds_all_scores(monkeypatch):
    h, w = 8, 144
    scores = 4 * (h * w) ** 2
    vae, z = tiny.vae("vae_3d"), det("scores", (1, 4, 1, h, w))
    with Largest() as largest:
        expected = vae.decode(z)
    features = largest.nbytes
    assert features < scores
    monkeypatch.setattr(attention, "MAX_SCORES", features)
    with sdpa_kernel(SDPBackend.MATH), Largest() as largest:
        bounded = vae.decode(z)
    assert largest.nbytes <= features
    torch.testing.assert_close(bounded, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_one_piece(monkeypatch):
    def gradients():
        q, k, v = (x.requires_grad_() for x in qkv(24, 8))
        with sdpa_kernel(SDPBackend.MATH):
            scaled_dot_product(q, k, v, 1).square().sum().backward()
        return [x.grad for x in (q, k, v)]

    expected = gradients()
    monkeypatch.setattr(attention, "MAX_SCORES", 5 * 24 * 4)
    torch.testing.assert_close(gradients(), expected)
