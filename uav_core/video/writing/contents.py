"""Lists what a source contains, and what happens to each item in the finished file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import av.stream
from av.container import InputContainer
from av.video.stream import VideoStream

from ..color import depth
from ..reading.probe import Path, VideoInfo, open_video
from ..reading.side_data import Orientation
from .captions import attachments_of, codec_name, fate_of_captions, keeps_attachments
from .choices import CODECS, EncodeParams
from .sound import encoder_for
from .timecode import fits_into, keeps_timecode, timecode_of

Fate = Literal["kept", "converted", "left out"]

# Side data of pictures that is never kept, by FFmpeg's names.
_LEFT_OUT = {
    "A53_CC": (
        "closed captions inside the picture",
        "extract them with a tool such as ccextractor",
    ),
    "DOVI_METADATA": ("Dolby Vision", "the picture without it is upscaled"),
    "DOVI_RPU_BUFFER": ("Dolby Vision", "the picture without it is upscaled"),
    "DYNAMIC_HDR_PLUS": ("HDR10+", "it holds for the source's size"),
    "DYNAMIC_HDR_VIVID": ("HDR Vivid", "it holds for the source's size"),
    "STEREO3D": ("the stereo 3D flag", "set it again with a muxer"),
    "SPHERICAL": ("the 360-degree flag", "set it again with a muxer"),
    "ICC_PROFILE": ("a colour profile (ICC)", "the colour tags are kept"),
    "AMBIENT_VIEWING_ENVIRONMENT": ("the ambient light of the viewing environment", ""),
    "AFD": ("the active format", "set it again with a muxer"),
    "S12M_TIMECODE": ("the timecode inside the picture", ""),
    "GOP_TIMECODE": ("the timecode inside the picture", ""),
}


@dataclass(frozen=True)
class Holding:
    """An item that a source contains beside its pictures, or a property of the pictures."""

    what: str
    fate: Fate
    how: str = ""
    """What it becomes, why it is left out, or what the user can do."""

    def to_text(self) -> str:
        """ "Left out: another video track (h264): the first is upscaled." """
        return f"{self.fate.capitalize()}: {self.what}{f': {self.how}' if self.how else ''}."


def contents(
    path: Path, info: VideoInfo, params: EncodeParams, *, whole: bool = True
) -> tuple[Holding, ...]:
    """The items that a source contains, and what happens to each.

    Args:
        path: the source.
        info: what ``probe`` gave.
        params: from ``EncodeParams.for_source``, as the finished file is encoded.
        whole: whether the video is upscaled from its first frame on.
    """
    with open_video(path) as (container, stream):
        rows = [
            *_tracks(container, stream, params.container),
            *_timecode(container, stream, params, whole),
            *_picture(info, params),
        ]
    return tuple(dict.fromkeys(rows))


def _kept_unless(why: str, what: str, fate: Fate = "left out") -> Holding:
    """An item with ``fate`` if there is a reason ``why`` it is not kept; else a kept item."""
    return Holding(what, fate, why) if why else Holding(what, "kept")


def _tracks(container: InputContainer, shown: VideoStream, ending: str) -> Iterator[Holding]:
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if stream.disposition & cover:
            yield Holding("the cover picture", "left out", "add it again with a tag editor")
        elif stream.index != shown.index:
            what = f"another video track ({codec_name(stream)})"
            yield Holding(what, "left out", "only the first is upscaled")
    for stream in container.streams.audio:
        what = f"sound ({_language(stream)}{codec_name(stream)}"
        if stream.codec_context is None:
            yield Holding(f"{what})", "left out", "this version of PyAV cannot decode it")
            continue
        encoder = encoder_for(stream, ending)
        why = f"{ending} does not support it; it becomes {encoder}" if encoder else ""
        yield _kept_unless(why, f"{what}, {stream.layout.name})", "converted")
    for stream in container.streams.subtitles:
        what = f"subtitles ({_language(stream)}{codec_name(stream)})"
        yield Holding(what, *fate_of_captions(stream, ending))
    for stream in container.streams.data:
        if "timecode" not in stream.metadata:
            name = stream.metadata.get("handler_name", "").strip() or "without a name"
            yield Holding(f"a data track ({name})", "left out", "its meaning is unknown")
    cure = "a newer PyAV keeps it" if ending == ".mkv" else ".mkv keeps it, with a recent PyAV"
    why = f"it cannot be written into {ending}; {cure}"
    why = "" if keeps_attachments(ending) else why
    for attachment in attachments_of(container):
        yield _kept_unless(why, f"the attachment {attachment.name or 'without a name'}")


def _timecode(
    container: InputContainer, stream: VideoStream, params: EncodeParams, whole: bool
) -> Iterator[Holding]:
    why, code = "", timecode_of(container)
    if not whole:
        why = "the result begins later than the source"
    elif not keeps_timecode(params.rate, stream):
        why = "it does not fit the result's frame rate"
    elif code and not fits_into(params.container):
        why = "choose .mkv, or install a newer PyAV"
    if code:
        yield _kept_unless(why, f"the timecode {code}")


def _picture(info: VideoInfo, params: EncodeParams) -> Iterator[Holding]:
    if info.has_alpha:
        yield Holding("transparency", "left out", "for short clips, 'Upscale Alpha' keeps it")
    if info.orientation != Orientation():
        yield Holding("the rotation flag", "converted", "the frames themselves are rotated")
    if info.sample_aspect != 1:
        yield _aspect(info, params)
    encoded = depth(params.encoded_format)
    if info.bit_depth > encoded:
        yield Holding(f"{info.bit_depth} bits per channel", "converted", f"they become {encoded}")
    can_say = CODECS[params.codec].light
    why = "" if can_say else f"{params.codec} cannot store it; h264, h265 and av1 can"
    if info.mastering:
        yield _kept_unless(why, "the HDR mastering display")
    if info.light_level:
        yield _kept_unless(why, "the HDR light level")
    if info.slant:
        what = f"the rotation flag of {info.slant} degrees"
        yield Holding(what, "left out", "only multiples of 90 can be applied")
    for name in info.side_data:
        if name in _LEFT_OUT:
            what, why = _LEFT_OUT[name]
            yield Holding(what, "left out", why)


def _aspect(info: VideoInfo, params: EncodeParams) -> Holding:
    what = f"the pixel aspect ratio {info.sample_aspect}"
    if params.sample_aspect != info.sample_aspect:
        return Holding(what, "converted", "the pixels become square")
    why = f"{params.codec} cannot store it in {params.container}; h264 and h265 can"
    return _kept_unless("" if params.keeps_aspect else why, what)


def _language(stream: Any) -> str:
    language = stream.metadata.get("language", "")
    return "" if language in ("", "und") else f"{language}, "
