"""A manifest that several runs read and write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from .errors import DamagedManifestError
from .lock import JobLock
from .manifest import Manifest
from .manifest_file import manifest_stamp, read_manifest, write_manifest
from .runs import Run

log = logging.getLogger(__name__)


class SharedManifest:
    """The manifest of a job folder as one run sees it; its methods may be called by any thread."""

    def __init__(
        self, folder: Path, run: Run, manifest: Manifest, check_cancelled: Callable[[], None]
    ) -> None:
        self.folder, self.run, self.manifest = folder, run, manifest
        self._check_cancelled = check_cancelled
        self._stamp = manifest_stamp(folder)
        self._guard = threading.RLock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other run reads or writes the manifest meanwhile, and ours is the newest.

        Raises InputError for a run that has left the job, JobFolderError if the folder is gone.
        """
        with self._guard:
            if not self.run.held:
                raise InputError(f"Job {self.manifest.id} is closed. Open it again with Job.open.")
            with JobLock.acquire(self.folder, make=False, check_cancelled=self._check_cancelled):
                if manifest_stamp(self.folder) != self._stamp:
                    self._read()
                yield

    def write(self, *, previous_is_good: bool = True, **fields: Any) -> None:
        """Change fields, and keep the manifest before beside it if that one is good.

        To be called within ``locked``. Raises DiskFullError or JobFolderError.
        """
        manifest = self.manifest.changed(**fields)
        write_manifest(self.folder, manifest, self.manifest if previous_is_good else None)
        self.manifest, self._stamp = manifest, manifest_stamp(self.folder)

    def leave(self) -> None:
        """End this run's part in the job."""
        with self._guard:
            self.run.leave()

    def _read(self) -> None:
        problem = "it is gone"
        try:
            found = read_manifest(self.folder)
        except DamagedManifestError as error:
            found, problem = None, str(error)
        if found is not None and found[1]:
            self.manifest, self._stamp = found[0], manifest_stamp(self.folder)
        else:
            # Damaged behind our back: what we know is the newest there is.
            log.warning("Job %s: its manifest is written anew (%s)", self.manifest.id, problem)
