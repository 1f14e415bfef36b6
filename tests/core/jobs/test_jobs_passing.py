"""Folders that are needed for one run, which may be killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.env.layout import ROOT
from uav_core.jobs.passing import passing_folder

KILLED = """
import os, pathlib, signal, sys
from uav_core.jobs.passing import passing_folder
with passing_folder(pathlib.Path(sys.argv[1]), ".frames_") as folder:
    (folder / "large.nut").write_bytes(b"frames")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_gone_afterwards_also_after_an_error(tmp_path):
    with passing_folder(tmp_path, ".frames_") as folder:
        (folder / "file").touch()
    with pytest.raises(ZeroDivisionError), passing_folder(tmp_path, ".frames_"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode < 0
    (left,) = tmp_path.iterdir()
    assert (left / "large.nut").exists()
    with passing_folder(tmp_path, ".frames_") as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_those_of_others_stay(tmp_path):
    """Of runs that are alive, and such as only have the name."""
    own = tmp_path / ".frames_of_the_holidays"
    own.mkdir()
    (own / "1.png").touch()
    with passing_folder(tmp_path, ".frames_") as first, passing_folder(tmp_path, ".frames_") as two:
        assert first != two and first.is_dir() and (own / "1.png").exists()
    assert list(tmp_path.iterdir()) == [own]
