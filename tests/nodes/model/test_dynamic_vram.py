"""ComfyUI's dynamic memory (DynamicVRAM), its default on NVIDIA: loaders, and networks at work."""

from __future__ import annotations

from typing import Any

import card
import graph
import pytest
import tiny
import torch
from generated import det
from safetensors.torch import save_file

STORED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture
def needs_dynamic(pack):
    if not card.is_there():
        pytest.skip("this ComfyUI has no dynamic memory")


@pytest.fixture
def switched_on(needs_dynamic, monkeypatch):
    card.switch_on(monkeypatch)


@pytest.fixture(params=["stays", "pages out", "streams"])
def on_card(request, needs_dynamic, monkeypatch):
    card.put_in(monkeypatch, request.param == "pages out", request.param == "streams")


def stored(weights: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {k: v if k.endswith("freqs") else v.to(dtype) for k, v in weights.items()}


def quick_weights(kind: str) -> dict[str, torch.Tensor]:
    if kind == "unet":
        return tiny.unet_weights(tiny.QUICK_UNET)
    return tiny.vae_weights(kind, tiny.QUICK_VAES[kind])


def write(folder, kind: str, precision: str, suffix: str = "safetensors") -> str:
    weights = quick_weights(kind)
    path = folder / f"{kind}.{suffix}"
    if suffix == "bin":
        torch.save(stored(weights, STORED[precision]), path)
    else:
        save_file(stored(weights, STORED[precision]), path)
    return str(path)


def decode(pack, vae: Any) -> torch.Tensor:
    frames = 3 if vae.vae_dtype == torch.float32 else 1  # slow on a CPU
    samples = {"samples": det("z", (1, 4, frames, graph.H, graph.W))}
    node = pack.nodes.sampling.decode.VAEDecode.execute
    return node(samples, vae, graph.frames(frames), 1.0, 3, "none").result[0]


def sample(pack, unet: Any) -> torch.Tensor:
    return graph.sample(pack, unet, graph.frames(3), steps=1)


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("kind", "precision", "chosen", "suffix"),
    [
        ("vae_3d", "fp32", "default", "safetensors"),
        ("vae_3d", "fp16", "fp32", "bin"),
        ("vae_video", "fp16", "default", "safetensors"),
        ("vae_video", "bf16", "fp32", "safetensors"),
        ("vae_video", "fp32", "bf16", "safetensors"),
        ("vae_video", "fp32", "fp16", "safetensors"),
        ("vae_3d", "bf16", "fp16", "bin"),
    ],
)
def test_vae_decodes_as_without(
    pack, needs_dynamic, tmp_path, monkeypatch, kind, precision, chosen, suffix
):
    monkeypatch.setattr(pack.nodes.model.vae, "usable", lambda dtype, device: dtype)
    path, dtype = (
        write(tmp_path, kind, precision, suffix),
        pack.nodes.loaders.load.VAE_PRECISIONS[chosen],
    )
    expected = decode(pack, pack.nodes.model.vae.VideoVAE(path, dtype))
    card.switch_on(monkeypatch)
    assert torch.equal(decode(pack, pack.nodes.model.vae.VideoVAE(path, dtype)), expected)


@pytest.mark.usefixtures("on_card")
def test_what_overflows_in_fp16_is_decoded_again(pack, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pack.nodes.model.vae, "usable", lambda dtype, device: dtype)
    weights = {key: x.float() for key, x in quick_weights("vae_video").items()}
    key = "decoder.up_blocks.0.resnets.0.conv2.weight"
    weights[key] = weights[key] * 4e6 / weights[key].abs().max()
    path = str(tmp_path / "large.safetensors")
    save_file(weights, path)
    vaes = (pack.nodes.model.vae.VideoVAE(path, d) for d in (torch.float32, torch.float16))
    samples = {"samples": det("z", (1, 4, 1, graph.H, graph.W))}
    node = pack.nodes.sampling.decode.VAEDecode.execute
    exact, found = (node(samples, vae, graph.frames(1), 1.0, 3, "none").result[0] for vae in vaes)
    assert "overflowed in fp16" in caplog.text
    assert (found - exact).abs().max() < 5e-3


