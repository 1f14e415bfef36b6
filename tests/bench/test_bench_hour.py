"""The hour, cut short: killed once, gone on with, compared with a scene alone."""

from __future__ import annotations

import json

import pytest

from bench import hour


@pytest.mark.slow
def test_killed_it_ends_and_is_written_down(tmp_path):
    out = tmp_path / "hour"
    words = ["--frames", "192", "--scene", "96", "--checked", "1", "--kills", "1"]
    assert hour.main([*words, "--pause", "0.05", "--out", str(out)]) == 0
    took = json.loads((out / "hour.json").read_text())
    assert {sample["run"] for sample in took} == {0, 1}, "it was killed once"
    assert max(sample["frames"] for sample in took) > 96
    assert all(sample["memory"] > 0 for sample in took)
    text = (out / "hour.md").read_text()
    assert "| frames | 192 |" in text and "| scenes equal to a run of their own |" in text
    assert (out / "hour.png").is_file()


def test_another_frame_is_seen(tmp_path, monkeypatch):
    """A result whose second scene is another than in a run of its own, or is missing."""
    monkeypatch.setattr(hour, "command", lambda source, target, _: ["cp", source, target])
    whole = tmp_path / "whole.mkv"
    for frames, says in ((9, "frame 1 of scene 1"), (17, "has 17 frames, expected 16")):
        hour.write_clip(whole, 0, frames, 8)
        with pytest.raises(SystemExit, match=says):
            hour.check_scenes(whole, 16, 8, 2, [], tmp_path)
    hour.write_clip(whole, 0, 16, 8)
    assert hour.check_scenes(whole, 16, 8, 2, [], tmp_path) == [0, 1]
    hour.write_clip(whole, 0, 16, 4)
    with pytest.raises(SystemExit, match="frame 4 of scene 0"):
        hour.check_scenes(whole, 16, 8, 2, [], tmp_path)
