"""ComfyUI's *MultiGPU CFG Split* runs the two halves of guidance on two devices.

There is one CPU here; it is given twice, under two names, so that ComfyUI's own cloning, splitting
and threads are what runs. That the halves meet again on real cards is not tested.
"""

from __future__ import annotations

from collections import Counter

import graph
import pytest
import torch


@pytest.fixture
def multigpu(pack):
    return pytest.importorskip("comfy.multigpu", reason="this ComfyUI has no MultiGPU CFG Split")


@pytest.fixture
def two_devices(multigpu, monkeypatch):
    import comfy.model_management as mm

    devices = [torch.device("cpu"), torch.device("cpu", 0)]
    assert mm.get_torch_device() == devices[0] != devices[1]
    monkeypatch.setattr(mm, "get_all_torch_devices", lambda exclude_current=False: devices)
    monkeypatch.setattr(mm, "set_torch_device", lambda device: None, raising=False)
    return devices


@pytest.mark.parametrize("changed", ["plain", "tiles"])
def test_both_devices_work_and_the_result_is_that_of_one(
    pack, models, multigpu, two_devices, changed
):
    path = str(models / "upscale_a_video" / "unet.safetensors")
    unet = pack.nodes.model.unet.load_unet(path)
    if changed == "tiles":
        unet = pack.nodes.sampling.tiles.with_tiles(unet, 16, 8)
    expected = graph.sample(pack, unet, graph.frames())

    split = multigpu.create_multigpu_deepclones(unet, max_gpus=2)
    clones = split.get_additional_models_with_key("multigpu")
    assert [clone.load_device for clone in clones] == two_devices[1:]
    assert clones[0].model.diffusion_model is not split.model.diffusion_model
    seen: Counter[str] = Counter()
    hooks = [
        model.diffusion_model.conv_in.register_forward_hook(
            lambda *_, name=name: seen.update([name])
        )
        for name, model in (("first", split.model), ("second", clones[0].model))
    ]
    result = graph.sample(pack, split, graph.frames())
    for hook in hooks:
        hook.remove()
    assert seen["first"] == seen["second"] > 0
    # A half alone is not bit for bit what it is in a batch of two.
    assert (result - expected).abs().max() < 1e-4 * expected.abs().max()
