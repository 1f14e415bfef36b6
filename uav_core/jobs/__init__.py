"""Long video jobs on disk: identity, manifest, lock, cleaning. Standard library only."""

from .clean import JobSummary, clean, list_jobs, remove_job, with_other_weights
from .job import Job
from .lock import JOINING, JobBusyError
from .manifest import DamagedManifestError, Fallback, JobInputs, Manifest, job_id
from .names import FOLDER
from .plan import JobPlan, disk_needed

__all__ = [
    "FOLDER",
    "JOINING",
    "DamagedManifestError",
    "Fallback",
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
    "remove_job",
    "with_other_weights",
]
