"""The notes in the shipped workflows, as Markdown."""

from __future__ import annotations

from scripts.workflows.presets import AUTHORS
from scripts.workflows.presets import SETTINGS as SETTINGS_NODE

CHOOSE = """\
**Settings**: choose a *look* and a *speed*, and the values below them follow. Change a value by
hand and its choice says *custom*; the values are what counts."""

SIMPLE = """\
## Upscale a video

1. **Load Video**: choose yours. The sample takes a minute or two without a graphics card.
2. Choose *quality*, *size* and *look*, and press **Run**.

The result appears below the settings and lies in ComfyUI's output folder, in *video*, with the
sound. Nothing has to be downloaded.

**Any length**: memory does not grow with it. After a crash or *Cancel*, queue the same again and it
goes on.

Further down in the node, or folded away there: the authors' weights, the seed, the file's name.
The workflow *upscale_video* has every stage as a node of its own."""

LONG = f"""\
## Upscale a long video 4x

The video goes from file to file; memory does not grow with its length. Sound, frame times and
colours are kept.

- **Scene cuts** are found first; nothing is carried over them. Give cuts by hand in the options
  where the search errs.
- **Every part of 48 frames is kept** as soon as it is done, in *output/upscale_a_video_jobs*. After
  a crash or *Cancel*, queue the same again: it goes on. Other settings or another video start anew.
- **Another size**, such as 1080p, is set in the options: *short side* or *exact size*.
- **Out of memory** is answered by smaller groups and tiles; the report says so.
- The finished file is in ComfyUI's output folder; the parts are removed then.

{CHOOSE}

Try a few seconds first: the node says how long the rest will take once the first part is done."""

START = """\
## Upscale a video 4x

1. **Your clip**: choose a video. Start with a second or two: cost grows with frames and pixels.
2. Press **Run**. Sound and frame rate are kept.

The small models that come with the pack are chosen; nothing has to be downloaded."""

SETTINGS = f"""\
## What to change

{CHOOSE}

- **Text**: the included model reads only whether a text names flaws (*blur, worst quality*): leave
  that in the negative one. The authors' reads everything: say what the clip shows, and keep *best
  quality, extremely detailed* at the end.
- **propagation_steps**: few late ones, against flicker. Empty for cuts and very fast motion.
- **color_fix**: *none* is the reference; *adain* and *wavelet* keep the input's colours."""


IMAGE = f"""\
## Upscale an image 4x

1. **Your image**: choose one. Start with 512 pixels a side or less; time and memory grow with the
   pixels.
2. Press **Run**. The result is in ComfyUI's output folder.

{CHOOSE}

- A single image has no motion: there is no propagation here, and *segment_length* and
  *frames_per_group* change nothing.
- Several images at once would be taken for the frames of one clip. Queue them one by one."""

LOW_VRAM = """\
## Upscale a video with little memory

What saves memory here, in the order to give it up again if you have more:

- **frames_per_group 1**: the decoder takes one frame at a time. 3 or 8 is steadier over time.
- **tile 128** in *Temporal VAE Decode*: decodes squares of 128 input pixels. 0 takes whole frames.
- **Tiles on Model**: the same for the U-Net. Bypass the node (Ctrl+B) for whole frames.
- **weight_dtype fp8_e4m3fn**: half of fp16's memory for the weights, at a small loss.

Still too much? Set *segment_length* to 4, or use the workflow *long_video*: there, memory does not
grow with the length either."""

FOOTAGE = f"""\
## Restore old footage

Old television, tapes and film transfers, at twice their size with their sound.

- **deinterlace auto** looks at some pictures: of two fields it makes whole ones, and telecined film
  gets its own frames back. Combs left over? Choose *top* or *bottom* by hand.
- **Noise**: *noise_level* 20 removes little of it. Raise it step by step, to 60 or so, for a noisy
  tape; the result gets softer. **detail** at 0.5 keeps the grain of a film.
- **Cuts** are found and nothing is carried over them; give a dissolve by hand in *cuts*.
- **Size**: *factor* 2 suits most screens and is made from all detail of 4x.

{CHOOSE}

Flicker is calmed along the motion (*propagation_steps*). Try a few seconds first."""

GENERATOR = """\
## Upscale what a generator made

A clip stands in for the generator, so that this runs as it is. To put it behind yours (Wan, LTX,
HunyuanVideo, any that gives frames):

1. Select all (Ctrl+A), copy (Ctrl+C), and paste (Ctrl+V) into the generator's workflow.
2. Connect its *VAE Decode* to **Frames to upscale**, and delete *Load Video*.
3. Set *fps* in *Create Video* to its frame rate (Wan 2.1: 16).

Both run in one queue; change the settings here, and the generator need not run again while its seed
is fixed. Generated frames are clean: keep *noise_level* at 20, and *detail* at 0.6 (1 repairs, and
changes more). Out of memory: see *low_vram*."""

LEVELS = {"above": 20, "below": 80}
GUIDANCES = {"middle": 1.0, "right": 3.0}
"""Values of guidance that *compare_settings* compares, by the place of their results."""
VERSIONS = ("as shipped, more detail", "smoother, smoother with more detail")
"""Names of these results, by row."""

COMPARE = """\
## Compare settings on a few frames

Left: the **input** as it is, and plainly enlarged (**bicubic**). Beside them four results. Above
*noise_level* is 20, below 80, which is smoother. In the middle *guidance* is 1, on the right 3,
which has more detail. All else is alike, the seed too.

1. Choose a clip; *batch_index* says at which frame to begin.
2. Change the numbers in group 3, and the names in *Compare Videos* with them.
3. Press **Run**. The video shows all at once; the tables say how steady each is.

A folded node opens with a click on the dot at its left."""


BLUEPRINT = """\
## Upscale video 4x

Frames in, frames four times as large out. What is not on the node outside is set here. Give the
result to *Create Video* together with the clip's sound and frame rate.

"""


def authors(propagation: bool = True, settings: bool = True, files: bool = True) -> str:
    """The preset of the authors' weights, as Markdown.

    ``settings``: the workflow has the node Settings; ``files``: each file has its own loader.
    """
    names = [
        f"*{value}*"
        for inputs in AUTHORS.values()
        for name, value in inputs.items()
        if name.endswith("_name") and (propagation or name != "flow_name")
    ]
    values = AUTHORS[SETTINGS_NODE]
    last = f", **propagation_steps** *{values['propagation_steps']}*" if propagation else ""
    numbers = (
        f"**noise_level** {values['noise_level']}, **guidance** {values['guidance']:g}, "
        f"**steps** {values['steps']}{last}"
    )
    count = "four" if propagation else "three"
    chosen = f"Choose all {count} files: {', '.join(names)}. "
    choose = f"In *Settings*, **weights** *{values['weights']}* sets {numbers}."
    return (
        "### With the authors' weights\n\n"
        "Larger, slower, for non-commercial use only; the README says where they come from. "
        + (chosen if files else "Choose *authors'* in *Load Upscale-A-Video*. ")
        + (choose if settings else f"Set {numbers}.")
    )
