"""Named errors. Each message says what arrived, what was expected and what to do."""

from __future__ import annotations


class UpscaleAVideoError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(UpscaleAVideoError, ValueError):
    """An argument (frames, latent, steps, noise level...) cannot be used as given."""


class NumericalError(UpscaleAVideoError, ArithmeticError):
    """A network returned NaN or infinity."""


class MissingPackageError(UpscaleAVideoError, ImportError):
    """An optional package that is needed is not installed."""


class FileError(UpscaleAVideoError):
    """A file or folder cannot be read, written or used."""


class DiskFullError(FileError):
    """The disk has less space than is needed; the message has both numbers."""


class UnsafePathError(FileError, ValueError):
    """A path leads out of its folder, or is not a plain file name on some system."""


class CheckpointError(UpscaleAVideoError, ValueError):
    """A weight file cannot be used; the subclasses say why."""


class UnreadableCheckpointError(CheckpointError):
    """The file is missing, truncated, empty or not a weight file at all."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle has more than plain tensors; loading it could run code."""


class WrongCheckpointError(CheckpointError):
    """A readable weight file belongs to another network than the one asked for."""


class CheckpointMismatchError(CheckpointError):
    """The network is right, but tensors are missing, unexpected or misshapen."""
