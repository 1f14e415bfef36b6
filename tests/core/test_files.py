"""Writing files whole, and for everybody who may read the folder."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from scripts.env.layout import ROOT
from uav_core.errors import FileError
from uav_core.files import remove_partials, save_tensors, write_whole, writing
from uav_core.jobs.names import is_half_written
from uav_core.paths import MOST_OUTPUT_BYTES, output_name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_tensors_are_readable_like_any_new_file(tmp_path):
    """A ComfyUI that runs as another user must be able to load them."""
    usual = tmp_path / "usual"
    usual.touch()
    path = tmp_path / "a.safetensors"
    for value in (1.0, 2.0):
        save_tensors(path, {"x": torch.full((2,), value)}, {})
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
        assert load_file(path)["x"].tolist() == [value, value]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "usual"]


TOO_LARGE = """
import resource, signal, sys
from pathlib import Path
import torch
from uav_core.files import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    save_tensors(Path(sys.argv[1]), {"x": torch.zeros(1 << 16)}, {})
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_tensors_that_do_not_fit_are_a_system_error(tmp_path):
    """As on a full disk, where safetensors raises an error of its own."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    command = [sys.executable, "-c", TOO_LARGE, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == errno.EFBIG
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_shared_folder_that_cannot_be_flushed_is_used_all_the_same(tmp_path, monkeypatch, number):
    flush = os.fsync

    def refusing(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        flush(file)

    monkeypatch.setattr(os, "fsync", refusing)
    if number == errno.EIO:
        with pytest.raises(FileError):
            write_whole(tmp_path / "a", b"content")
    else:
        write_whole(tmp_path / "a", b"content")
        assert (tmp_path / "a").read_bytes() == b"content"


def test_two_that_write_one_file_do_not_write_into_each_other(tmp_path):
    path = tmp_path / "a.mp4"
    with writing(path) as first:
        first.write(b"first")
        with pytest.raises(KeyboardInterrupt), writing(path) as second:
            second.write(b"sec")
            second.flush()
            names = [p.name for p in tmp_path.iterdir()]
            assert len(names) == 2 and all(map(is_half_written, names))
            raise KeyboardInterrupt
        write_whole(path, b"third")
        assert path.read_bytes() == b"third"
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.mp4", b"first")]


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"], ids=ascii)
def test_the_longest_name_of_a_video_can_be_written(tmp_path, letter):
    room = MOST_OUTPUT_BYTES - len(".mp4")
    path = tmp_path / output_name(letter * (room // len(letter.encode())) + ".mp4")
    write_whole(path, b"whole")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"whole"]


@pytest.mark.parametrize("name", ["film [1].mp4", "é" * 120 + ".mp4"])
def test_what_killed_runs_left_of_a_file_is_removed(tmp_path, name):
    (tmp_path / f"{name[:4]}.0123abcd.tmp").write_bytes(b"of another")
    with writing(tmp_path / name) as file:
        left = os.path.basename(file.name)
        (tmp_path / left.replace(left[-8:-4], "0000")).write_bytes(b"half")
    assert len(os.listdir(tmp_path)) == 3
    remove_partials(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"{name[:4]}.0123abcd.tmp"])
