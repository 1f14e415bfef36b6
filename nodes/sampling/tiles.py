"""Spatial tiles of a MODEL: every evaluation as a blend of overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.sampling.tiles import OVERLAP, square_tiles, tiled_predict, tiles_of
from ..base.runtime import check_cancelled
from ..base.schema import SAMPLING, schema
from ..base.settings import tile_overlap_input
from .caches import part_by_part

KEY = "upscale_a_video_tiles"
_PREPARE = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING

Wrapper = Callable[[Callable[..., Tensor], dict[str, Any]], Tensor]


class TiledModel:
    """A ``model_function_wrapper`` that runs the model on one tile after the other.

    Latent and frames are cropped alike, so noise and frames keep their places. A picture not
    larger than a tile runs as if this were not there.
    """

    def __init__(self, tile: int, overlap: int, around: Wrapper | None = None) -> None:
        """``around`` is the wrapper that was there before: it sees one call for all tiles."""
        self.tile, self.overlap, self.around = tile, overlap, around

    def __call__(self, apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        plan = tiles_of(args["input"], self.tile, self.overlap)
        one = part_by_part(apply_model) if len(plan) > 1 else apply_model
        predict = tiled_predict(one, plan, check_cancelled)
        if self.around is not None:
            return self.around(predict, args)
        return predict(args["input"], args["timestep"], **args["c"])

    def prepare_sampling(
        self, executor: Callable[..., Any], model: Any, noise_shape: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Let ComfyUI budget the memory of a tile, not that of the frame."""
        shape = list(noise_shape)
        # Newer ComfyUI packs several latents of one model into three dims; ours never is.
        if len(shape) == 5:
            shape[-2:] = (min(side, self.tile) for side in shape[-2:])
        return executor(model, shape, *args, **kwargs)


def with_tiles(
    model: comfy.model_patcher.ModelPatcher, tile: int, overlap: int = OVERLAP
) -> comfy.model_patcher.ModelPatcher:
    """A clone of ``model`` that runs in square tiles of ``tile`` low-resolution pixels a side.

    Neighbours share ``overlap`` pixels. Tiles set earlier are replaced, any other wrapper stays,
    around the tiles. Raises InputError for an overlap that leaves nothing of a tile.
    """
    square_tiles(tile, tile, tile, overlap)
    model = model.clone()
    options: dict[str, Any] = model.model_options
    around = options.get("model_function_wrapper")
    if isinstance(around, TiledModel):
        around = around.around
    tiled = options["model_function_wrapper"] = TiledModel(tile, overlap, around)
    model.remove_wrappers_with_key(_PREPARE, KEY)
    model.add_wrapper_with_key(_PREPARE, KEY, tiled.prepare_sampling)
    return model


class Tiles(io.ComfyNode):
    """MODEL -> MODEL that runs in tiles."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoTiles",
            "Tiles on Model (Upscale-A-Video)",
            ("tiled sampling", "low vram", "tiled diffusion"),
            category=SAMPLING,
            description="Runs the temporal U-Net on overlapping tiles that are blended at every "
            "step: large frames on small cards, without seams.",
            inputs=[
                io.Model.Input("model", tooltip="The temporal U-Net."),
                io.Int.Input(
                    "tile",
                    default=128,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Side of a tile, in pixels of the input. Smaller takes less memory, "
                    "and the model sees less around.",
                ),
                tile_overlap_input("overlap"),
            ],
            outputs=[io.Model.Output(tooltip="The same model, run in tiles; for any sampler.")],
        )

    @classmethod
    def execute(
        cls, model: comfy.model_patcher.ModelPatcher, tile: int, overlap: int
    ) -> io.NodeOutput:
        return io.NodeOutput(with_tiles(model, tile, overlap))
