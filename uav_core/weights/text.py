"""The text input of a small U-Net without a text encoder.

Such a U-Net has two learned embeddings: one was trained with blurred, damaged targets, the other
stands for every other text. Classifier-free guidance then leads away from damage as it does with
the full model. The only thing that counts in a text is whether it names flaws of a picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import CheckpointMismatchError
from .checkpoints import Kind, load_checkpoint

NULL_KEY, NEGATIVE_KEY = "null_text_embedding", "negative_text_embedding"

# A flaw that is missed in a negative text weakens the guidance a little; a harmless word taken for
# a flaw in a positive text reverses it. So words with an everyday meaning (grain, soft, halo,
# blocks) are left out.
_FLAWS = (
    r"blur(s|ry|red|riness|ring)?",
    r"(de|un|mis)[ -]?focus(s?ed)?",
    r"out[ -]of[ -]focus",
    r"unsharp|smear(s|y|ed|ing)?|smudg(y|ed|es)",
    r"over[ -]?smooth(ed|ing)?",
    r"over[ -]?sharpen(ed|ing)",
    r"nois(e|y|es)",
    r"grainy|film[ -]grain",
    r"arti?facts?|artefacts?",
    r"compress(ion|ed)",
    r"jpe?g|mpeg",
    r"pixell?at(ed|ion)|blocky|blockiness",
    r"alias(ed|ing)|moir[eé]",
    r"flicker(s|y|ing)?|jitter(s|y|ing)?|ghosting",
    r"distort(ed|ions?)|degrad(ed|ation)",
    r"low[ -]?res(olution)?",
    r"(worst|worse|bad|poor|low|lower|lowest)[ -](quality|details?)",
)
_FLAW = re.compile(rf"\b({'|'.join(_FLAWS)})\b")
_CLAUSES = re.compile(r"[^\w\s'-]+|\n")
_NEGATION = re.compile(r"\b(no|non|not|never|without|free|removed?)\b")


def names_flaws(text: str) -> bool:
    """Whether a text names flaws of a picture: "blur, worst quality", but not "no blur".

    Whole words count, in any case; a negation applies to its clause, up to the next punctuation.
    """
    clauses = _CLAUSES.split(text.lower().replace("_", " "))
    return any(_FLAW.search(clause) and not _NEGATION.search(clause) for clause in clauses)


@dataclass(frozen=True)
class QualityText:
    """The two embeddings, each (tokens, width)."""

    other: Tensor = field(repr=False)
    flawed: Tensor = field(repr=False)

    @property
    def width(self) -> int:
        """The ``context_dim`` of the U-Net they belong to."""
        return self.other.shape[-1]

    def embed(self, text: str) -> Tensor:
        """(tokens, width) for a text; see ``names_flaws``."""
        return self.flawed if names_flaws(text) else self.other

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor], source: str) -> QualityText:
        """Check the two tensors of a file; ``source`` is its name in messages.

        Raises CheckpointMismatchError for missing, further or misshapen tensors.
        """
        shapes = {key: tuple(value.shape) for key, value in sd.items()}
        null = shapes.get(NULL_KEY)
        if shapes != {NULL_KEY: null, NEGATIVE_KEY: null} or null is None or len(null) != 2:
            raise CheckpointMismatchError(
                f"{source} holds {shapes}: expected '{NULL_KEY}' and '{NEGATIVE_KEY}', both of the "
                "same (tokens, width), and nothing else. Choose the text file that came with "
                "the U-Net."
            )
        return cls(sd[NULL_KEY].float(), sd[NEGATIVE_KEY].float())


def load_quality_text(path: str | os.PathLike[str]) -> QualityText:
    """The text embeddings of a small U-Net; for any other file, a CheckpointError says its kind."""
    checkpoint = load_checkpoint(path, Kind.QUALITY_TEXT)
    return QualityText.from_state_dict(checkpoint.state_dict, checkpoint.source)
