"""Spatial tiles of a MODEL: an evaluation is blended from overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.callbacks import ignore
from ...uav_core.sampling.ladder import Ladder, Setting, StepDown, from_tile, sample_ladder
from ...uav_core.sampling.tiles import OVERLAP, plan_tiles, tiled_predict
from ..base.runtime import check_cancelled, device_room, stepping_down
from ..base.schema import SAMPLING, schema
from ..base.settings import tile_overlap_input
from .caches import part_by_part

KEY = "upscale_a_video_tiles"
_PREPARE = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING

Wrapper = Callable[[Callable[..., Tensor], dict[str, Any]], Tensor]


class TiledModel:
    """A ``model_function_wrapper`` that runs the model on one tile after the other.

    Latent and frames are cropped alike, so noise and frames stay aligned. A picture not larger
    than a tile runs whole. If memory runs out, the pass is repeated with less at once, and all
    later passes of the run use that setting.
    """

    def __init__(
        self,
        tile: int | None,
        overlap: int,
        around: Wrapper | None = None,
        on_step: Callable[[StepDown], None] = ignore,
    ) -> None:
        """``tile`` None is the whole picture.

        ``around`` is the wrapper that the model had before; it is called once for all tiles.
        ``on_step`` is called with every step down.
        """
        self.tile, self.overlap, self.around, self.on_step = tile, overlap, around, on_step
        self._ladders: dict[tuple[int, int], Ladder] = {}
        """Ladders by (h, w) of the picture."""

    def __call__(self, apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        return stepping_down(
            lambda setting: self.run(setting, apply_model, args),
            self._ladder(*args["input"].shape[2:]),
            self.on_step,
        )

    def _ladder(self, frames: int, h: int, w: int) -> Ladder:
        if (h, w) not in self._ladders:
            ladder = sample_ladder(frames, h, w, self.overlap or OVERLAP)
            if self.tile and self.tile < max(h, w):
                ladder = from_tile(ladder, self.tile, self.overlap)
            self._ladders[h, w] = ladder
        return self._ladders[h, w]

    def run(
        self, setting: Setting, apply_model: Callable[..., Tensor], args: dict[str, Any]
    ) -> Tensor:
        """One pass with the tiles of ``setting`` or with our own, whichever are smaller."""
        tile, overlap = setting.tile, setting.overlap
        if tile is None or (self.tile is not None and self.tile < tile):
            tile, overlap = self.tile, self.overlap
        plan = plan_tiles(args["input"].shape[-2:], tile, overlap)
        one = part_by_part(apply_model) if len(plan) > 1 else apply_model
        predict = tiled_predict(one, plan, check_cancelled)
        if self.around is not None:
            return self.around(predict, args)
        return predict(args["input"], args["timestep"], **args["c"])

    def prepare_sampling(
        self, executor: Callable[..., Any], model: Any, noise_shape: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Let ComfyUI budget the memory of a tile, not that of the frame.

        If the chosen tiles cannot fit, step down to smaller ones first.
        """
        self._ladders.clear()  # every run starts from the first setting
        shape = list(noise_shape)
        # Newer ComfyUI packs several latents of one model into three dims; ours has five.
        if len(shape) == 5:
            frames, h, w = shape[2:]
            ladder, least = self._ladder(frames, h, w), getattr(model.model, "least_bytes", None)
            if least is not None:
                step = ladder.foresee(
                    lambda setting: least(frames, *setting.size(h, w)),
                    device_room(model.load_device),
                )
                if step is not None:
                    self.on_step(step)
            shape[-2:] = ladder.setting.size(h, w)
        return executor(model, shape, *args, **kwargs)


def with_tiles(
    model: comfy.model_patcher.ModelPatcher, tile: int, overlap: int = OVERLAP
) -> comfy.model_patcher.ModelPatcher:
    """A clone of ``model`` that runs in square tiles of ``tile`` low-resolution pixels a side.

    Neighbours share ``overlap`` pixels. Tiles set earlier are replaced; any other wrapper stays
    and is called around the tiles. Raises InputError for an overlap too large for a tile.
    """
    plan_tiles((tile, tile), tile, overlap)
    model = model.clone()
    _put(model, TiledModel(tile, overlap, tiles_on(model.model_options).around))
    return model


def step_down_on(
    model: comfy.model_patcher.ModelPatcher, on_step: Callable[[StepDown], None] = ignore
) -> None:
    """Make ``model`` (in place) go on with less at once if memory runs out; it keeps its tiles."""
    own = tiles_on(model.model_options)
    _put(model, TiledModel(own.tile, own.overlap, own.around, on_step))


def tiles_on(model_options: Mapping[str, Any]) -> TiledModel:
    """The tiles of a model; if it has none, a new TiledModel of the whole picture."""
    found = model_options.get("model_function_wrapper")
    return found if isinstance(found, TiledModel) else TiledModel(None, 0, found)


def _put(model: comfy.model_patcher.ModelPatcher, tiled: TiledModel) -> None:
    options: dict[str, Any] = model.model_options
    options["model_function_wrapper"] = tiled
    model.remove_wrappers_with_key(_PREPARE, KEY)
    model.add_wrapper_with_key(_PREPARE, KEY, tiled.prepare_sampling)


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
            "step. Large frames then fit on small GPUs, without seams.",
            inputs=[
                io.Model.Input("model", tooltip="The temporal U-Net."),
                io.Int.Input(
                    "tile",
                    default=128,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Tile size, in pixels of the input. Smaller tiles take less memory, "
                    "but the model sees less context.",
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
