"""Loaders: temporal U-Net, temporal VAE, text encoder, optical flow."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import folder_paths
import torch
from comfy_api.latest import io

from ...uav_core.errors import CheckpointMismatchError, InputError
from ...uav_core.flow.builtin import BUILTIN_FLOW, BuiltinFlow
from ...uav_core.flow.estimate import load_flow_model
from ...uav_core.sampling import presets
from ...uav_core.weights.checkpoints import Kind, load_checkpoint
from ...uav_core.weights.headers import TEXT_ENCODER_LAYERS
from ...uav_core.weights.text import QualityText
from ..base import files
from ..base.schema import ADVANCED, LOADERS, OpticalFlow, schema
from ..model.text import quality_clip
from ..model.unet import load_unet
from ..model.vae import VideoVAE

log = logging.getLogger(__name__)

files.register_folders()

WEIGHT_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
VAE_PRECISIONS: dict[str, torch.dtype | None] = {
    "default": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# The release leaves out the last of OpenCLIP-H's 24 layers, as its output is not used.
TEXT_LAYERS = 23


def dtype_of(name: str, known: dict[str, torch.dtype | None]) -> torch.dtype | None:
    """The dtype that ``known`` has under ``name``; InputError for an unknown name."""
    if name not in known:
        raise InputError(f"Precision '{name}': expected one of {list(known)}.")
    return known[name]


class LoadUNet(io.ComfyNode):
    """Temporal U-Net file -> MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoUNetLoader",
            "Load Temporal U-Net (Upscale-A-Video)",
            ("load upscale a video model", "temporal unet", "video upscaler loader"),
            category=LOADERS,
            description="Loads the temporal U-Net, the model that generates the detail.",
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=files.choices("diffusion_models"),
                    tooltip="The small model included in the pack, or the authors' unet_video.bin "
                    "or its safetensors, from models/upscale_a_video or models/diffusion_models. "
                    "U-Net, VAE and text encoder must match.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="Precision of the weights. default lets ComfyUI choose for your "
                    "device; fp8 takes half the memory of fp16, with some loss of quality.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The temporal U-Net, a normal ComfyUI MODEL.")],
        )

    @classmethod
    def execute(cls, unet_name: str, weight_dtype: str) -> io.NodeOutput:
        dtype = dtype_of(weight_dtype, WEIGHT_DTYPES)
        with files.opened(unet_name, "diffusion_models") as path:
            return io.NodeOutput(load_unet(path, dtype))


class LoadVAE(io.ComfyNode):
    """Temporal VAE file -> VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoVAELoader",
            "Load Temporal VAE (Upscale-A-Video)",
            ("temporal vae", "video vae loader", "vae_video", "vae_3d"),
            category=LOADERS,
            description="Loads the VAE that decodes latents to frames four times as large.",
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=files.choices("vae"),
                    tooltip="vae_video (uses neighbouring frames and the input; steadier) or "
                    "vae_3d (frame by frame; lighter). Included or the authors', like the U-Net; "
                    "files are in models/upscale_a_video or models/vae.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(VAE_PRECISIONS),
                    default="default",
                    optional=True,
                    **ADVANCED,
                    tooltip="fp32 is exact. fp16 takes half the memory and less time, with a "
                    "difference that is not visible; bf16 differs more. default is fp16 on NVIDIA "
                    "cards that compute it fast, else bf16 or fp32. ComfyUI's --fp16-vae, "
                    "--bf16-vae and --fp32-vae apply. Where there is no CUDA, fp16 means fp32.",
                ),
            ],
            outputs=[io.Vae.Output(tooltip="For 'Temporal VAE Decode'.")],
        )

    @classmethod
    def execute(cls, vae_name: str, precision: str = "fp32") -> io.NodeOutput:
        dtype = dtype_of(precision, VAE_PRECISIONS)
        with files.opened(vae_name, "vae") as path:
            return io.NodeOutput(VideoVAE(path, dtype))


class LoadTextEncoder(io.ComfyNode):
    """Text encoder file or folder -> CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoTextEncoderLoader",
            "Load Text Encoder (Upscale-A-Video)",
            ("openclip h", "sd2 text encoder", "clip loader 23 layers"),
            category=LOADERS,
            description="Loads the text encoder that matches the U-Net, for 'CLIP Text Encode'. "
            "The included one only detects whether a text names flaws.",
            inputs=[
                io.Combo.Input(
                    "text_encoder_name",
                    options=files.choices("text_encoders"),
                    tooltip="For the included U-Net, the included one. For the authors' U-Net, "
                    "their text_encoder folder (Stable Diffusion 2's OpenCLIP-H, 23 layers) or a "
                    "single file from it, in models/upscale_a_video or models/text_encoders.",
                ),
            ],
            outputs=[io.Clip.Output(tooltip="For ComfyUI's 'CLIP Text Encode (Prompt)'.")],
        )

    @classmethod
    def execute(cls, text_encoder_name: str) -> io.NodeOutput:
        with files.opened(text_encoder_name, "text_encoders") as path:
            return io.NodeOutput(load_text_encoder(path))


