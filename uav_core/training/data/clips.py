"""High-resolution training clips, cut from video or made by a virtual camera over photographs.

A camera path is a smooth function of time: velocity, acceleration and a slow sway for the position,
a rate and its change for zoom and rotation. Photographs are sampled with a cubic kernel on a grid
twice as fine as the clip and averaged down. So the sharpness of a frame does not depend on the
camera's position between two pixels. Plain resampling at the clip's size would flicker between
sharp and soft as the picture drifts.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...errors import InputError
from . import pack
from .degrade import MILD, DegradationParams
from .sources import HELD_OUT_PIECES, INDEX

# Photographs that training never sees: buildings, fur, water, rock, people, metal, print and night.
HELD_OUT_PHOTOS = (
    "castle",
    "stream",
    "friends",
    "bee",
    "lattice",
    "boats",
    "dune",
    "peaks",
    "coffee",
    "astronaut",
)
HELD_OUT_SIZE = (256, 192)
HELD_OUT_FRAMES = 16
HELD_OUT_SEED = 20240607
# Besides one clip of each photograph: clips with a second photograph moving in front.
HELD_OUT_PAIRS = (
    ("castle", "bee"),
    ("stream", "friends"),
    ("lattice", "coffee"),
    ("peaks", "astronaut"),
    ("boats", "castle"),
    ("dune", "lattice"),
)
# The mild clips: half of the held-out clips again, with a degradation of `degrade.MILD`.
HELD_OUT_MILD = {
    "castle": "clean",
    "friends": "web",
    "lattice": "clean",
    "dune": "web",
    "coffee": "clean",
    "astronaut": "web",
    "stream_friends": "clean",
    "peaks_astronaut": "web",
    "film_01630": "clean",
    "film_06360": "web",
    "film_10130": "clean",
    "city_00140": "web",
}

# Photo pixels per clip pixel. Below 1.3 a photograph has too little detail for the clip; above 2.6
# the double grid would skip pixels.
LEAST_SCALE, MOST_SCALE = 1.3, 2.6
PARALLAX_SHARE = 0.3
PLACES = 3  # random places to choose from; the one with most detail is taken
DETAIL_BLOCK = 8
STILL_SHARE = 0.08  # share of clips without motion, as still pictures must not flicker either


Pair = tuple[float, float] | np.ndarray


@dataclass(frozen=True)
class HeldOutClip:
    """A clip that training never sees; ``frames`` is (3, t, h, w) float32 in [-1, 1]."""

    name: str
    frames: Tensor
    degradation: DegradationParams = field(default_factory=DegradationParams)


@dataclass(frozen=True)
class Picture:
    """A photograph and a map of its detail."""

    pixels: np.ndarray  # (h, w, 3) uint8
    detail: np.ndarray  # summed-area table of the local contrast, in blocks

    @classmethod
    def of(cls, pixels: np.ndarray) -> Picture:
        """Measure the local contrast once, so that ``contrast`` of a region is fast."""
        grey = pixels.astype(np.float32).mean(axis=2)
        rows = grey.shape[0] // DETAIL_BLOCK * DETAIL_BLOCK
        columns = grey.shape[1] // DETAIL_BLOCK * DETAIL_BLOCK
        step = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
        step += np.abs(np.diff(grey, axis=0, append=grey[-1:]))
        blocks = step[:rows, :columns].reshape(
            rows // DETAIL_BLOCK, DETAIL_BLOCK, columns // DETAIL_BLOCK, DETAIL_BLOCK
        )
        # The square root keeps one hard edge from counting more than a whole texture.
        contrast = np.sqrt(blocks.mean(axis=(1, 3)))
        return cls(pixels, np.pad(contrast.cumsum(0).cumsum(1), ((1, 0), (1, 0))))

    def contrast(self, low: np.ndarray, high: np.ndarray) -> float:
        """Mean local contrast between two corners, given as (x, y) in pixels."""
        last = np.array([self.detail.shape[1], self.detail.shape[0]]) - 1
        left, top = np.clip(low / DETAIL_BLOCK, 0, last - 1).astype(int)
        right, bottom = np.clip(np.ceil(high / DETAIL_BLOCK), 1, last).astype(int)
        total = self.detail[bottom, right] - self.detail[top, right]
        total = total - self.detail[bottom, left] + self.detail[top, left]
        return float(total / ((bottom - top) * (right - left)))

    def contrast_of_all(self) -> float:
        """Mean local contrast of the whole picture."""
        rows, columns = self.detail.shape
        return float(self.detail[-1, -1]) / ((rows - 1) * (columns - 1))


@dataclass(frozen=True)
class Path2D:
    """A camera path over a picture. Lengths are in clip pixels, time in frames."""

    velocity: Pair = (0.0, 0.0)
    acceleration: Pair = (0.0, 0.0)
    sway: Pair = (0.0, 0.0)
    sway_rate: float = 0.0  # radians per frame
    sway_phase: float = 0.0
    zoom: Pair = (0.0, 0.0)  # rate of the logarithm, and its change
    turn: Pair = (0.0, 0.0)  # radians per frame, and its change
    angle: float = 0.0  # in the middle of the clip

    def at(self, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, y, scale and angle of the view in every frame; x = y = 0 in the middle of the clip."""
        t = np.arange(frames) - (frames - 1) / 2
        wave = np.sin(self.sway_rate * t + self.sway_phase) - math.sin(self.sway_phase)
        x, y = (
            v * t + a * t * t / 2 + s * wave
            for v, a, s in zip(self.velocity, self.acceleration, self.sway, strict=True)
        )
        size = np.exp(self.zoom[0] * t + self.zoom[1] * t * t / 2)
        return x, y, size, self.angle + self.turn[0] * t + self.turn[1] * t * t / 2

    def slowed(self, factor: float) -> Path2D:
        """The same path with all motion, and the angle, multiplied by ``factor``."""
        return replace(
            self,
            velocity=np.multiply(self.velocity, factor),
            acceleration=np.multiply(self.acceleration, factor),
            sway=np.multiply(self.sway, factor),
            zoom=np.multiply(self.zoom, factor),
            turn=np.multiply(self.turn, factor),
            angle=self.angle * factor,
        )


