"""Long video jobs on disk: identity, manifest, lock, cleaning. Standard library only."""

from .clean import JobSummary, clean, list_jobs, with_other_weights
from .job import Job
from .lock import JOINING, JobBusyError
from .manifest import DamagedManifestError, JobInputs, Manifest, job_id
from .names import FOLDER
from .plan import JobPlan, disk_needed

__all__ = [
    "FOLDER",
    "JOINING",
    "DamagedManifestError",
    "Job",
    "JobBusyError",
    "JobInputs",
    "JobPlan",
    "JobSummary",
    "Manifest",
    "clean",
    "disk_needed",
    "job_id",
    "list_jobs",
    "with_other_weights",
]
