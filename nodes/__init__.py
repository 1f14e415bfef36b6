"""ComfyUI nodes; the only folder that imports ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .base import files
from .frames import alpha, detail, matte, output_size
from .loaders import load, weights
from .longvideo import jobs, simple, upscale
from .longvideo import video_file as video_file  # for programs that write a VIDEO
from .look import compare, preview_crop, scene_strip, show
from .sampling import condition, decode, presets, propagate, sample, tiles

NODES: tuple[type[io.ComfyNode], ...] = (
    simple.UpscaleVideo,
    load.LoadAll,
    load.LoadUNet,
    load.LoadVAE,
    load.LoadTextEncoder,
    load.LoadFlowModel,
    presets.Settings,
    condition.LowResConditioning,
    propagate.Propagation,
    sample.SegmentSampler,
    decode.VAEDecode,
    sample.Sigmas,
    sample.Sampler,
    sample.Segments,
    tiles.Tiles,
    detail.Detail,
    alpha.UpscaleAlpha,
    matte.UpscaleMatte,
    output_size.SetOutputSize,
    output_size.FinishOutputSize,
    preview_crop.PreviewCrop,
    compare.Compare,
    show.ShowFlow,
    show.ShowDifference,
    show.ShowBeforeAfter,
    scene_strip.SceneStrip,
    upscale.UpscaleLongVideo,
    upscale.LongVideoOptions,
    jobs.LongVideoJobs,
    weights.CheckWeights,
)


class UpscaleAVideoExtension(ComfyExtension):
    """The pack's entry for ComfyUI."""

    async def on_load(self) -> None:
        files.place_samples()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> ComfyExtension:
    """Called by ComfyUI to get the nodes."""
    return UpscaleAVideoExtension()
