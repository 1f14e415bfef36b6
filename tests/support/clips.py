"""Reads video files back as arrays and plain values."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Clip:
    """A decoded video file."""

    pixels: np.ndarray  # (frames, height, width, 3), uint8
    fps: float
    sound: np.ndarray | None  # (channels, samples), or (1, samples * channels) where packed
    sample_rate: int | None
    video_codec: str
    metadata: dict[str, str]

    @property
    def frames(self) -> int:
        """The number of pictures."""
        return self.pixels.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @property
    def seconds_of_sound(self) -> float:
        """Length of the sound in seconds; 0 without sound."""
        if self.sound is None or not self.sample_rate:
            return 0.0
        return self.sound.shape[1] / self.sample_rate


def read_clip(path: Path) -> Clip:
    """Decode all of a video file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        fps, codec = float(stream.average_rate or 0), stream.codec_context.name
        metadata = dict(container.metadata)
    sound, rate = read_sound(path)
    return Clip(pixels, fps, sound, rate, codec, metadata)


def read_sound(path: Path) -> tuple[np.ndarray | None, int | None]:
    """The samples and their rate, or (None, None) for a file without sound."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, None
        stream = container.streams.audio[0]
        pieces = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(pieces, axis=1), stream.rate


def shrink_clip(source: Path, target: Path, frames: int, size: tuple[int, int]) -> Path:
    """A short, small copy of a video with its sound, for tests that repeat a run."""
    clip = read_clip(source)
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=round(clip.fps))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        sound = [(s, container.add_stream_from_template(s)) for s in given.streams.audio]
        for pixels in clip.pixels[:frames]:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(*size)))
        container.mux(stream.encode())
        for heard, copy in sound:
            given.seek(0)
            for packet in given.demux(heard):
                if packet.pts is not None and packet.pts * packet.time_base < frames / clip.fps:
                    packet.stream = copy
                    container.mux(packet)
    return target


def first_frame(source: Path, target: Path) -> Path:
    """Save the first frame of a video as a picture file."""
    Image.fromarray(read_clip(source).pixels[0]).save(target)
    return target


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Pictures (t, h, w, c) at a quarter of their size, by area averaging."""
    t, h, w, c = pixels.shape
    return pixels.reshape(t, h // 4, 4, w // 4, 4, c).mean((2, 4))
