"""List and clean up the jobs that long videos keep on disk."""

from __future__ import annotations

import os
import time
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ...uav_core.errors import InputError
from ...uav_core.files import human_bytes
from ...uav_core.jobs import FOLDER, JobSummary, clean, list_jobs
from ..base.runtime import show_status
from ..base.schema import LONG_VIDEO, schema

GIGABYTE = 1 << 30
ACTIONS = ("list", "what would be removed", "remove")


class LongVideoJobs(io.ComfyNode):
    """Jobs in ComfyUI's output folder -> a table."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoLongVideoJobs",
            "Manage Long Video Jobs (Upscale-A-Video)",
            ("resume", "clean up", "disk space"),
            category=LONG_VIDEO,
            description="Lists the jobs that 'Upscale Long Video' keeps on disk, and removes those "
            "no longer needed. Finished videos are kept.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    default="list",
                    tooltip="List the jobs first: a removed job cannot be restored, and an "
                    "unfinished one starts from the beginning.",
                ),
                io.Float.Input(
                    "keep_days",
                    default=7.0,
                    min=0.0,
                    max=3650.0,
                    step=0.5,
                    tooltip="Jobs used within this number of days are kept.",
                ),
                io.Boolean.Input(
                    "finished_only",
                    default=True,
                    tooltip="Remove only jobs that are finished.",
                ),
                io.Float.Input(
                    "max_gigabytes",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=1_000_000.0,
                    step=1.0,
                    tooltip="If all jobs together take more GiB than this, the oldest are removed "
                    "too, finished ones first. 0: no limit.",
                ),
            ],
            outputs=[io.String.Output(display_name="table", tooltip="One line for each job.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        # Jobs can change while the inputs do not, so run every time.
        return time.time()

    @classmethod
    def execute(
        cls, action: str, keep_days: float, finished_only: bool, max_gigabytes: float = 0.0
    ) -> io.NodeOutput:
        if action not in ACTIONS:
            raise InputError(f"The action is '{action}': expected one of {', '.join(ACTIONS)}.")
        root = os.path.join(folder_paths.get_output_directory(), FOLDER)
        if action == "list":
            text = table(list_jobs(root), "kept")
        else:
            gone = clean(
                root,
                keep_days=keep_days,
                max_bytes=round(max_gigabytes * GIGABYTE) if max_gigabytes else None,
                finished_only=finished_only,
                dry_run=action != "remove",
            )
            text = table(gone, "removed" if action == "remove" else "would be removed")
        # The page shows result texts only on ComfyUI's own nodes, so send it as the status.
        show_status(cls, text)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def table(jobs: tuple[JobSummary, ...], word: str) -> str:
    """A line for every job, then their number and total size."""
    lines = [
        f"{job.id[:8]}  {job.status}{', running' if job.busy else ''}  "
        f"{job.frames_done}/{job.frames} frames  {human_bytes(job.bytes)}  "
        f"{job.age / 86400:.1f} days old  {job.name}"
        for job in jobs
    ]
    size = human_bytes(sum(job.bytes for job in jobs))
    return "\n".join([*lines, f"{len(jobs)} job{'s' * (len(jobs) != 1)} {word}, {size}."])
