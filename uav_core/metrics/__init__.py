"""Measures of upscaled clips: steady over time, joints, likeness to a reference.

Clips are (1,3,t,h,w) in [-1, 1] as everywhere in the core; differences are taken in [0, 1].
"""

from .compare import Comparison, compare
from .fidelity import FIDELITY, fidelity, gmsd, haarpsi, psnr, ssim
from .joints import group_borders, joint_borders, segment_borders, spatial_jump, temporal_jump
from .motion import Motion, estimate_motion, visible, warping_error
from .pictures import detail, temporal_profile

__all__ = [
    "FIDELITY",
    "Comparison",
    "Motion",
    "compare",
    "detail",
    "estimate_motion",
    "fidelity",
    "gmsd",
    "group_borders",
    "haarpsi",
    "joint_borders",
    "psnr",
    "segment_borders",
    "spatial_jump",
    "ssim",
    "temporal_jump",
    "temporal_profile",
    "visible",
    "warping_error",
]