def random_path(rng: np.random.Generator, frames: int) -> Path2D:
    """A smooth path: mostly a pan that speeds up or slows down, often with zoom and rotation."""
    if frames == 1 or rng.random() < STILL_SHARE:
        return Path2D(angle=rng.normal(0.0, 0.05))
    speed = math.exp(rng.uniform(math.log(0.1), math.log(6.0)))
    heading = rng.uniform(0.0, 2 * math.pi)
    velocity = (speed * math.cos(heading), speed * math.sin(heading))
    # Acceleration may be as large as the speed over the clip, in any direction: the path bends.
    change = rng.normal(0.0, 0.5 * speed / frames, 2)
    sway = rng.normal(0.0, 0.6, 2) if rng.random() < 0.4 else np.zeros(2)  # a hand-held camera
    zoom = rng.normal(0.0, (0.008, 0.008 / frames)) if rng.random() < 0.5 else np.zeros(2)
    turn = rng.normal(0.0, (0.007, 0.007 / frames)) if rng.random() < 0.4 else np.zeros(2)
    return Path2D(
        velocity,
        change,
        sway,
        rng.uniform(0.3, 0.9),
        rng.uniform(0.0, 2 * math.pi),
        zoom,
        turn,
        rng.normal(0.0, 0.08),
    )


def _matrices(path: Path2D, frames: int, scale: float) -> np.ndarray:
    """Maps (frames, 2, 3) from clip pixels around the middle to photo pixels around the start."""
    x, y, size, angle = path.at(frames)
    cos, sin = scale * size * np.cos(angle), scale * size * np.sin(angle)
    rows = np.stack([cos, -sin, x * scale, sin, cos, y * scale], axis=1)
    return rows.reshape(frames, 2, 3)