def load_text_encoder(path: str, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The CLIP of a Hugging Face text encoder (OpenCLIP-H), giving the 23rd layer's output.

    A file with a small U-Net's text embeddings gives a CLIP of these. ``disable_dynamic`` asks for
    a patcher without dynamic memory, where this ComfyUI has it. Raises a CheckpointError if the
    file is neither.
    """
    checkpoint = load_checkpoint(path, (Kind.TEXT_ENCODER, Kind.QUALITY_TEXT))
    if checkpoint.kind is Kind.QUALITY_TEXT:
        log.info(
            "%s only detects whether a text names flaws (blur, noise, worst quality...); it "
            "ignores the rest of the text.",
            checkpoint.source,
        )
        return quality_clip(QualityText.from_state_dict(checkpoint.state_dict, checkpoint.source))
    sd: dict[str, Any] = dict(checkpoint.state_dict)
    config = text_encoder_config(sd, checkpoint.source)
    # The U-Net does not use the pooled output, but ComfyUI warns if this key is missing.
    sd.setdefault("text_projection.weight", torch.eye(config["hidden_size"]))
    clip = comfy.sd.load_text_encoder_state_dicts(
        [sd],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION,
        model_options={"clip_h_model_config": config},
        **({"disable_dynamic": True} if disable_dynamic else {}),
    )
    # Hooks and copies for another device reload the weights through this.
    clip.patcher.cached_patcher_init = (text_encoder_patcher, (path,))
    clip.clip_layer(TEXT_LAYERS - config["num_hidden_layers"] - 1)
    return clip


def text_encoder_patcher(
    path: str, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the text encoder in ``path``, newly loaded."""
    return load_text_encoder(path, disable_dynamic).patcher


def text_encoder_config(sd: dict[str, Any], source: str) -> dict[str, int]:
    """Sizes of an OpenCLIP-H-like text encoder, read off its tensors."""
    stem = "text_model.encoder.layers."
    layers = {int(k[len(stem) :].split(".")[0]) for k in sd if k.startswith(stem)}
    width = sd["text_model.embeddings.token_embedding.weight"].shape[1]
    first = sd.get(f"{stem}0.mlp.fc1.weight")
    whole = layers in TEXT_ENCODER_LAYERS
    if first is None or not whole or width % 64:
        raise CheckpointMismatchError(
            f"{source} holds {len(layers)} layers of width {width}: expected all {TEXT_LAYERS} "
            "layers of Stable Diffusion 2's text encoder (OpenCLIP-H). Use the text_encoder "
            "folder of the release; the encoders of SD 1 and SDXL do not fit, and one shard of "
            "several is not enough."
        )
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": width,
        "intermediate_size": first.shape[0],
        "num_attention_heads": width // 64,
    }


