"""The way of a GPU, run on a CPU: norms that keep the layout, wide heads, what is cut and when.

The golden cases run this way as well (the fixture ``ways``).
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from generated import det
from torch import Tensor, nn
from ways import as_on_a_gpu, fewest_products

from uav_core.devices import abilities, attention, gpu, memory, norms, ways
from uav_core.devices.cpu import CPU as CPU_WAY
from uav_core.devices.gpu import GPU
from uav_core.devices.layers import PLAIN, Layers, Lending
from uav_core.devices.layout import channels_last
from uav_core.devices.memory import Sparing
from uav_core.models.layers import Resnet

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def plain_norms(monkeypatch):
    """As with a PyTorch whose own norm copies to another layout."""
    monkeypatch.setattr(norms, "keeps_layout", lambda _: False)


def norm_of(channels: int, groups: int, operations: Any = nn) -> Any:
    norm = Layers(operations).GroupNorm(groups, channels, eps=1e-6)
    norm.weight.copy_(det("gpu/weight", (channels,)))
    norm.bias.copy_(3 * det("gpu/bias", (channels,)))
    return norm


class Computing(nn.GroupNorm):
    """As ComfyUI's where weights stream: asks nobody below it, and its weights do not last."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.detach().clone(), self.bias.detach().clone()
        out = F.group_norm(input, self.num_groups, weight, bias, self.eps)
        weight.fill_(torch.nan)
        bias.fill_(torch.nan)
        return out


class Convolving:
    """Mixin for such a convolution."""

    def forward(self: Any, input: Tensor) -> Tensor:
        weight, bias = self.weight.detach().clone(), self.bias.detach().clone()
        out = self._conv_forward(input, weight, bias)
        weight.fill_(torch.nan)
        bias.fill_(torch.nan)
        return out


class Streaming:
    """Operations with such norms and convolutions."""

    GroupNorm = Computing
    Conv2d = type("Conv2d", (Convolving, nn.Conv2d), {})
    Conv3d = type("Conv3d", (Convolving, nn.Conv3d), {})
    Linear = nn.Linear


