"""A video file of any length into one up to four times as large, in memory that does not grow.

Frames are read, denoised as a wave that runs through each scene, decoded, and encoded in parts; a
crash loses the part under way at most. For a size other than 4x each frame is resized by itself,
before it is denoised or after it is decoded.
"""

from .engine import CoreEngine, Engine
from .params import LongVideoParams
from .report import Report
from .run import LongVideo
from .source import Resizing, Span

__all__ = ["CoreEngine", "Engine", "LongVideo", "LongVideoParams", "Report", "Resizing", "Span"]