@pytest.mark.parametrize(
    ("precision", "chosen", "suffix"),
    [
        ("fp32", "default", "safetensors"),
        ("fp32", "fp16", "bin"),
        ("fp32", "fp8_e5m2", "safetensors"),
        ("fp16", "default", "bin"),
        ("fp16", "fp32", "safetensors"),
        ("fp16", "fp8_e4m3fn", "safetensors"),
        ("bf16", "fp32", "safetensors"),
        ("bf16", "fp16", "safetensors"),
    ],
)
def test_unet_samples_as_without(
    pack, needs_dynamic, tmp_path, monkeypatch, precision, chosen, suffix
):
    path, dtype = (
        write(tmp_path, "unet", precision, suffix),
        pack.nodes.loaders.load.WEIGHT_DTYPES[chosen],
    )
    expected = sample(pack, pack.nodes.model.unet.load_unet(path, dtype))
    card.switch_on(monkeypatch)
    assert torch.equal(sample(pack, pack.nodes.model.unet.load_unet(path, dtype)), expected)


@pytest.mark.parametrize("kind", ["unet", "vae_3d", "vae_video"])
@pytest.mark.parametrize("fault", ["missing", "unexpected", "of wrong shape", "foreign"])
def test_wrong_files_get_the_errors_they_get_without(
    pack, needs_dynamic, tmp_path, monkeypatch, kind, fault
):
    weights = dict(quick_weights(kind))
    linear = {
        "unet": "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight",
        "vae_3d": "decoder.mid_block.attentions.0.query.weight",
        "vae_video": "decoder.mid_block.attentions.0.query.weight",
    }[kind]
    if fault == "missing":
        del weights[linear]
    elif fault == "unexpected":
        weights["surplus.weight"] = torch.zeros(1)
    elif fault == "of wrong shape":
        weights[linear] = weights[linear][:-1].clone()
    else:
        weights = {"some.weight": torch.zeros(2)}
    path = tmp_path / "wrong.safetensors"
    save_file(weights, path)
    load = pack.nodes.model.unet.load_unet if kind == "unet" else pack.nodes.model.vae.VideoVAE
    messages = []
    for on in (False, True):
        if on:
            card.switch_on(monkeypatch)
        with pytest.raises(pack.uav_core.errors.CheckpointError) as refused:
            load(str(path))
        messages.append((type(refused.value), str(refused.value)))
    assert messages[0] == messages[1]
    assert fault == "foreign" or fault in messages[0][1]


def test_every_loader_takes_the_included_files(pack, switched_on):
    load = pack.nodes.loaders.load
    for node in (load.LoadUNet, load.LoadVAE, load.LoadTextEncoder, load.LoadFlowModel):
        choices = [i.options for i in node.define_schema().inputs]
        for precision in choices[1] if len(choices) > 1 else [None]:
            more = () if precision is None else (precision,)
            assert node.execute(choices[0][0], *more).result[0] is not None


# ---------------------------------------------------------------- on a card


def as_on_cpu(pack, make: Any, work: Any, monkeypatch: Any) -> torch.Tensor:
    """What ``work`` gives without dynamic memory; the patches made so far are set aside."""
    with monkeypatch.context() as without:
        import comfy.memory_management
        import comfy.model_management as mm
        import comfy.model_patcher

        plain = comfy.model_patcher.ModelPatcher
        without.setattr(comfy.memory_management, "aimdo_enabled", False)
        without.setattr(comfy.model_patcher, "CoreModelPatcher", plain)
        for name in ("get_torch_device", "vae_device"):
            without.setattr(mm, name, lambda: torch.device("cpu"))
        return work(pack, make())


def close(result: torch.Tensor, expected: torch.Tensor, precision: str) -> None:
    """Equal but for the rounding of ``precision``: kernels differ on a card."""
    error = (result - expected).norm() / expected.norm()
    assert error < {"bf16": 1e-2, "fp8_e4m3fn": 1e-2}.get(precision, 5e-5), error


@pytest.mark.parametrize(
    ("precision", "chosen"),
    [("fp32", "fp32"), ("fp16", "fp32"), ("bf16", "fp32"), ("fp32", "bf16")],
)
def test_vae_streams(pack, on_card, tmp_path, monkeypatch, precision, chosen):
    path = write(tmp_path, "vae_video", precision)
    make = lambda: pack.nodes.model.vae.VideoVAE(path, STORED[chosen])  # noqa: E731
    expected = as_on_cpu(pack, make, decode, monkeypatch)
    vae = make()
    assert vae.patcher.is_dynamic()
    first = decode(pack, vae)
    close(first, expected, chosen)
    assert vae.patcher._vbar_get().faults > 20  # weights did stream
    # Unloaded and loaded again, it is the same.
    vae.patcher.unpatch_model(vae.patcher.offload_device)
    assert torch.equal(decode(pack, vae), first)


