"""Linear layers through oneDNN give what PyTorch's give, and step back where they cannot serve."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from generated import det
from torch import nn

from uav_core.devices import linear as module
from uav_core.devices.layers import PLAIN, Layers
from uav_core.devices.linear import linear


@pytest.fixture
def every_size(monkeypatch):
    """Even the smallest products go through oneDNN; gives the shapes that did."""
    if not module._has_inner_product():
        pytest.skip("this PyTorch has no inner product of oneDNN")
    monkeypatch.setattr(module, "LEAST_PRODUCTS", 0)
    seen = []
    real = module._inner_product

    def watched(x, weight, bias):
        seen.append(tuple(x.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(module, "_inner_product", watched)
    return seen


def made() -> Any:
    return PLAIN.Linear(24, 16)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("layout", ["whole", "strided", "turned"])
def test_it_is_the_linear_layer(every_size, layout, with_bias):
    x = {
        "whole": det("linear/x", (2, 3, 5, 24)),
        "strided": det("linear/x", (2, 6, 10, 24))[:, ::2, ::2],
        "turned": det("linear/x", (24, 2, 3, 5)).permute(1, 2, 3, 0),
    }[layout]
    weight = det("linear/weight", (16, 24))
    bias = det("linear/bias", (16,)) if with_bias else None
    with torch.inference_mode():
        result = linear(x, weight, bias)
    assert every_size == [(2, 3, 5, 24)]
    torch.testing.assert_close(result, F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)


def test_small_products_gradients_and_half_precision_are_left_to_pytorch(every_size, monkeypatch):
    layer = made()
    layer(torch.ones(3, 24)).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        copy.deepcopy(layer).bfloat16()(torch.ones(3, 24, dtype=torch.bfloat16))
        monkeypatch.setattr(module, "LEAST_PRODUCTS", 3 * 24 * 16 + 1)
        layer(torch.ones(3, 24))
    assert every_size == []


def test_a_pytorch_without_the_operation_does_without(monkeypatch):
    def gone(*_):
        raise AttributeError("no such operation")

    monkeypatch.setattr(module, "LEAST_PRODUCTS", 0)
    monkeypatch.setattr(module, "_inner_product", gone)
    module._has_inner_product.cache_clear()
    try:
        layer = made()
        with torch.inference_mode():
            x = det("linear/x", (3, 24))
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    finally:
        module._has_inner_product.cache_clear()


def test_layers_that_change_their_weights_keep_doing_so(every_size):
    class Casting(nn.Linear):
        """As ComfyUI's: computes itself where its weights are patched, else as its parent."""

        patched = False

        def forward(self, input):
            if self.patched:
                return F.linear(input, 2 * self.weight, self.bias)
            return super().forward(input)

    class Operations:
        Linear = Casting

    layer = Layers(Operations).Linear(24, 16, bias=False)
    assert isinstance(layer, Casting)
    with torch.inference_mode():
        once = layer(torch.ones(3, 24))
        layer.patched = True
        torch.testing.assert_close(layer(torch.ones(3, 24)), 2 * once)
    assert every_size == [(3, 24)]