def flow_patcher(model: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """A flow model as OPTICAL_FLOW: a patcher that ComfyUI moves to the device and off it."""
    return comfy.model_patcher.ModelPatcher(
        model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )


class LoadFlowModel(io.ComfyNode):
    """RAFT file, or the built-in estimator -> OPTICAL_FLOW."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoFlowLoader",
            "Load Flow Model (Upscale-A-Video)",
            ("raft loader", "optical flow loader", "raft-things"),
            category=LOADERS,
            description="Loads an optical flow model for flow-guided propagation: the built-in "
            "one, or RAFT from a file. ComfyUI's own 'Load Optical Flow Model' works as well.",
            inputs=[
                io.Combo.Input(
                    "flow_name",
                    options=[BUILTIN_FLOW, *files.choices("optical_flow")],
                    tooltip="The built-in model needs no file. raft-things.pth of the release and "
                    "torchvision's raft_large detect more motion; their files are in "
                    "models/upscale_a_video or models/optical_flow.",
                ),
            ],
            outputs=[OpticalFlow.Output(tooltip="For 'Flow-Guided Propagation'.")],
        )

    @classmethod
    def execute(cls, flow_name: str) -> io.NodeOutput:
        if flow_name == BUILTIN_FLOW:
            model: torch.nn.Module = BuiltinFlow()
        else:
            model = load_flow_model(files.resolve(flow_name, "optical_flow"))
        return io.NodeOutput(flow_patcher(model))


def weights_input(**extra: Any) -> Any:
    """Input for the kind of weights; ``extra`` arguments such as ADVANCED."""
    return io.Combo.Input(
        "weights",
        options=list(presets.LOOKS),
        default=presets.INCLUDED,
        tooltip="The small models included in the pack, or the authors' models from "
        "models/upscale_a_video: larger, slower, for non-commercial use only.",
        **extra,
    )


class LoadAll(io.ComfyNode):
    """One kind of weights -> MODEL, VAE, CLIP and OPTICAL_FLOW that belong together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoLoader",
            "Load Upscale-A-Video",
            ("load all upscale a video models", "checkpoint"),
            category=LOADERS,
            description="Loads all models that an upscale needs: the included ones or the "
            "authors'. To choose single files, use the other four loaders.",
            inputs=[
                weights_input(),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    **ADVANCED,
                    tooltip="Precision of the U-Net, as in 'Load Temporal U-Net'.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The temporal U-Net."),
                io.Vae.Output(tooltip="For 'Temporal VAE Decode'."),
                io.Clip.Output(tooltip="For 'CLIP Text Encode (Prompt)'."),
                OpticalFlow.Output(tooltip="For 'Flow-Guided Propagation'."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, weights: str, **_: Any) -> Any:
        """The files that would be loaded, so that a file added later is noticed."""
        try:
            return names_of(weights)
        except InputError as error:
            return str(error)

    @classmethod
    def execute(cls, weights: str, weight_dtype: str = "default") -> io.NodeOutput:
        unet, vae, text, flow = names_of(weights)
        loaded = (
            LoadUNet.execute(unet, weight_dtype),
            LoadVAE.execute(vae, "default"),
            LoadTextEncoder.execute(text),
            LoadFlowModel.execute(flow),
        )
        return io.NodeOutput(*(node[0] for node in loaded))


def names_of(weights: str) -> tuple[str, str, str, str]:
    """The dropdown entries of a kind of weights: U-Net, VAE, text encoder, flow.

    Without RAFT it is the built-in flow. Raises InputError for an unknown kind, or if a file other
    than RAFT is missing.
    """
    if weights not in presets.LOOKS:
        raise InputError(f"Weights '{weights}': expected one of {list(presets.LOOKS)}.")
    natives = ("diffusion_models", "vae", "text_encoders")
    if weights == presets.INCLUDED:
        # Not out of `choices`: whatever is wrong in the user's folders, these can be loaded.
        unet, vae, text = (files.TAKEN[native].included[0] + files.MARK for native in natives)
        return unet, vae, text, BUILTIN_FLOW
    found: dict[str, Any] = {native: files.preferred(native) for native in natives}
    missing = [native for native, name in found.items() if name is None]
    if missing:
        raise InputError(
            f"Some of the authors' weights are missing: no file for {', '.join(missing)}. Put the "
            "release's unet_video.bin, vae_video.bin and text_encoder folder into "
            f"models/{files.OWN}, press R, and queue again; or choose the included weights."
        )
    unet, vae, text = found.values()
    return unet, vae, text, files.preferred("optical_flow", surely=True) or BUILTIN_FLOW
