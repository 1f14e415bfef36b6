"""What a small U-Net reads of a text."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from uav_core.errors import CheckpointMismatchError, WrongCheckpointError
from uav_core.weights.checkpoints import load_checkpoint
from uav_core.weights.text import QualityText, load_quality_text, names_flaws

FLAWED = [
    "blur, worst quality",
    "BLURRY",
    "low-quality, jpeg artifacts",
    "a video with noise",
    "Noisy footage",
    "worst_quality",
    "(blur:1.3)",
    "compression artefact",
    "pixelated\n\nwatermark",
    "grainy",
    "over-smooth",
    "oversmoothed, plastic",
    "out of focus",
    "lowres",
    "no detail, blur",
    "not a cartoon; low resolution",
]
OTHER = [
    "",
    "best quality, extremely detailed",
    "a rabbit in a meadow, best quality, extremely detailed",
    "a denoised, deblurred film",
    "sharp, no blur, no noise",
    "without any jpeg artifacts",
    "noise-free, free of artifacts",
    "a field of grain, soft light",
    "the artifactory at low tide, high quality",
    "a nosy neighbour presses a blurb",
]


@pytest.mark.parametrize("text", FLAWED)
def test_texts_that_name_flaws(text):
    assert names_flaws(text)


@pytest.mark.parametrize("text", OTHER)
def test_other_texts(text):
    assert not names_flaws(text)


def embeddings(**other):
    tensors = {
        "null_text_embedding": torch.zeros(8, 48),
        "negative_text_embedding": torch.ones(8, 48),
    }
    return {key: value for key, value in (tensors | other).items() if value is not None}


def test_each_text_has_its_embedding(tmp_path):
    halves = {key: value.half() for key, value in embeddings().items()}
    save_file(halves, tmp_path / "text.safetensors")
    text = load_quality_text(tmp_path / "text.safetensors")
    assert text.width == 48
    assert torch.equal(text.embed("blur"), torch.ones(8, 48))
    assert torch.equal(text.embed("a rabbit"), torch.zeros(8, 48))
    assert text.embed("").dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [
        {"negative_text_embedding": torch.ones(8, 40)},
        {"null_text_embedding": torch.zeros(48), "negative_text_embedding": torch.zeros(48)},
        {"another": torch.zeros(1)},
    ],
)
def test_tensors_that_do_not_fit(wrong):
    with pytest.raises(CheckpointMismatchError, match=r"the file holds.*same \(tokens, width\)"):
        QualityText.from_state_dict(embeddings(**wrong), "the file")


def test_other_files_and_this_one_are_told_apart():
    with pytest.raises(WrongCheckpointError, match="nothing this pack knows"):
        load_checkpoint(embeddings(negative_text_embedding=None), "quality_text")
    with pytest.raises(WrongCheckpointError, match="the text embeddings of a small U-Net"):
        load_checkpoint(embeddings(), "unet")