@pytest.mark.parametrize(
    ("precision", "chosen"),
    [
        ("fp32", "fp32"),
        ("fp16", "fp32"),
        ("bf16", "fp32"),
        ("fp32", "fp16"),
        ("fp16", "fp8_e4m3fn"),
    ],
)
def test_unet_streams(pack, on_card, tmp_path, monkeypatch, precision, chosen):
    path = write(tmp_path, "unet", precision)
    dtype = pack.nodes.loaders.load.WEIGHT_DTYPES[chosen]
    make = lambda: pack.nodes.model.unet.load_unet(path, dtype)  # noqa: E731
    expected = as_on_cpu(pack, make, sample, monkeypatch)
    unet = make()
    assert unet.is_dynamic()
    first = sample(pack, unet)
    close(first, expected, chosen)
    assert unet._vbar_get().faults > 20
    unet.unpatch_model(unet.offload_device)
    assert torch.equal(sample(pack, unet), first)


@pytest.mark.parametrize("kind", ["unet", "vae_video"])
def test_layers_in_stripes_stream_as_well(pack, on_card, tmp_path, monkeypatch, kind):
    """A weight that streams may be overwritten as soon as the next layer takes its own."""
    # Large enough: ComfyUI streams no weights of 16 KiB or less.
    weights = tiny.unet_weights() if kind == "unet" else tiny.vae_weights(kind)
    path = str(tmp_path / "network.safetensors")
    save_file(weights, path)
    devices = pack.uav_core.devices
    if kind == "unet":
        make, work = lambda: pack.nodes.model.unet.load_unet(path, torch.float32), sample
    else:
        make, work = lambda: pack.nodes.model.vae.VideoVAE(path, torch.float32), decode
    expected, cut, resnet = as_on_cpu(pack, make, work, monkeypatch), [], devices.stripes.resnet
    monkeypatch.setitem(devices.ways._other, "cpu", devices.gpu.GPU)
    monkeypatch.setattr(devices.gpu, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(devices.memory, "must_spare", lambda *_: True)
    monkeypatch.setattr(
        devices.stripes, "resnet", lambda layer, *a: cut.append(layer) or resnet(layer, *a)
    )
    with torch.inference_mode():  # as ComfyUI runs nodes
        close(work(pack, make()), expected, "fp32")
    assert any(layer.conv_shortcut for layer in cut)


def with_lora(unet: Any) -> Any:
    """A LoRA on a layer that streams."""
    import comfy.sd

    key = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
    rows, columns = quick_weights("unet")[f"{key}.weight"].shape
    lora = {
        f"diffusion_model.{key}.lora_up.weight": det("up", (rows, 4)),
        f"diffusion_model.{key}.lora_down.weight": det("down", (4, columns)),
        f"diffusion_model.{key}.alpha": torch.tensor(4.0),
    }
    return comfy.sd.load_lora_for_models(unet, None, lora, 4.0, 0)[0]


def test_lora_on_streamed_weights(pack, on_card, tmp_path, monkeypatch):
    path = write(tmp_path, "unet", "fp16")
    make = lambda: pack.nodes.model.unet.load_unet(path, torch.float32)  # noqa: E731
    plain = as_on_cpu(pack, make, sample, monkeypatch)
    expected = as_on_cpu(pack, lambda: with_lora(make()), sample, monkeypatch)
    assert (expected - plain).norm() > 5e-3 * plain.norm()
    unet = make()
    close(sample(pack, with_lora(unet)), expected, "fp32")
    close(sample(pack, unet), plain, "fp32")


def test_hooks_get_a_copy_without_dynamic_memory(pack, on_card, tmp_path, monkeypatch):
    path = write(tmp_path, "unet", "fp16")
    make = lambda: pack.nodes.model.unet.load_unet(path, torch.float32)  # noqa: E731
    expected = as_on_cpu(pack, make, sample, monkeypatch)
    delegate = make().get_non_dynamic_delegate()
    assert not delegate.is_dynamic()
    assert {p.dtype for p in delegate.model.parameters()} == {torch.float32}
    close(sample(pack, delegate), expected, "fp32")
    vae = pack.nodes.model.vae.VideoVAE(write(tmp_path, "vae_3d", "fp16"), torch.float32)
    copy = vae.patcher.clone(disable_dynamic=True)
    assert not copy.is_dynamic()
    assert {p.dtype for p in copy.model.parameters()} == {torch.float32}
