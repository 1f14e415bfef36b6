"""Measures of upscaled clips: steadiness over time, joints, likeness to a reference.

Clips are (1,3,t,h,w) in [-1, 1] as everywhere in the core; differences are taken in [0, 1].
"""

from .compare import Comparison, compare
from .fidelity import fidelity, psnr
from .joints import joint_borders, temporal_jump
from .motion import Motion, estimate_motion, visible, warping_error
from .views import (
    detail,
    difference,
    divided,
    flow_picture,
    longest_motion,
    temporal_profile,
    thumbnail,
    validity,
)
