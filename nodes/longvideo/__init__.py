"""Nodes for videos of any length."""

from .upscale import LongVideoOptions, UpscaleLongVideo, output_place

__all__ = ["LongVideoOptions", "UpscaleLongVideo", "output_place"]
