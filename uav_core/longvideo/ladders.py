"""The ladders of a job, one for each of its stages, and their record."""

from __future__ import annotations

from collections.abc import Iterable

from ..jobs import Fallback
from ..sampling.ladder import (
    Ladder,
    Setting,
    decode_ladder,
    flow_ladder,
    from_tile,
    sample_ladder,
)
from .params import LongVideoParams


class Ladders:
    """The settings of the three stages; they hold for the rest of the job once stepped down."""

    def __init__(self, sample: Ladder, decode: Ladder, flow: Ladder) -> None:
        self.sample, self.decode, self.flow = sample, decode, flow

    @classmethod
    def of(cls, params: LongVideoParams, h: int, w: int) -> Ladders:
        """Begun with the settings asked for, for frames (h, w)."""
        overlap, group, tile = params.tile_overlap, params.frames_per_group, params.tile
        sample = sample_ladder(params.segment_length, h, w, overlap)
        decode = decode_ladder(group, h, w, group, overlap)
        if tile and tile < max(h, w):
            sample = from_tile(sample, tile, overlap)
            decode = from_tile(decode, tile, overlap)
        return cls(sample, decode, flow_ladder(h, w))

    def resume(self, records: Iterable[Fallback]) -> None:
        """Go on where earlier runs of the job had stepped down to."""
        for record in records:
            for name, setting in record.setting.items():
                self.named()[name].resume(Setting.from_json(dict(setting)))

    def named(self) -> dict[str, Ladder]:
        """By the names that a record of the job uses."""
        return {"sample": self.sample, "decode": self.decode, "flow": self.flow}

    def to_json(self) -> dict[str, object]:
        """The present settings, as a record of the job."""
        return {name: ladder.setting.to_json() for name, ladder in self.named().items()}
