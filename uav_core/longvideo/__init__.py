"""Upscales a video file of any length up to four times, in memory that does not grow with it.

Frames are read, denoised in a wave that runs through each scene, decoded, and encoded in parts; a
crash loses at most the part under way. For a size other than 4x each frame is resized on its own,
before it is denoised or after it is decoded.
"""

from .engine import CoreEngine, Engine
from .params import LongVideoParams
from .report import Report
from .run import LongVideo
from .source import Resizing, Span

__all__ = ["CoreEngine", "Engine", "LongVideo", "LongVideoParams", "Report", "Resizing", "Span"]
