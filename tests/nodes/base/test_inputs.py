"""Wrong inputs get a clear message before any model is brought to the device."""

from __future__ import annotations

import graph
import pytest
import torch
from generated import det


def propagation(pack, images, steps):
    module = pack.nodes.sampling.propagate
    still = torch.zeros(1, 2, len(images) - 1, *images.shape[1:3])
    clip = pack.nodes.base.inputs.video_frames(images)
    return module.FlowPropagation(
        None, clip, steps, module.PropagationParams(), flows=(still, still)
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 32, 32, 3), "at least one frame"),
        (torch.zeros(32, 32, 3), r"\(frames, height, width, 3\)"),
        (torch.zeros(2, 32, 32, 4), "alpha channel"),
        (torch.zeros(2, 32, 32, 1), "1 channel: .*three times"),
        (torch.zeros(2, 15, 32, 3), "32x15: expected at least 16 px"),
    ],
)
def test_frames(pack, nothing_loads, images, message):
    with pytest.raises(pack.uav_core.InputError, match=message):
        graph.conditioned(pack, images)


@pytest.mark.parametrize("level", [-1, 351])
def test_noise_level(pack, nothing_loads, level):
    with pytest.raises(pack.uav_core.InputError, match="350"):
        graph.conditioned(pack, graph.frames(), noise_level=level)


def test_latent_of_another_clip(pack, nothing_loads, unet):
    positive, negative, _ = graph.conditioned(pack, graph.frames())
    other = {"samples": torch.zeros(1, 4, 7, graph.H, graph.W)}
    with pytest.raises(pack.uav_core.InputError, match=r"7 frames of 24x16.*10 frames"):
        pack.nodes.sampling.sample.SegmentSampler.execute(
            unet, positive, negative, other, 2, 6.0, 0, 8, 2
        )


def test_image_latent(pack, nothing_loads, unet):
    positive, negative, _ = graph.conditioned(pack, graph.frames())
    with pytest.raises(pack.uav_core.InputError, match="one video latent"):
        pack.nodes.sampling.sample.SegmentSampler.execute(
            unet, positive, negative, {"samples": torch.zeros(1, 4, 8, 8)}, 2, 6.0, 0, 8, 2
        )


def test_conditioning_without_frames(pack, nothing_loads, unet):
    positive, negative = graph.texts()
    latent = {"samples": torch.zeros(1, 4, 3, graph.H, graph.W)}
    with pytest.raises(pack.uav_core.InputError, match="Low-Res Conditioning"):
        pack.nodes.sampling.sample.SegmentSampler.execute(
            unet, positive, negative, latent, 2, 6.0, 0, 8, 2
        )


def test_text_of_another_encoder(pack, nothing_loads, unet):
    other = [[det("sd1", (1, 77, 768)), {}]]
    positive, negative, latent = graph.conditioned(pack, graph.frames(), positive=other)
    with pytest.raises(pack.uav_core.InputError, match="768 wide, this U-Net expects 48"):
        pack.nodes.sampling.sample.SegmentSampler.execute(
            unet, positive, negative, latent, 2, 6.0, 0, 8, 2
        )


def test_open_text_without_null_embedding(pack, nothing_loads, unet):
    positive, negative, latent = graph.conditioned(pack, graph.frames(), negative=None)
    with pytest.raises(pack.uav_core.InputError, match="is not connected"):
        pack.nodes.sampling.sample.SegmentSampler.execute(
            unet, positive, negative, latent, 2, 6.0, 0, 8, 2
        )


def test_propagation_outside_the_run(pack, nothing_loads, unet):
    images = graph.frames()
    with pytest.raises(pack.uav_core.InputError, match="outside the run"):
        graph.sample(pack, unet, images, propagation=propagation(pack, images, "5"))


def test_few_steps_without_the_schedule_of_the_model(pack):
    with pytest.raises(pack.uav_core.InputError, match="connect the temporal U-Net to 'model'"):
        pack.nodes.sampling.sample.Sigmas.execute(1)


def test_propagation_of_another_clip(pack, nothing_loads, unet):
    plan = propagation(pack, graph.frames(5), "1")
    with pytest.raises(pack.uav_core.InputError, match="same clip"):
        graph.sample(pack, unet, graph.frames(), propagation=plan)


def test_overlap_as_long_as_the_segment(pack, nothing_loads, unet):
    with pytest.raises(pack.uav_core.InputError, match="overlap"):
        graph.sample(pack, unet, graph.frames(), segment_length=4, overlap=4)


def test_decode_with_other_frames(pack, nothing_loads, vae):
    samples = {"samples": torch.zeros(1, 4, 5, 16, 24)}
    with pytest.raises(pack.uav_core.InputError, match=r"5 frames of 24x16.*10 frames of 24x16"):
        pack.nodes.sampling.decode.VAEDecode.execute(samples, vae, graph.frames(), 1.0, 3, "none")


def test_decode_with_another_vae(pack, nothing_loads):
    samples = {"samples": torch.zeros(1, 4, 10, 16, 24)}
    with pytest.raises(pack.uav_core.InputError, match="not a temporal VAE"):
        pack.nodes.sampling.decode.VAEDecode.execute(
            samples, object(), graph.frames(), 1.0, 3, "none"
        )


