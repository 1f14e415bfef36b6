"""The temporal U-Net as a first-class ComfyUI MODEL."""

from __future__ import annotations

import functools
from typing import Any, cast

import comfy.conds
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...uav_core.devices.layout import CHANNELS_LAST, channels_last
from ...uav_core.errors import InputError
from ...uav_core.models.attention import Attention
from ...uav_core.models.budgets import pass_bytes
from ...uav_core.models.unet import TemporalUNet, UNetParams
from ...uav_core.sampling.pipeline import NULL_TEXT_KEY, check_null_text
from ...uav_core.weights.checkpoints import check_keys, load_checkpoint
from ...uav_core.weights.included import TEXT
from ..base.files import MARK
from ..base.runtime import device_room
from .latent import VideoLatent, latent_format
from .patcher import give_weights, new_patcher

# Keys of a conditioning's options: 'Low-Res Conditioning' sets them, the model reads them.
LOW_RES, NOISE_LEVEL, NULL_TEXT = "uav_low_res", "uav_noise_level", "uav_null_text"


class DiffusionModel(TemporalUNet):
    """The core U-Net with the ``forward`` signature of ComfyUI's diffusion models."""

    def __init__(
        self, params: UNetParams, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__(params, operations=operations, dtype=dtype, device=device)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """``x`` (b, 7, t, h, w): latent and noised low-resolution frames; ``y``: noise level."""
        options = transformer_options or {}
        return comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._evaluate,
            self,
            comfy.patcher_extension.get_all_wrappers(
                comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options
            ),
        ).execute(x, timesteps, context, y, control, options, **kwargs)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """``nn.Module.to`` that also takes the memory format of --force-channels-last.

        PyTorch's own method applies that format to 4-D weights, and fails on 5-D ones.
        """
        if kwargs.get("memory_format") is torch.channels_last:
            for parameter in self.parameters():
                if parameter.ndim in CHANNELS_LAST:
                    parameter.data = channels_last(parameter.data)
            kwargs.pop("memory_format")
        return super().to(*args, **kwargs) if args or kwargs else self

    def _evaluate(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor,
        control: Any,
        transformer_options: dict[str, Any],
        **kwargs: Any,
    ) -> Tensor:
        attend = cast(
            Attention,
            functools.partial(optimized_attention, transformer_options=transformer_options),
        )
        channels = self.params.out_channels
        return super().forward(
            x[:, :channels], timesteps, x[:, channels:], context, y.flatten(), attend
        )


class ModelConfig(comfy.supported_models.SD_X4Upscaler):
    """The settings by which ComfyUI builds the model and budgets its memory."""

    # Empty, as the parent's entries are for the image U-Net and would be passed to ours.
    unet_extra_config = {}  # noqa: RUF012
    latent_format = VideoLatent
    supported_inference_dtypes = [torch.float16, torch.bfloat16, torch.float32]  # noqa: RUF012

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> Any:
        return UpscaleAVideoModel(self, device=device)


