"""ComfyUI nodes; the only folder that imports ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    alpha,
    compare,
    condition,
    decode,
    jobs,
    load,
    longvideo,
    look,
    output_size,
    presets,
    preview_crop,
    propagate,
    sample,
    scene_strip,
    tiles,
    weights,
)

NODES: tuple[type[io.ComfyNode], ...] = (
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
    alpha.UpscaleAlpha,
    output_size.SetOutputSize,
    output_size.FinishOutputSize,
    preview_crop.PreviewCrop,
    compare.Compare,
    look.ShowFlow,
    look.ShowDifference,
    look.ShowBeforeAfter,
    scene_strip.SceneStrip,
    longvideo.UpscaleLongVideo,
    longvideo.LongVideoOptions,
    jobs.LongVideoJobs,
    weights.CheckWeights,
)


class UpscaleAVideoExtension(ComfyExtension):
    """The pack, as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls to get the nodes."""
    return UpscaleAVideoExtension()
