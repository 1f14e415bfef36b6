"""The live preview: the right colours, and the segment that is being made."""

from __future__ import annotations

import av
import graph
import numpy as np
import pytest
import torch

from uav_core.weights import included


@pytest.fixture
def previews(pack, monkeypatch):
    """Previews on, as they are not by default."""
    import latent_preview

    monkeypatch.setattr(
        latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB
    )


@pytest.fixture
def sent(pack, monkeypatch):
    """What goes to the page: (done, total, picture or None)."""
    seen = []

    def bar(total):
        return lambda done, total, preview=None: seen.append((done, total, preview))

    monkeypatch.setattr(pack.nodes.sampling.progress, "progress_bar", bar)
    return seen


def original():
    """Part of a frame of the sample clip, IMAGE (1, 96, 128, 3)."""
    with av.open(str(included.FOLDER.parent / "assets" / "sample_x4.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return torch.from_numpy(frame[100:196, 130:258]).float().div(255)[None]


def test_colours_are_those_of_the_included_vae(pack, previews):
    """Fails when the weights were changed and scripts/pictures/fit_preview.py was not run again."""
    import latent_preview

    picture = original()
    vae = pack.nodes.loaders.load.LoadVAE.execute(f"{included.VAE_VIDEO} (included)").result[0]
    unet = pack.nodes.loaders.load.LoadUNet.execute(f"{included.UNET} (included)", "fp32").result[0]
    latent = unet.model.process_latent_in(vae.encode(picture))
    small = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 4)[0].movedim(0, -1)

    def error(latent_format):
        previewer = latent_preview.get_previewer("cpu", latent_format)
        assert previewer is not None
        shown = previewer.decode_latent_to_preview_image("JPEG", latent)[1]
        shown = torch.from_numpy(np.array(shown)).float().div(255)
        return float((shown - small).abs().mean())

    assert error(unet.model.latent_format) < 0.06
    assert error(pack.nodes.model.latent.VideoLatent()) > 0.15, "the authors' colours do not fit"


def test_other_weights_keep_the_native_colours(pack, unet):
    import comfy.latent_formats

    native = comfy.latent_formats.SD_X4().latent_rgb_factors
    assert unet.model.latent_format.latent_rgb_factors == native


def test_every_segment_is_shown_once_a_step(pack, unet, previews, sent):
    graph.sample(pack, unet, graph.frames(14), guidance=3.0)
    pictures = [preview[1] for _, _, preview in sent]
    assert [done for done, _, _ in sent] == [1, 2, 3, 4]  # two segments, two steps
    assert {picture.size for picture in pictures} == {(graph.W, graph.H)}
    assert pictures[2].tobytes() != pictures[3].tobytes()


def test_the_picture_is_of_the_segments_middle(pack, unet, previews, monkeypatch):
    """With guidance: what the sampler gets, not the positive half."""
    shown, steps = [], []
    progress = pack.nodes.sampling.progress.SegmentProgress
    monkeypatch.setattr(progress, "preview", lambda self, x0: shown.append(x0.clone()))
    monkeypatch.setattr(progress, "step", lambda self, step, x0, *_: steps.append(x0.clone()))
    graph.sample(pack, unet, graph.frames(14), guidance=3.0, steps=1, overlap=2)
    first, second = shown
    assert first.shape == second.shape == (1, 4, 8, graph.H, graph.W)
    (whole,) = steps
    torch.testing.assert_close(first[:, :, :6], whole[:, :, :6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second[:, :, 2:], whole[:, :, 8:], rtol=1e-4, atol=1e-4)
    middle = pack.nodes.model.latent.middle_frame
    assert torch.equal(middle(first), first[:, :, 4:5])
    assert middle(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)


def test_a_clip_of_one_segment_is_shown_as_well(pack, unet, previews, sent):
    graph.sample(pack, unet, graph.frames(3))
    assert [(done, total) for done, total, _ in sent] == [(1, 2), (2, 2)]
    assert all(preview is not None for _, _, preview in sent)


def test_flow_and_sampling_are_one_bar(pack, unet, sent):
    """Which never goes back; flow that is kept from another run takes none of it."""
    images = graph.frames(14)
    flow = pack.nodes.loaders.load.flow_patcher(pack.uav_core.flow.builtin.BuiltinFlow())
    plan = pack.nodes.sampling.propagate.FlowPropagation(
        flow,
        pack.nodes.base.inputs.video_frames(images),
        "1",
        pack.uav_core.sampling.propagation.PropagationParams(),
        2,
    )
    for _ in range(2):
        sent.clear()
        graph.sample(pack, unet, images, propagation=plan)
        done, totals = [at for at, _, _ in sent], {total for _, total, _ in sent}
        assert done == sorted(done) and done[0] == 1 and totals == {done[-1]}
    assert done == [1, 2, 3, 4]


def test_without_previews_there_is_progress_alone(pack, unet, sent):
    graph.sample(pack, unet, graph.frames(3))
    assert [preview for _, _, preview in sent] == [None, None]


def test_passes_are_counted(pack, unet):
    positive, negative, latent = graph.conditioned(pack, graph.frames(14))
    for guidance in (1.0, 3.0):
        passes = []
        pack.nodes.sampling.sample.sample_segments(
            unet,
            positive,
            negative,
            latent["samples"],
            torch.zeros_like(latent["samples"]),
            steps=2,
            guidance=guidance,
            on_pass=lambda made=passes: made.append(1),
        )
        assert len(passes) == 4
