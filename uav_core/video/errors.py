"""Named errors of video files. Each message says what arrived, what was expected and what to do."""

from __future__ import annotations

from ..errors import InputError, UpscaleAVideoError


class VideoError(UpscaleAVideoError):
    """Base of all errors with a video file; the subclasses say which."""


class UnreadableVideoError(VideoError, ValueError):
    """The file is missing, empty, cut off, not a video, or has no picture."""


class InputChangedError(VideoError):
    """The source is no longer the file that the run began with."""


class EncodeError(VideoError):
    """The encoder refused the frames or the settings."""


class BadPartError(VideoError):
    """A part is missing, damaged, or does not belong to the other parts."""


class EncodeParamsError(InputError):
    """Settings of the encoder do not fit each other, the size, or this build of PyAV."""
