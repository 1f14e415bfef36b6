"""Named errors of jobs on disk."""

from __future__ import annotations

from .. import errors
from ..errors import UpscaleAVideoError


class JobError(UpscaleAVideoError):
    """Base of every error about a job on disk."""


class JobFolderError(JobError):
    """A folder or file of a job that cannot be read or written."""


class DamagedManifestError(JobError, ValueError):
    """A manifest that is not whole, not ours, or says what cannot be."""


class JobBusyError(JobError):
    """Another live process, or another run in this one, works on the same job."""


class DiskFullError(JobError, errors.DiskFullError):
    """Less space on the disk than is needed; the message has both numbers."""


class UnsafePathError(JobError, ValueError):
    """A path that leads out of its folder, or is no plain file name on some system."""
