"""Check of the weight files in ComfyUI's model folders: which exist, what each is, and if whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ...uav_core.weights.check import table
from ...uav_core.weights.survey import folder_names, survey
from ..base.runtime import check_cancelled, progress_bar, show_status
from ..base.schema import LOADERS, schema


class CheckWeights(io.ComfyNode):
    """ComfyUI's model folders -> a table."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoCheckWeights",
            "Check Weights (Upscale-A-Video)",
            ("model check", "missing models", "download weights", "sha256"),
            category=LOADERS,
            description="Shows which files of the authors' release are in your model folders, "
            "whether they are complete, and where to get and put the missing ones. Files are "
            "recognised by content, not by name.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Boolean.Input(
                    "checksums",
                    default=True,
                    tooltip="Read every file of the release completely and show its SHA-256. The "
                    "first time takes seconds per gigabyte; the result is reused until the file "
                    "changes.",
                ),
            ],
            outputs=[io.String.Output(display_name="table", tooltip="One line for each file.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        # Files can change while the inputs do not, so run every time.
        return time.time()

    @classmethod
    def execute(cls, checksums: bool) -> io.NodeOutput:
        folders = {
            name: [Path(folder) for folder in folder_paths.get_folder_paths(name)]
            for name in folder_names()
        }
        found = survey(
            folders,
            checksums=checksums,
            progress=progress_bar(1),
            check_cancelled=check_cancelled,
        )
        text = table(found)
        # The page shows result texts only on ComfyUI's own nodes, so send it as the status.
        show_status(cls, text)
        return io.NodeOutput(text, ui=ui.PreviewText(text))
