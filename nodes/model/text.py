"""The text embeddings of a small U-Net as a CLIP that ComfyUI's text nodes accept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import comfy.model_management as mm
import comfy.sd
import torch
from torch import Tensor, nn

from ...uav_core.weights.text import NEGATIVE_KEY, NULL_KEY, QualityText, names_flaws

# ComfyUI stores tokens under a name for each tokenizer: "l" for CLIP-L, "h" for CLIP-H.
TOKENIZER = "uav_quality"
OTHER, FLAWED = 0, 1
# The embeddings have the names that they have in the file, so that what ComfyUI's 'CLIPSave'
# writes can be loaded.
KEYS = {OTHER: NULL_KEY, FLAWED: NEGATIVE_KEY}


class QualityTokenizer:
    """Turns a text into one token, which says whether the text names flaws of a picture."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        pass

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, **_: Any
    ) -> dict[str, list[list[tuple[Any, ...]]]]:
        token = FLAWED if names_flaws(text) else OTHER
        return {TOKENIZER: [[(token, 1.0, 1) if return_word_ids else (token, 1.0)]]}

    def state_dict(self) -> dict[str, Tensor]:
        return {}


class QualityEncoder(nn.Module):
    """Looks up the embedding of the token; the rest is the interface of ComfyUI's encoders."""

    dtypes = frozenset({torch.float32})
    # The weights are a few kilobytes, so newer ComfyUI need not stream them.
    disable_offload = True

    def __init__(
        self, text: QualityText, dtype: Any = None, device: Any = None, model_options: Any = None
    ) -> None:
        super().__init__()
        self.register_buffer(NULL_KEY, text.other.to(device))
        self.register_buffer(NEGATIVE_KEY, text.flawed.to(device))

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Do nothing: there are no layers or projections to choose."""

    def reset_clip_options(self) -> None:
        """Do nothing: ``set_clip_options`` sets nothing."""

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        """The embedding (1, tokens, width), and None for the pooled output."""
        ((token, *_),) = tokens[TOKENIZER][0]
        return self.get_buffer(KEYS[token])[None].to(mm.intermediate_device()), None


def quality_clip(text: QualityText) -> comfy.sd.CLIP:
    """A CLIP for 'CLIP Text Encode'. LoRA, hooks and layer settings have no effect on it."""
    target = SimpleNamespace(params={"text": text}, clip=QualityEncoder, tokenizer=QualityTokenizer)
    return comfy.sd.CLIP(cast(Any, target))
