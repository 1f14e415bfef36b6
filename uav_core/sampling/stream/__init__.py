"""Denoising a scene of any length in bounded memory, frames coming out in order.

``pipeline.sample`` finishes a step on the whole clip before it begins the next. A segment's next
step needs only its own frames, though: those of the segments that overlap it. Here the passes run
diagonally, always at the deepest step that has a segment ready, so that only a wave of frames is
under way at a time. Every pass sees the same tensors as there, and the bits are the same.
"""

from ..ddim import DDIM, DenoisedDDIM, VelocityDDIM
from .latents import LatentStream
from .params import StreamParams
from .state import DamagedStateError, StreamState, load_state, save_state

__all__ = [
    "DDIM",
    "DamagedStateError",
    "DenoisedDDIM",
    "LatentStream",
    "StreamParams",
    "StreamState",
    "VelocityDDIM",
    "load_state",
    "save_state",
]
