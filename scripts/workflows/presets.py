"""What the shipped workflows are set to: for the included weights, and for the authors'.

Values by node and input. `make_workflows.py` writes the first into the workflows and names the
second in their notes; the demo and the tests switch from the one to the other. A workflow with the
node Settings has the numbers there, the others have them in the stages.
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
    """The values of a kind of weights, in the node Settings and in each stage."""
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

# The names are those that `uav_core.convert` writes.
AUTHORS: Preset = {
    "UpscaleAVideoUNetLoader": {"unet_name": "uav_unet.safetensors"},
    "UpscaleAVideoVAELoader": {"vae_name": "uav_vae_video.safetensors"},
    "UpscaleAVideoTextEncoderLoader": {"text_encoder_name": "uav_text_encoder.safetensors"},
    "UpscaleAVideoFlowLoader": {"flow_name": "uav_flow_raft.safetensors"},
    **numbers(quality_presets.AUTHORS),
    "UpscaleAVideoVAEDecode": quality_presets.FIXED[quality_presets.AUTHORS],
}


def with_preset(prompt: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """A workflow in API form with the preset's values in its nodes, except where one is linked."""

    def changed(node: dict[str, Any]) -> dict[str, Any]:
        inputs = node["inputs"]
        values = preset.get(node["class_type"], {}).items()
        free = {name: value for name, value in values if not isinstance(inputs.get(name), list)}
        return {**node, "inputs": {**inputs, **free}}

    return {key: changed(node) for key, node in prompt.items()}
