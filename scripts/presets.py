"""What the shipped workflow is set to: for the included weights, and for the authors'.

Values by node and input. `make_workflows.py` writes the first into the workflow and names the
second in its note; the demo and the tests switch from the one to the other.
"""

from __future__ import annotations

import sys
from typing import Any

from layout import ROOT

sys.path.append(str(ROOT))
from uav_core import included

MARK = " (included)"

Preset = dict[str, dict[str, Any]]

INCLUDED: Preset = {
    "UpscaleAVideoUNetLoader": {"unet_name": included.UNET + MARK},
    "UpscaleAVideoVAELoader": {"vae_name": included.VAE_VIDEO + MARK},
    "UpscaleAVideoTextEncoderLoader": {"text_encoder_name": included.TEXT + MARK},
    "UpscaleAVideoFlowLoader": {"flow_name": "built-in (no weights)"},
    "UpscaleAVideoConditioning": {"noise_level": included.NOISE_LEVEL},
    "UpscaleAVideoPropagation": {"steps": f"last {included.PROPAGATED}"},
    "UpscaleAVideoSegmentSampler": {"steps": included.STEPS, "guidance": included.GUIDANCE},
    "UpscaleAVideoVAEDecode": {
        "color_fix": included.COLOR_FIX,
        "frames_per_group": included.FRAMES_PER_GROUP,
    },
}

# The names are those that `uav_core.convert` writes.
AUTHORS: Preset = {
    "UpscaleAVideoUNetLoader": {"unet_name": "uav_unet.safetensors"},
    "UpscaleAVideoVAELoader": {"vae_name": "uav_vae_video.safetensors"},
    "UpscaleAVideoTextEncoderLoader": {"text_encoder_name": "uav_text_encoder.safetensors"},
    "UpscaleAVideoFlowLoader": {"flow_name": "uav_flow_raft.safetensors"},
    "UpscaleAVideoConditioning": {"noise_level": 120},
    "UpscaleAVideoPropagation": {"steps": "24,26,28"},
    "UpscaleAVideoSegmentSampler": {"steps": 30, "guidance": 6.0},
    "UpscaleAVideoVAEDecode": {"color_fix": "adain", "frames_per_group": 3},
}


def with_preset(prompt: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """A workflow in API form with the preset's values in its nodes."""
    return {
        key: {**node, "inputs": {**node["inputs"], **preset.get(node["class_type"], {})}}
        for key, node in prompt.items()
    }