def _reach(matrices: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lowest and highest x and y that the views touch, as ((x, y) low, (x, y) high)."""
    corners = np.array([[sx * width / 2, sy * height / 2, 1] for sx in (-1, 1) for sy in (-1, 1)])
    points = matrices @ corners.T  # (frames, 2, 4)
    return np.stack([points.min(axis=(0, 2)), points.max(axis=(0, 2))])


def film(photo: np.ndarray, matrices: np.ndarray, height: int, width: int) -> Tensor:
    """Views (frames, 3, h, w) of the photo in [-1, 1], one for each matrix.

    A matrix maps (x, y, 1), in clip pixels from the middle of the clip, to photo pixels from the
    photo's upper left corner.
    """
    low, high = _reach(matrices, height, width)
    left, top = (max(math.floor(v) - 3, 0) for v in low)
    right, bottom = math.ceil(high[0]) + 3, math.ceil(high[1]) + 3
    part = np.array(photo[top:bottom, left:right])
    picture = torch.from_numpy(part).permute(2, 0, 1)[None].float().div_(127.5).sub_(1.0)

    x = (torch.arange(2 * width) + 0.5) / 2 - width / 2
    y = (torch.arange(2 * height) + 0.5) / 2 - height / 2
    m = torch.from_numpy(matrices).float()
    # To grid_sample's coordinates: -1 and 1 are the outer edges of the part.
    m[:, :, 2] -= torch.tensor([left, top]).float()
    m = m * (2 / torch.tensor([part.shape[1], part.shape[0]]).float())[None, :, None]
    grid = (
        m[:, None, None, :, 0] * x[None, None, :, None]
        + m[:, None, None, :, 1] * y[None, :, None, None]
        + m[:, None, None, :, 2]
        - 1.0
    )
    views = F.grid_sample(
        picture.expand(len(m), -1, -1, -1), grid, "bicubic", "border", align_corners=False
    )
    return F.avg_pool2d(views, 2).clamp_(-1.0, 1.0)


@dataclass(frozen=True)
class _Blob:
    """A soft-edged region with an irregular outline, in clip pixels around its middle."""

    radius: float
    waves: np.ndarray  # (orders, 2): cosine and sine parts
    soft: float

    def mask(self, matrices: np.ndarray, height: int, width: int) -> Tensor:
        """Coverage (frames, 1, h, w); a matrix maps clip pixels to the blob's own pixels."""
        x = torch.arange(width) + 0.5 - width / 2
        y = torch.arange(height) + 0.5 - height / 2
        m = torch.from_numpy(matrices).float()[:, :, :, None, None]
        u = m[:, 0, 0] * x + m[:, 0, 1] * y[:, None] + m[:, 0, 2]
        v = m[:, 1, 0] * x + m[:, 1, 1] * y[:, None] + m[:, 1, 2]
        distance = torch.hypot(u, v)
        # cos(k a) and sin(k a) are powers of the unit vector, so the angle is not needed.
        unit = torch.complex(u, v) / distance.clamp_min(1e-3)
        turned, edge = unit, torch.ones_like(u)
        for cosine, sine in self.waves:
            edge = edge + float(cosine) * turned.real + float(sine) * turned.imag
            turned = turned * unit
        return torch.sigmoid((self.radius * edge - distance) / self.soft)[:, None]


class ClipSource:
    """Random high-resolution clips from a prepared folder, without the held-out media.

    Photographs are decoded once and kept as uint8. Pieces of video are memory-mapped, or decoded
    into memory if the folder is an unpacked pack (pack.py).
    """

    def __init__(self, folder: str | Path, video_share: float = 0.4) -> None:
        folder = Path(folder)
        self.video_share = video_share
        if pack.is_unpacked(folder):
            photos, videos = pack.media(folder)
            self.photo_names, self.video_names = list(photos), list(videos)
        else:
            names = _names(folder)
            self.photo_names = [n for n in names["photos"] if n not in HELD_OUT_PHOTOS]
            self.video_names = [n for n in names["videos"] if n not in HELD_OUT_PIECES]
            photos = {name: read_photo(folder, name) for name in self.photo_names}
            videos = {name: read_video(folder, name) for name in self.video_names}
        if not self.photo_names and not self.video_names:
            raise InputError(
                f"{folder} holds nothing to train on. Fill it with "
                f"'python -m uav_core.training.data.sources {folder}'."
            )
        self.photos = [Picture.of(photo) for photo in photos.values()]
        # Half-size copies show more of the scene in one clip.
        self.halves = [_halved(photo.pixels) for photo in self.photos]
        self.videos = list(videos.values())

    def sample(self, rng: np.random.Generator, frames: int, height: int, width: int) -> Tensor:
        """A clip (3, frames, height, width), float32 in [-1, 1]; it depends only on ``rng``."""
        if min(frames, height, width) < 1:
            raise InputError(
                f"A clip needs frames and pixels, but its size is {frames}x{height}x{width}."
            )
        videos = [
            i
            for i, video in enumerate(self.videos)
            if len(video) >= frames and video.shape[1] >= height and video.shape[2] >= width
        ]
        photos = [i for i, photo in enumerate(self.photos) if _fits(photo, height, width)]
        if not videos and not photos:
            raise InputError(
                f"No photograph or video is large and long enough for {frames} frames of "
                f"{width}x{height}. Use smaller clips or add larger pictures."
            )
        if videos and (not photos or rng.random() < self.video_share):
            clip = _cut(self.videos[rng.choice(videos)], rng, frames, height, width)
        else:
            clip = self._filmed(photos, rng, frames, height, width)
        if rng.random() < 0.5:
            clip = clip.flip(-1)
        return clip.contiguous()

    def _filmed(
        self, photos: list[int], rng: np.random.Generator, frames: int, height: int, width: int
    ) -> Tensor:
        """A clip made by moving over one photograph, sometimes with a second one in front."""

        # Prefer pictures with much detail, as plain areas such as sky teach little.
        weights = np.array([self.photos[i].contrast_of_all() for i in photos])
        weights = np.clip(weights / weights.mean(), 0.3, 1.2)
        weights /= weights.sum()

        def choose() -> Picture:
            which = rng.choice(photos, p=weights)
            half = self.halves[which]
            far = _fits(half, height, width) and rng.random() < 0.35
            return half if far else self.photos[which]

        back, front = choose(), None
        if frames > 1 and rng.random() < PARALLAX_SHARE:
            front = choose()
        return film_photos(back, front, rng, frames, height, width)


def film_photos(
    back: Picture,
    front: Picture | None,
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
) -> Tensor:
    """A clip (3, frames, h, w) of ``back``, with a region of ``front`` moving in front of it."""
    path = random_path(rng, frames)
    clip = film(back.pixels, _placed(back, path, rng, frames, height, width), height, width)
    if front is not None:
        other = random_path(rng, frames)
        placed = _placed(front, other, rng, frames, height, width)
        radius = min(height, width) * rng.uniform(0.18, 0.38)
        orders = np.arange(1, 6)[:, None]
        waves = rng.normal(0.0, 0.22, (5, 2)) / orders
        blob = _Blob(radius, waves, math.exp(rng.uniform(math.log(0.35), math.log(2.0))))
        # The region is part of the front picture, so it moves with it.
        moved = _matrices(other, frames, 1.0)
        moved[:, 0, 2] += rng.uniform(-0.3, 0.3) * width
        moved[:, 1, 2] += rng.uniform(-0.3, 0.3) * height
        _lay_over(clip, front, placed, blob.mask(moved, height, width))
    return clip.permute(1, 0, 2, 3).contiguous()


def _lay_over(clip: Tensor, front: Picture, placed: np.ndarray, mask: Tensor) -> None:
    """Blend ``front`` into the clip by the mask; only the part under the mask is sampled."""
    seen = mask.amax(dim=(0, 1)) > 1e-3
    rows, columns = seen.any(dim=1).nonzero(), seen.any(dim=0).nonzero()
    if not len(rows):
        return
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    height, width = clip.shape[-2:]
    part = placed.copy()
    part[:, :, 2] += part[:, :, 0] * ((left + right) / 2 - width / 2)
    part[:, :, 2] += part[:, :, 1] * ((top + bottom) / 2 - height / 2)
    nearer = film(front.pixels, part, bottom - top, right - left)
    here = clip[:, :, top:bottom, left:right]
    here.copy_(torch.lerp(here, nearer, mask[:, :, top:bottom, left:right]))


def _placed(
    picture: Picture,
    path: Path2D,
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
) -> np.ndarray:
    """The path's matrices at a random scale and place, so that every view is inside the photo."""
    room = np.array([picture.pixels.shape[1], picture.pixels.shape[0]]) - 4.0
    most = min(MOST_SCALE, float(min(room[0] / width, room[1] / height)))
    scale = math.exp(rng.uniform(math.log(LEAST_SCALE), math.log(max(most, LEAST_SCALE))))
    places = rng.random((PLACES, 2))
    for _ in range(12):
        matrices = _matrices(path, frames, scale)
        low, high = _reach(matrices, height, width)
        if (high - low <= room).all():
            break
        path, scale = path.slowed(0.6), max(LEAST_SCALE, scale * 0.9)
    else:
        matrices = _matrices(Path2D(), frames, LEAST_SCALE)
        low, high = _reach(matrices, height, width)
    shifts = 2.0 - low + places * np.maximum(room - (high - low), 0.0)
    best = max(shifts, key=lambda shift: picture.contrast(low + shift, high + shift))
    matrices[:, :, 2] += best
    return matrices


def _cut(
    video: np.ndarray, rng: np.random.Generator, frames: int, height: int, width: int
) -> Tensor:
    """A random part of a video: at its own size or shrunk, with all frames or every second one."""
    stride = 2 if len(video) >= 2 * frames - 1 and rng.random() < 0.35 else 1
    start = rng.integers(len(video) - stride * (frames - 1))
    most = min(1.8, video.shape[1] / height, video.shape[2] / width)
    scale = rng.uniform(1.0, most) if rng.random() < 0.4 else 1.0
    h, w = round(height * scale), round(width * scale)
    middle = video[start + stride * (frames - 1) // 2]
    tops = rng.integers(video.shape[1] - h + 1, size=PLACES)
    lefts = rng.integers(video.shape[2] - w + 1, size=PLACES)
    top, left = max(zip(tops, lefts, strict=True), key=lambda at: _contrast(middle, *at, h, w))
    stop = start + stride * (frames - 1) + 1
    part = np.array(video[start:stop:stride, top : top + h, left : left + w])
    if rng.random() < 0.3:
        part = part[::-1].copy()  # ascontiguousarray keeps a single frame reversed
    return _to_clip(part, height, width)


def _contrast(frame: np.ndarray, top: int, left: int, height: int, width: int) -> float:
    """Mean square root of the local contrast of a view (every second row, green channel)."""
    green = frame[top : top + height : 2, left : left + width, 1].astype(np.float32)
    return float(np.sqrt(np.abs(np.diff(green, axis=1))).mean())


def _to_clip(part: np.ndarray, height: int, width: int) -> Tensor:
    """Convert (t, h, w, 3) uint8 to (3, t, height, width) in [-1, 1], shrunk by a cubic kernel."""
    clip = torch.from_numpy(part).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    if clip.shape[-2:] != (height, width):
        clip = F.interpolate(clip, (height, width), mode="bicubic", antialias=True)
    return clip.clamp_(-1.0, 1.0).permute(1, 0, 2, 3).contiguous()


def held_out(folder: str | Path) -> list[HeldOutClip]:
    """The fixed clips for evaluation: 16 made from photographs and 8 of video."""
    folder = Path(folder)
    width, height = HELD_OUT_SIZE
    clips = []
    pairs = [(name, None) for name in HELD_OUT_PHOTOS] + list(HELD_OUT_PAIRS)
    for number, (back, front) in enumerate(pairs):
        rng = np.random.default_rng([HELD_OUT_SEED, number])
        behind, before = (
            Picture.of(read_photo(folder, name)) if name else None for name in (back, front)
        )
        assert behind is not None
        clip = film_photos(behind, before, rng, HELD_OUT_FRAMES, height, width)
        clips.append(HeldOutClip(f"{back}_{front}" if front else back, clip))
    for number, name in enumerate(HELD_OUT_PIECES):
        video = read_video(folder, name)
        first = (len(video) - HELD_OUT_FRAMES) // 2
        part = video[first : first + HELD_OUT_FRAMES]
        if number % 2:  # the middle at its own pixels; else three quarters of the view, shrunk
            top, left = (part.shape[1] - height) // 2, (part.shape[2] - width) // 2
            part = part[:, top : top + height, left : left + width]
        else:
            part = part[:, :, (part.shape[2] - part.shape[1] * 4 // 3) // 2 :]
            part = part[:, :, : part.shape[1] * 4 // 3]
        clips.append(HeldOutClip(name, _to_clip(np.array(part), height, width)))
    return clips


def held_out_mild(folder: str | Path) -> list[HeldOutClip]:
    """The clips of ``HELD_OUT_MILD``, each with the degradation named there."""
    clips = {clip.name: clip for clip in held_out(folder)}
    return [
        replace(clips[name], name=f"{name}_{kind}", degradation=MILD[kind])
        for name, kind in HELD_OUT_MILD.items()
    ]


def _names(folder: Path) -> dict[str, list[str]]:
    """The prepared files by kind, in the order of their names."""
    index = folder / INDEX
    if not index.exists():
        raise InputError(
            f"{folder} has no {INDEX}, so it is not a prepared data folder. Fill it with "
            f"'python -m uav_core.training.data.sources {folder}'."
        )
    names: dict[str, list[str]] = {"photos": [], "videos": []}
    for line in json.loads(index.read_text("utf-8"))["files"]:
        kind, file = line["file"].split("/", 1)
        names[kind].append(file.rsplit(".", 1)[0])
    return {kind: sorted(found) for kind, found in names.items()}


def read_photo(folder: Path, name: str) -> np.ndarray:
    """A prepared photograph, (h, w, 3) uint8. Raises InputError if it is missing."""
    return pack.photo(_prepared(folder, f"photos/{name}.png"))


def read_video(folder: Path, name: str) -> np.ndarray:
    """A prepared piece of video, (24, h, w, 3) uint8, memory-mapped; InputError if missing."""
    return np.load(_prepared(folder, f"videos/{name}.npy"), mmap_mode="r")


def _prepared(folder: Path, file: str) -> Path:
    path = folder / file
    if not path.exists():
        raise InputError(
            f"{path} is missing. Fetch it with 'python -m uav_core.training.data.sources {folder}'."
        )
    return path


def _halved(photo: np.ndarray) -> Picture:
    size = (photo.shape[1] // 2, photo.shape[0] // 2)
    half = Image.fromarray(photo).resize(size, resample=Image.Resampling.BOX)
    return Picture.of(np.asarray(half))


def _fits(picture: Picture, height: int, width: int) -> bool:
    """Whether a view of this size fits into the photo, with a little room to move."""
    need = LEAST_SCALE * 1.05
    rows, columns = picture.pixels.shape[:2]
    return rows - 4 >= need * height and columns - 4 >= need * width
