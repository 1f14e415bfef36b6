"""A video file of any length into one four times as large, in memory that does not grow with it.

Frames are read, denoised as a wave that runs through each scene, decoded, and encoded in parts; a
crash loses the part under way at most.
"""

from .engine import CoreEngine, Engine
from .params import LongVideoParams
from .report import Report
from .run import LongVideo
from .span import Span

__all__ = ["CoreEngine", "Engine", "LongVideo", "LongVideoParams", "Report", "Span"]