@pytest.mark.parametrize("operations", [nn, Streaming])
@pytest.mark.parametrize("shape", [(2, 64, 3, 5, 7), (3, 96, 6, 4), (1, 3, 2, 9, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_keep_the_layout_and_the_numbers(plain_norms, operations, shape, dtype):
    channels = shape[1]
    norm = norm_of(channels, min(32, channels), operations).to(dtype)
    x = channels_last(det("gpu/x", shape) + 2).to(dtype)
    shift = det("gpu/shift", shape[:2]).to(dtype)
    exact = nn.GroupNorm(norm.num_groups, channels, 1e-6).double()
    exact.weight.copy_(norm.weight)
    exact.bias.copy_(norm.bias)
    tolerance = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
    for given in (None, shift):
        wide = x.double()
        if given is not None:
            wide = (x + given[(...,) + (None,) * (x.ndim - 2)]).double()
        result = GPU.activated(norm, x.clone(), given)
        assert result.dtype == dtype and result.stride() == x.stride()
        torch.testing.assert_close(
            result.double(), F.silu(exact(wide)), rtol=tolerance, atol=tolerance
        )
    result = GPU.normed(norm, x)
    torch.testing.assert_close(
        result.double(), exact(x.double()), rtol=tolerance, atol=2 * tolerance
    )


def test_values_that_spread_beyond_the_range_of_fp16_squared(plain_norms):
    norm = norm_of(64, 32).to(torch.float16)
    x = channels_last(300 * det("gpu/x", (1, 64, 2, 6, 4))).half()
    exact = F.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), norm.eps)
    result = GPU.normed(norm, x).double()
    torch.testing.assert_close(result, exact, rtol=1e-2, atol=1e-2)


def test_memory_that_runs_out_does_not_end_the_kernels(monkeypatch, plain_norms):
    def normed(*_):
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    monkeypatch.setattr(norms, "_without", set())
    monkeypatch.setattr(norms, "has_kernels", lambda _: True)
    monkeypatch.setattr(norms, "_kernels", lambda: SimpleNamespace(normed=normed))
    with pytest.raises(RuntimeError, match="out of memory"):
        GPU.activated(norm_of(64, 32), channels_last(det("gpu/x", (1, 64, 2, 5, 7))))
    monkeypatch.setattr(norms, "_kernels", lambda: SimpleNamespace(check=normed))
    norms._are_right.cache_clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        norms._are_right(CPU)
    assert not norms._without


@pytest.mark.parametrize(("rows", "cut"), [(2**20 - 1, False), (2**20, True)])
def test_layers_with_more_numbers_than_old_kernels_count_are_cut(monkeypatch, rows, cut):
    monkeypatch.setattr(memory, "free", lambda _: 2**50)
    x = torch.empty((1, 8, 1, rows, 64), device="meta", dtype=torch.float16)
    assert GPU.cuts(x, 32) == cut


def test_page_locked_memory_that_is_refused_is_not_asked_for_again(monkeypatch, caplog):
    asked, empty_like = [], torch.empty_like

    def refuse(x, **how):
        if not how.get("pin_memory"):
            return empty_like(x, **how)
        asked.append(1)
        raise RuntimeError("CUDA error: resource already mapped")

    monkeypatch.setattr(memory, "_refused", False)
    monkeypatch.setattr(torch, "empty_like", refuse)
    with caplog.at_level(logging.INFO):
        assert memory._page_locked(torch.ones(2)) is None is memory._page_locked(torch.ones(2))
    assert asked == [1] and caplog.text.count("already mapped") == 1


def test_a_norm_that_computes_itself_tells_its_weights():
    norm = norm_of(64, 32, Streaming)
    weight, bias = norm.weights_for(torch.empty(1))
    assert torch.equal(weight, norm.weight) and torch.equal(bias, norm.bias)
    assert norm_of(64, 32).weights_for(torch.empty(1))[0].shape == (64,)


def test_pytorchs_own_norm_is_taken_where_it_keeps_the_layout(monkeypatch):
    assert norms.keeps_layout(CPU), "a CPU's does"
    monkeypatch.setattr(norms, "plain", None)
    norm, x = norm_of(64, 32), channels_last(det("gpu/x", (2, 64, 3, 5, 7)))
    torch.testing.assert_close(GPU.activated(norm, x), F.silu(norm(x)))


def test_kernels_that_fail_are_given_up_for_good(monkeypatch, caplog, plain_norms):
    calls = []

    def normed(*_):
        calls.append(1)
        raise RuntimeError("no compiler")

    monkeypatch.setattr(norms, "_without", set())
    monkeypatch.setattr(norms, "has_kernels", lambda device: str(device) not in norms._without)
    monkeypatch.setattr(norms, "_kernels", lambda: SimpleNamespace(normed=normed))
    norm, x = norm_of(64, 32), channels_last(det("gpu/x", (1, 64, 2, 5, 7)))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            torch.testing.assert_close(GPU.activated(norm, x), F.silu(norm(x)))
    assert calls == [1] and caplog.text.count("no compiler") == 1


def test_without_triton_there_are_no_kernels(monkeypatch, caplog):
    def missing():
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(norms, "_kernels", missing)
    monkeypatch.setattr(norms, "_without", set())
    norms._are_right.cache_clear()
    device = torch.device("cuda:7")
    with caplog.at_level(logging.INFO):
        assert not norms.has_kernels(device) and not norms.has_kernels(device)
    assert caplog.text.count("triton") == 1
    assert not norms.has_kernels(CPU)
    norms._are_right.cache_clear()


@pytest.mark.parametrize("with_mask", [False, True])
def test_wide_heads_in_blocks(monkeypatch, with_mask):
    q, k, v = (det(f"gpu/{name}", (2, 3, 40, 320)) for name in "qkv")
    mask = det("gpu/mask", (1, 3, 40, 40)) if with_mask else None
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert attention.serves(q) and not attention.serves(q[..., :256])
    # 7 queries of 2 x 3 heads.
    monkeypatch.setattr(attention, "BLOCK", 7 * 4 * 6 * 40)
    torch.testing.assert_close(attention.by_products(q, k, v, mask), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_is_left_alone_where_scores_would_be_rounded():
    q = torch.ones(1, 1, 4, 512, dtype=torch.bfloat16)
    try:
        torch.bmm(q[0], q[0].mT, out_dtype=torch.float32)
    except (TypeError, RuntimeError, NotImplementedError):
        assert not attention.serves(q)


def test_layers_are_cut_only_where_whole_ones_do_not_fit(monkeypatch):
    x = torch.empty(1, 64, 8, 520, 512, device="meta", dtype=torch.float16)
    tokens = torch.empty(1, 8, 520 * 512, 64, device="meta", dtype=torch.float16)
    free = {}
    monkeypatch.setattr(memory, "free", lambda device: free[device.type])
    # Its normalised input, the result before and after the second convolution.
    needed = 3 * 2 * x.numel() + memory.SPARE
    free["meta"] = needed
    assert not GPU.cuts(x, 64)
    assert GPU.halves_tokens(tokens) and not GPU.halves_tokens(tokens[:, :, :4000])
    free["meta"] = needed - 1
    assert GPU.cuts(x, 64)
    free["meta"] = 13 * 2 * tokens.numel() + memory.SPARE
    assert not GPU.halves_tokens(tokens)
    free["meta"] = None
    assert GPU.cuts(x, 64), "nothing is known, so large ones are cut"
    assert not GPU.cuts(x[..., :100], 64), "small ones never are"
    monkeypatch.setattr(gpu, "WHOLE_UP_TO", 0)
    assert GPU.cuts(x[..., :100], 64)
    assert not GPU.runs_clips_apart(x)
    assert PLAIN.GroupNorm.func is type(norm_of(32, 32))


def test_sparing_does_without_what_is_free(monkeypatch):
    """And without asking: what is free was not enough."""
    x = torch.empty(2, 64, 8, 260, 256, device="meta", dtype=torch.float16)
    tokens = torch.empty(1, 8, 260 * 512, 64, device="meta", dtype=torch.float16)
    monkeypatch.setattr(memory, "free", lambda _: 2**50)
    monkeypatch.setattr(memory, "taken", set())
    for level in Sparing:
        with memory.sparing(level), memory.sparing(Sparing.NONE):
            assert GPU.runs_clips_apart(x) == (level >= Sparing.HALVES)
            assert GPU.halves_tokens(tokens) == (level >= Sparing.HALVES)
            assert GPU.cuts(x, 64) == (level >= Sparing.STRIPES)
            assert not GPU.cuts(x[..., :16, :], 64), "small ones never are"
            assert memory.taken == {n for n in Sparing if 0 < n <= level}
    assert not GPU.runs_clips_apart(x)


class Kernels:
    """What Triton's kernels give, by PyTorch; ``calls`` are their names, with what they add."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def normed(self, x, shift, weight, bias, groups, eps, activate):
        self.calls.append("normed" if shift is None else "shifted")
        if shift is not None:
            assert shift.shape == x.shape[:2]
            x = x + shift[..., None, None, None]
        out = F.group_norm(x, groups, weight, bias, eps)
        return F.silu(out) if activate else out

    def joined(self, x, onto, bias):
        self.calls.append("joined")
        return x.add_(onto).add_(bias[:, None, None, None])


@pytest.mark.parametrize("operations", [nn, Streaming])
@pytest.mark.parametrize("with_time", [False, True])
@pytest.mark.parametrize("kind", ["per frame", "along time", "refined"])
def test_kernels_add_the_biases_and_the_time(monkeypatch, kind, with_time, operations):
    """As where Triton is: its kernels add what would take passes of their own."""
    layer = Resnet(
        Layers(operations),
        32,
        64,
        eps=1e-5,
        temporal_kernels=(3, 3) if kind == "along time" else None,
        time_channels=16 if with_time else None,
        refine_3d=kind == "refined",
    )
    for name, parameter in layer.named_parameters():
        parameter.copy_(det(f"gpu/{name}", parameter.shape))
    x = channels_last(det("gpu/x", (2, 32, 3, 5, 7)))
    time = det("gpu/time", (2, 16)) if with_time else None
    expected = layer(x.clone(), time)
    kernels, given = Kernels(), x.clone()
    monkeypatch.setattr(ways, "of", lambda _: GPU)
    monkeypatch.setattr(norms, "has_kernels", lambda _: True)
    monkeypatch.setattr(norms, "_kernels", lambda: kernels)
    close = {"rtol": 1e-4, "atol": 1e-4 * expected.abs().max().item()}
    torch.testing.assert_close(layer(given, time), expected, **close)
    refined = ["normed", "joined"] if kind == "refined" else []
    assert kernels.calls == ["normed", "shifted", "joined", *refined]
    assert torch.equal(given, x), "the input may be a skip that is still needed"
    # Kernels that fail on the way: nothing is added twice.
    monkeypatch.setattr(norms, "_without", set())
    monkeypatch.setattr(norms, "_kernels", lambda: SimpleNamespace())
    torch.testing.assert_close(layer(given, time), expected, **close)


@pytest.mark.parametrize("operations", [nn, Streaming])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("refined", [False, True])
def test_without_kernels_a_shortcut_is_added_as_it_is_computed(
    monkeypatch, plain_norms, operations, dtype, refined
):
    """One matrix product instead of a convolution, its bias and a sum; as exact as these."""
    layer = Resnet(Layers(operations), 32, 64, eps=1e-5, refine_3d=refined)
    for name, parameter in layer.named_parameters():
        parameter.copy_(det(f"gpu/{name}", parameter.shape))
    x = channels_last(det("gpu/x", (2, 32, 3, 5, 7)).to(dtype))
    exact = Resnet(PLAIN, 32, 64, eps=1e-5, refine_3d=refined)
    exact.load_state_dict(layer.to(dtype).state_dict())
    expected = exact(x.float())
    given, added_to = x.clone(), []

    def plus(self, *given):
        added_to.append(self)
        return own(self, *given)

    own = Lending.plus
    monkeypatch.setattr(Lending, "plus", plus)
    monkeypatch.setattr(ways, "of", lambda _: GPU)
    result = layer(given)
    assert added_to == [layer.conv2] and torch.equal(given, x)
    # Not asked where PyTorch's 3-D convolution for CPUs makes the last layout.
    assert refined or result.is_contiguous(memory_format=torch.channels_last_3d)
    off = (result.float() - expected).abs().max() / expected.abs().max()
    assert off < {torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    # Not in fp32, nor of rows that fast products do not take, nor where kernels add everything.
    exact(x.float())
    narrow = Resnet(Layers(operations), 12, 64, eps=1e-5).to(dtype)
    narrow(channels_last(det("gpu/x", (1, 12, 1, 2, 2)).to(dtype)))
    assert added_to == [layer.conv2]
    monkeypatch.setattr(norms, "has_kernels", lambda _: True)
    monkeypatch.setattr(norms, "_kernels", Kernels)
    layer(given)
    assert added_to == [layer.conv2]


@pytest.mark.parametrize("name", ["conv2", "conv_shortcut"])
def test_a_shortcut_whose_forward_is_replaced_is_called_as_it_is(monkeypatch, plain_norms, name):
    layer = Resnet(PLAIN, 32, 64, eps=1e-5).half()
    for key, parameter in layer.named_parameters():
        parameter.copy_(det(f"gpu/{key}", parameter.shape))
    x = channels_last(det("gpu/x", (1, 32, 3, 9, 7)).half())
    conv = getattr(layer, name)
    more = nn.Conv2d(conv.in_channels, 64, 1).half()
    more.weight.copy_(det("gpu/more", more.weight.shape))
    own = conv.forward
    monkeypatch.setattr(conv, "forward", lambda y: own(y) + more(y), raising=False)
    usual = layer(x).float()
    monkeypatch.setattr(ways, "of", lambda _: GPU)
    off = (layer(x).float() - usual).abs().max() / usual.abs().max()
    assert off < 4e-3
    conv.forward = own
    without = (layer(x).float() - usual).abs().max() / usual.abs().max()
    assert without > 5 * off, "the addition can be seen"


@pytest.mark.parametrize("kind", ["gpu", "stripes", "cpu"])
def test_a_layer_whose_forward_is_replaced_is_called_as_it_is(monkeypatch, kind):
    """As ComfyUI's bypass LoRA does, which adds to what forward returns."""
    layer = Resnet(PLAIN, 32, 64, eps=1e-5, refine_3d=True)
    for name, parameter in layer.named_parameters():
        parameter.copy_(det(f"gpu/{name}", parameter.shape))
    x = channels_last(det("gpu/x", (1, 32, 3, 9, 7)))
    own = {name: getattr(layer, name).forward for name in ("conv1", "conv2", "conv_3d")}
    usual = layer(x)
    if kind == "cpu":
        fewest_products(monkeypatch)
    else:
        monkeypatch.setattr(ways, "of", lambda _: GPU)
        monkeypatch.setattr(norms, "has_kernels", lambda _: True)
        monkeypatch.setattr(norms, "_kernels", Kernels)
    if kind == "stripes":
        monkeypatch.setattr(GPU, "cuts", lambda *_: True)
    for name, forward in own.items():
        monkeypatch.setattr(
            getattr(layer, name), "forward", lambda y, *a, f=forward: f(y, *a) + 1, raising=False
        )
    result = layer(x)
    assert all(not getattr(layer, name).lends for name in own)
    monkeypatch.setattr(ways, "of", lambda _: CPU_WAY)
    torch.testing.assert_close(result, layer(x), rtol=1e-4, atol=1e-4 * usual.abs().max().item())
    assert (result - usual).abs().max() > 0.5
    for name, forward in own.items():
        getattr(layer, name).forward = forward  # as when the LoRA is taken away again
        assert getattr(layer, name).lends


@pytest.mark.parametrize("level", [Sparing.HALVES, Sparing.STRIPES])
def test_sparing_gives_the_same(monkeypatch, level):
    as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(gpu, "SPARED_UP_TO", 0)
    monkeypatch.setattr(gpu, "UNDIVIDED_UP_TO", 0)
    monkeypatch.setattr(memory, "free", lambda _: 2**50)
    monkeypatch.setattr(memory, "taken", set())
    unet, vae = tiny.unet(), tiny.vae("vae_video")
    latent, low_res = det("gpu/latent", (2, 4, 3, 16, 16)), det("gpu/low", (2, 3, 3, 16, 16))
    context, steps = tiny.context().to(latent), torch.tensor([500, 500])

    def made() -> tuple[Tensor, Tensor]:
        return unet(latent, steps, low_res, context, steps), vae.decode(latent, low_res)

    whole = made()
    assert not memory.taken
    with memory.sparing(level):
        spared = made()
    assert max(memory.taken) == level
    for a, b in zip(whole, spared, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * a.abs().max().item())


def test_other_devices_keep_their_own_norm_and_attention(monkeypatch):
    monkeypatch.setattr(abilities, "COMPLETE", frozenset())
    norm, x = norm_of(64, 32), channels_last(det("gpu/x", (2, 64, 3, 5, 7)))
    assert not norms.serves(norm, x) and not attention.serves(torch.ones(1, 1, 4, 512))
    shift = det("gpu/shift", (2, 64))
    expected = F.silu(norm(x + shift[:, :, None, None, None]))
    torch.testing.assert_close(GPU.activated(norm, x.clone(), shift), expected)
    torch.testing.assert_close(GPU.normed(norm, x), norm(x))