def test_native_decode_of_vae_video_says_what_to_use(pack, nothing_loads, vae):
    with pytest.raises(pack.uav_core.InputError, match="Temporal VAE Decode"):
        vae.decode(torch.zeros(1, 4, 3, 16, 24))


def test_another_model(pack, nothing_loads):
    with pytest.raises(pack.uav_core.InputError, match="temporal U-Net"):
        pack.nodes.sampling.sample.Segments.execute(object(), 8, 2)


def test_flow_model_that_is_none(pack, nothing_loads):
    with pytest.raises(pack.uav_core.InputError, match="not a RAFT"):
        pack.nodes.sampling.propagate.Propagation.execute(
            object(), graph.frames(), "1", 0.5, 0.001, 0.05, 20
        )


def test_swapped_files(pack, nothing_loads, models):
    own = models / "upscale_a_video"
    wrong = pack.uav_core.WrongCheckpointError
    with pytest.raises(wrong, match="vae_video"):
        pack.nodes.model.unet.load_unet(str(own / "vae_video.safetensors"))
    with pytest.raises(wrong, match="U-Net"):
        pack.nodes.model.vae.VideoVAE(str(own / "unet.safetensors"))
    with pytest.raises(wrong, match="U-Net"):
        pack.nodes.loaders.load.load_text_encoder(str(own / "unet.safetensors"))


def broken(value: float) -> torch.Tensor:
    """Frames of which frame 1 has a few pixels of ``value``."""
    images = graph.frames()
    images[1, 5:8, 5:8] = value
    return images


IMAGE_NODES = {
    "conditioning": lambda n, x: graph.conditioned(n, x),
    "decode": lambda n, x: n.nodes.sampling.decode.VAEDecode.execute(
        {"samples": torch.zeros(1, 4, *x.shape[:3])}, object(), x, 1.0, 3, "none"
    ),
    "propagation": lambda n, x: n.nodes.sampling.propagate.Propagation.execute(
        n.nodes.loaders.load.flow_patcher(n.uav_core.flow.builtin.BuiltinFlow()),
        x,
        "1",
        0.5,
        0.001,
        0.05,
    ),
    "alpha": lambda n, x: n.nodes.frames.alpha.UpscaleAlpha.execute(x[..., 0], x),
    "size": lambda n, x: n.nodes.frames.output_size.SetOutputSize.execute(
        x, n.nodes.frames.output_size.AFTER, target="factor", factor=2.0
    ),
    "flow": lambda n, x: n.nodes.look.show.ShowFlow.execute(x),
    "difference": lambda n, x: n.nodes.look.show.ShowDifference.execute(x, x, 0.0, "a, b"),
    "before": lambda n, x: n.nodes.look.show.ShowBeforeAfter.execute(x, x, 0.5),
    "strip": lambda n, x: n.nodes.look.scene_strip.SceneStrip.execute(x, "built-in", 60),
    "preview": lambda n, x: n.nodes.look.piece.read_piece(x, 0, 2, 0, 0, 16, 16),
}


@pytest.mark.parametrize("node", IMAGE_NODES)
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (broken(float("nan")), r"Frame 1 of the \w+ has \d+ times NaN"),
        (broken(float("-inf")), r"Frame 1 of the \w+ has \d+ times infinity"),
        (broken(-1.0), r"Frame 1 of the \w+ has values from -1 .*add 1 and divide by 2"),
        (broken(200.0), r"Frame 1 of the \w+ .*divide by 255"),
        (graph.frames().mul(255).byte(), "are uint8: expected fractions"),
    ],
    ids=["nan", "infinity", "from -1", "to 255", "uint8"],
)
def test_values_no_network_can_use(pack, nothing_loads, node, images, message):
    with pytest.raises(pack.uav_core.InputError, match=message):
        IMAGE_NODES[node](pack, images)


def test_slight_overshoots_are_cut_off_and_said(pack, caplog):
    clip = pack.nodes.base.inputs.video_frames(broken(1.2))
    assert clip.max() == 1 and "outside of 0 to 1 are clipped" in caplog.text
    caplog.clear()
    pack.nodes.base.inputs.video_frames(broken(1.001))
    assert not caplog.text


def test_a_latent_that_is_no_number(pack, nothing_loads):
    samples = {"samples": torch.zeros(1, 4, 10, 16, 24)}
    samples["samples"][0, 0, 3, 0, 0] = float("nan")
    with pytest.raises(pack.uav_core.errors.NumericalError, match=r"Frame 3 of the latent.*fp32"):
        pack.nodes.sampling.decode.VAEDecode.execute(
            samples, object(), graph.frames(), 1.0, 3, "none"
        )


def test_a_model_that_overflows_is_named(pack, unet):
    def overflows(apply, given):
        return apply(given["input"], given["timestep"], **given["c"]).fill_(float("inf"))

    model = unet.clone()
    model.set_model_unet_function_wrapper(overflows)
    with pytest.raises(pack.uav_core.errors.NumericalError, match="Frame 0 of the latent"):
        graph.sample(pack, model, graph.frames())
