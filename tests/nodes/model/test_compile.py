"""ComfyUI's own torch.compile node works on the MODEL."""

from __future__ import annotations

import graph
import pytest
import tiny
import torch
from generated import generate, shapes_of
from safetensors.torch import save_file

from uav_core.models.unet import TemporalUNet, UNetParams

# Every kind of layer, few of each: what the compiler takes grows with their number.
FEW = UNetParams(
    channels=(32, 64),
    resnets=1,
    attention=(False, True),
    text_only=(True, False),
    context_dim=tiny.UNET.context_dim,
    heads=2,
    time_dim=64,
)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    """The path of a U-Net with few layers."""
    path = tmp_path_factory.mktemp("compiled") / "unet.safetensors"
    save_file(generate("few.", shapes_of(TemporalUNet(FEW, device="meta"))), path)
    return str(path)


def only_without_a_compiler(_: torch.device) -> bool:
    assert not torch.compiler.is_compiling()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_segments_and_steps_share_one_graph(pack, network, monkeypatch, kind):
    """And give what the model gives as it is, in the way of either device."""
    from comfy.ldm.modules.attention import attention_pytorch
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    # What ComfyUI takes on a GPU. Its attention for CPUs asks the system for free memory, which
    # no compiler follows.
    monkeypatch.setattr(pack.nodes.model.unet, "optimized_attention", attention_pytorch)
    devices = pack.uav_core.devices
    if kind == "gpu":
        monkeypatch.setitem(devices.ways._other, "cpu", devices.gpu.GPU)
        # A compiler would follow the test of Triton's kernels and break the graph there.
        monkeypatch.setattr(devices.norms, "has_kernels", only_without_a_compiler)
    unet = pack.nodes.model.unet.load_unet(network)
    # 20 frames are three segments of 8, at two steps.
    plain = graph.sample(pack, unet, graph.frames(20), steps=2)
    compiled = unet.clone()
    # What the node 'TorchCompileModel' does. This backend traces everything, as the usual one does,
    # and needs no C++ compiler; on a card `scripts/gpu_check.py` runs the usual one.
    set_torch_compile_wrapper(model=compiled, backend="aot_eager")
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    result = graph.sample(pack, compiled, graph.frames(20), steps=2)
    assert counters["stats"]["unique_graphs"] == 1, dict(counters["graph_break"])
    torch.testing.assert_close(result, plain, rtol=1e-3, atol=1e-3)
