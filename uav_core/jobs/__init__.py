"""Long video jobs on disk: identity, manifest, folder, space, cleaning. Standard library only."""

from .clean import JobSummary, clean, list_jobs, remove_job, with_other_weights
from .errors import (
    DamagedManifestError,
    DiskFullError,
    JobBusyError,
    JobError,
    JobFolderError,
    UnsafePathError,
)
from .files import check_space, check_target, disk_needed, human_bytes
from .identity import JobInputs, job_id
from .job import Job
from .manifest import Fallback, Manifest, OutputRecord, PartRecord, StateRecord
from .names import FOLDER, MOST_OUTPUT_BYTES, inside, output_name, plain_name
from .plan import JobPlan

__all__ = [
    "FOLDER",
    "MOST_OUTPUT_BYTES",
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
    "list_jobs",
    "output_name",
    "plain_name",
    "remove_job",
    "with_other_weights",
]
