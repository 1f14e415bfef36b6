"""Named errors. Each message says what arrived, what was expected and what to do."""

from __future__ import annotations


class UpscaleAVideoError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(UpscaleAVideoError, ValueError):
    """An argument (frames, latent, steps, noise level...) that cannot be used as given."""


class NumericalError(UpscaleAVideoError, ArithmeticError):
    """A network gave NaN or infinity."""


class MissingPackageError(UpscaleAVideoError, ImportError):
    """An optional package that was asked for is not installed."""


class FileError(UpscaleAVideoError):
    """A file or folder that cannot be read, written or used."""


class DiskFullError(FileError):
    """Less space on the disk than is needed; the message has both numbers."""


class UnsafePathError(FileError, ValueError):
    """A path that leads out of its folder, or is no plain file name on some system."""


class CheckpointError(UpscaleAVideoError, ValueError):
    """A weight file that cannot be used; the subclasses say why."""


class UnreadableCheckpointError(CheckpointError):
    """The file is missing, truncated, empty or not a weight file at all."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle that holds more than plain tensors; loading it would run code."""


class WrongCheckpointError(CheckpointError):
    """A readable weight file that belongs to another network than the one asked for."""


class CheckpointMismatchError(CheckpointError):
    """The right network, but with missing, unexpected or misshapen tensors."""