class UpscaleAVideoModel(comfy.model_base.SD_X4Upscaler):
    """BaseModel of the temporal U-Net: v-prediction, conditioned on low-resolution frames."""

    def __init__(self, model_config: ModelConfig, device: Any = None) -> None:
        # SD_X4Upscaler.__init__ would build the image U-Net. Its noise augmentor is not needed
        # either, as the frames arrive noised.
        comfy.model_base.BaseModel.__init__(
            self,
            model_config,
            comfy.model_base.ModelType.V_PREDICTION,
            device=device,
            unet_model=cast(Any, DiffusionModel),
        )
        self.null_text_embedding: Tensor | None = None
        self.weight_bytes = 0
        """Size of the network's weights on the device."""
        self.stamp: tuple[int, int] | None = None
        """``stamp`` of the file when the weights were read."""

    def memory_required(self, input_shape: Any, cond_shapes: Any = None) -> float:
        """Bytes that ComfyUI should keep free for a pass over clips (b, c, t, h, w).

        The need of whole layers, or the smallest need if whole layers cannot fit.
        """
        room = device_room(mm.get_torch_device())
        whole = self._pass_bytes(input_shape, spared=False)
        if not room or whole + self.weight_bytes <= room:
            return whole
        return self._pass_bytes(input_shape, spared=True)

    def least_bytes(self, frames: int, h: int, w: int) -> int:
        """Bytes of a pass over one clip in its most memory-saving way."""
        return self._pass_bytes((1, 0, frames, h, w), spared=True)

    def _pass_bytes(self, shape: Any, spared: bool) -> int:
        each = mm.dtype_size(self.manual_cast_dtype or self.get_dtype())
        return pass_bytes(self.params, shape[0], *shape[2:], each=each, spared=spared)

    @property
    def params(self) -> UNetParams:
        """Sizes of the network."""
        return cast(DiffusionModel, self.diffusion_model).params

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Low-resolution frames, noise level and text of one conditioning."""
        noise, device = kwargs["noise"], kwargs["device"]
        low_res, level = kwargs.get(LOW_RES), kwargs.get(NOISE_LEVEL)
        if low_res is None or level is None:
            raise InputError(NOT_CONDITIONED)
        if low_res.shape[2:] != noise.shape[2:]:
            raise InputError(
                f"The conditioning has frames of (t, h, w) {tuple(low_res.shape[2:])}, but the "
                f"latent is {tuple(noise.shape[2:])}: expected the same. Use the latent and the "
                "conditioning of the same 'Low-Res Conditioning'."
            )
        text = kwargs.get("cross_attn")
        if kwargs.get(NULL_TEXT):
            text = self.null_text(device)
        elif text is not None:
            self.check_text(text)
        return {
            "c_concat": comfy.conds.CONDNoiseShape(low_res.to(device)),
            "y": comfy.conds.CONDRegular(torch.tensor([level], device=device)),
            "c_crossattn": comfy.conds.CONDCrossAttn(text),
        }

    def check_text(self, text: Tensor, name: str = "text") -> None:
        """InputError if an encoded text (called ``name``) was made for another U-Net."""
        if text.shape[-1] != self.params.context_dim:
            raise InputError(
                f"The {name} is {text.shape[-1]} wide, this U-Net expects "
                f"{self.params.context_dim}. Encode it with 'Load Text Encoder "
                f"(Upscale-A-Video)', set to '{TEXT + MARK}' for the included U-Net, or to the "
                "authors' text_encoder for the authors' U-Net. The CLIP of another model does not "
                "work."
            )

    def null_text(self, device: Any) -> Tensor:
        """(1, tokens, dim) of the empty text that came with the weights."""
        if self.null_text_embedding is None:
            raise InputError(
                "The positive or negative text is not connected, but this U-Net includes no "
                "embedding of the empty text. Connect 'Load Text Encoder' and 'CLIP Text Encode' "
                "to 'Low-Res Conditioning'."
            )
        return self.null_text_embedding[None].to(device)

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What ComfyUI's 'ModelSave' writes, and the empty text, which is not in the network.

        ComfyUI's versions take different arguments.
        """
        weights = super().state_dict_for_saving(*args, **kwargs)
        if self.null_text_embedding is not None:
            weights[NULL_TEXT_KEY] = self.null_text_embedding
        return weights


NOT_CONDITIONED = (
    "This model needs the low-resolution frames in addition to the text. Put 'Low-Res "
    "Conditioning' between the text and the sampler, for positive and negative."
)


def load_unet(
    path: str, dtype: torch.dtype | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """A ModelPatcher of the temporal U-Net in ``path``.

    ``dtype`` is that of the weights; if None, ComfyUI chooses one for the device.
    ``disable_dynamic`` asks for a patcher without dynamic memory, as hooks need it.

    Raises a CheckpointError that says what the file is, if it is not a whole temporal U-Net.
    """
    checkpoint = load_checkpoint(path, "unet")
    weights = dict(checkpoint.state_dict)
    null_text = weights.pop(NULL_TEXT_KEY, None)
    params = UNetParams.from_state_dict(weights)
    config = ModelConfig({"params": params})

    load_device = mm.get_torch_device()
    chosen: torch.dtype = dtype or mm.unet_dtype(
        model_params=sum(w.numel() for w in weights.values()),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=weights["conv_in.weight"].dtype,
    )
    cast = mm.unet_manual_cast(chosen, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(chosen, cast)
    # Checked on plain layers, as ComfyUI's may have no names or shapes before loading.
    check_keys(TemporalUNet(params, device="meta"), weights, checkpoint.source)
    model = config.get_model(weights)
    model.latent_format = latent_format(path)
    model.stamp = checkpoint.stamp
    model.weight_bytes = sum(w.numel() for w in weights.values()) * chosen.itemsize
    if null_text is not None:
        model.null_text_embedding = check_null_text(null_text, model.params.context_dim).float()

    patcher = new_patcher(model, load_device, mm.unet_offload_device(), disable_dynamic)
    give_weights(patcher, model.diffusion_model, weights, chosen)
    # Multi-GPU clones and hooks reload the weights through this.
    patcher.cached_patcher_init = (load_unet, (path, dtype))
    return patcher
