"""Long video jobs on disk: identity, manifest, folder, space, cleaning. Standard library only."""

from .clean import JobSummary, clean, list_jobs, remove_job, with_other_weights
from .disk import check_space, disk_needed, human_bytes
from .errors import (
    DamagedManifestError,
    DiskFullError,
    JobBusyError,
    JobError,
    JobFolderError,
    UnsafePathError,
)
from .files import check_target
from .folder import Job
from .identity import JobInputs, job_id, known_hash, weights_hash
from .manifest import Fallback, Manifest, OutputRecord, PartRecord, StateRecord
from .names import FOLDER
from .paths import inside, output_name, plain_name
from .plan import JobPlan

__all__ = [
    "FOLDER",
    "DamagedManifestError",
    "DiskFullError",
    "Fallback",
    "Job",
    "JobBusyError",
    "JobError",
    "JobFolderError",
    "JobInputs",
    "JobPlan",
    "JobSummary",
    "Manifest",
    "OutputRecord",
    "PartRecord",
    "StateRecord",
    "UnsafePathError",
    "check_space",
    "check_target",
    "clean",
    "disk_needed",
    "human_bytes",
    "inside",
    "job_id",
    "known_hash",
    "list_jobs",
    "output_name",
    "plain_name",
    "remove_job",
    "weights_hash",
    "with_other_weights",
]
