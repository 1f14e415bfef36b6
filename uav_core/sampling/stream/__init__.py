"""Denoising a scene of any length in bounded memory; frames come out in order.

``pipeline.sample`` finishes a step on the whole clip before it begins the next. A segment's next
step, however, only needs its own frames, finished in the segments that overlap it. Here the passes
run diagonally, always at the last step that has a segment ready, so that only a wave of frames is
under way at a time. Every pass gets the same tensors as in ``pipeline.sample``, and the bits are
the same.
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
