"""Settings of the shipped workflows: for the included weights, and for the authors'.

The values are by node and input. `make.py` writes those of the included weights into the workflows
and names the authors' in their notes; the demo and the tests switch between them. A workflow with
the node Settings has the values there, others have them in the stages.
"""

from __future__ import annotations

import sys
from typing import Any

from scripts.env.layout import ROOT

sys.path.append(str(ROOT))
from uav_core.sampling import presets as quality_presets
from uav_core.weights import included

MARK = " (included)"

Preset = dict[str, dict[str, Any]]
SETTINGS = "UpscaleAVideoSettings"


def numbers(weights: str) -> Preset:
    """The values for a kind of weights, for the node Settings and for each stage."""
    values = quality_presets.settings(weights)
    balanced = quality_presets.BALANCED
    return {
        SETTINGS: {"weights": weights, "look": balanced, "speed": balanced, **values},
        "UpscaleAVideoConditioning": {"noise_level": values["noise_level"]},
        "UpscaleAVideoPropagation": {
            "steps": values["propagation_steps"],
            "strength": values["propagation_strength"],
        },
        "UpscaleAVideoSegmentSampler": {
            "steps": values["steps"],
            "guidance": values["guidance"],
        },
    }


INCLUDED: Preset = {
    "UpscaleAVideoUNetLoader": {"unet_name": included.UNET + MARK},
    "UpscaleAVideoVAELoader": {"vae_name": included.VAE_VIDEO + MARK},
    "UpscaleAVideoTextEncoderLoader": {"text_encoder_name": included.TEXT + MARK},
    "UpscaleAVideoFlowLoader": {"flow_name": "built-in (no weights)"},
    **numbers(quality_presets.INCLUDED),
    "UpscaleAVideoVAEDecode": quality_presets.FIXED[quality_presets.INCLUDED],
}

# File names as `uav_core.convert` writes them.
AUTHORS: Preset = {
    "UpscaleAVideoUNetLoader": {"unet_name": "uav_unet.safetensors"},
    "UpscaleAVideoVAELoader": {"vae_name": "uav_vae_video.safetensors"},
    "UpscaleAVideoTextEncoderLoader": {"text_encoder_name": "uav_text_encoder.safetensors"},
    "UpscaleAVideoFlowLoader": {"flow_name": "uav_flow_raft.safetensors"},
    **numbers(quality_presets.AUTHORS),
    "UpscaleAVideoVAEDecode": quality_presets.FIXED[quality_presets.AUTHORS],
}


def with_preset(prompt: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """A workflow in API format with the preset's values in its nodes; linked inputs stay."""

    def changed(node: dict[str, Any]) -> dict[str, Any]:
        inputs = node["inputs"]
        values = preset.get(node["class_type"], {}).items()
        free = {name: value for name, value in values if not isinstance(inputs.get(name), list)}
        return {**node, "inputs": {**inputs, **free}}

    return {key: changed(node) for key, node in prompt.items()}
