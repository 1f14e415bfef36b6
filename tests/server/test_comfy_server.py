"""The server harness itself, on native nodes alone."""

import pytest
from clips import read_clip

from scripts.server.comfy_server import PromptFailed, PromptRejected


def copying(name: str) -> dict:
    """A graph that takes a video apart and saves it again."""
    return {
        "1": {"class_type": "LoadVideo", "inputs": {"file": name}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {
            "class_type": "CreateVideo",
            "inputs": {"images": ["2", 0], "audio": ["2", 1], "fps": ["2", 2]},
        },
        "4": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["3", 0],
                "filename_prefix": "video/copy",
                "format": "mp4",
                "codec": "h264",
            },
        },
    }


def test_a_clip_goes_through_with_its_sound(comfy_server, sample_clip):
    prompt_id = comfy_server.queue(copying(comfy_server.upload(sample_clip)))
    entry = comfy_server.wait(prompt_id)
    copy, source = read_clip(comfy_server.output_path(entry)), read_clip(sample_clip)
    assert (copy.frames, copy.size, copy.fps) == (source.frames, source.size, source.fps)
    assert copy.seconds_of_sound == pytest.approx(source.seconds_of_sound, abs=0.05)
    assert comfy_server.events.wait_for("execution_success", prompt_id, timeout=10)


def test_a_refused_prompt_names_its_node(comfy_server):
    graph = copying("absent.mp4")
    with pytest.raises(PromptRejected) as caught:
        comfy_server.queue(graph)
    assert "1" in caught.value.node_errors


def test_a_failing_node_brings_its_own_words(comfy_server):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": dict(width=8, height=8, batch_size=1, color=0)},
        "2": {
            "class_type": "ImageCrop",
            "inputs": {"image": ["1", 0], "width": 8, "height": 8, "x": 0, "y": 0},
        },
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": 25.0}},
        "4": {"class_type": "GetVideoComponents", "inputs": {"video": ["3", 0]}},
        "5": {"class_type": "SaveAudio", "inputs": {"audio": ["4", 1], "filename_prefix": "none"}},
    }
    with pytest.raises(PromptFailed, match="SaveAudio") as caught:
        comfy_server.run(graph)
    assert caught.value.details["traceback"]
