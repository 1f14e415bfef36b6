"""The shipped workflows besides the two plain ones: one image, a comparison, other sources."""

from __future__ import annotations

from scripts.workflows import notes
from scripts.workflows.forms import Graph, Out
from scripts.workflows.stages import PICTURE, PITCH, QUALITY, TALL, WIDE, Models, Stages

# The colours of the groups, by what is in them.
SOURCE, LOADERS, TEXT, SAMPLING, RESULT = "#3f789e", "#8A8", "#b58b2a", "#a1309b", "#88A"
SETTINGS = "#a55"
WAN = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
TILE = 128


def column(g: Stages, x: int, *, flow: bool = True, weight_dtype: str = "default") -> Models:
    """A column with the settings and, under them, the loaders."""
    g.settings(x + 10, 80)
    g.group("2  Settings", (x, 0, 340, 410), SETTINGS)
    g.group("3  Models", (x, 420, 340, TALL - 420), LOADERS)
    return g.models(x + 10, 500, weight_dtype, flow)


def upscale_groups(g: Stages, x: int, *, texts: int = 570) -> None:
    """The frames around what `Stages.upscale` puts; the first one ``texts`` high."""
    g.group("4  Text and low-res conditioning", (x, 0, 340, texts), TEXT)
    g.group("5  Sampling along the motion", (x + PITCH, 0, 340, TALL), SAMPLING)
    g.group("6  Decode and save", (x + 2 * PITCH, 0, 340, TALL), RESULT)


def single_image() -> Graph:
    """One image through the same stages; there is no motion to follow."""
    g = Stages()
    image = g.put("LoadImage", (10, 80), (WIDE, 400), image=PICTURE)
    models = column(g, PITCH, flow=False)
    x = 2 * PITCH + 10
    texts = g.texts(x, 80, models.clip)
    conditioning = g.conditioning(x, 400, image, texts)
    latent = g.sampler(x + PITCH, 80, models.unet, conditioning)
    x += 2 * PITCH
    images = g.decode(x, 80, latent, models.vae, image)
    g.put("SaveImage", (x, 370), (WIDE, 420), images=images, filename_prefix="upscaled")
    g.group("1  Your image", (0, 0, 340, 490), SOURCE)
    upscale_groups(g, 2 * PITCH)
    g.note((0, 530), (340, TALL - 530), notes.IMAGE)
    g.note((2 * PITCH, 610), (340, TALL - 610), notes.authors(propagation=False))
    return g


def low_vram() -> Graph:
    """The plain workflow with everything that saves memory, at the price of time."""
    g = Stages()
    frames, audio, fps = g.video(10, 80)
    models = column(g, PITCH, weight_dtype="fp8_e4m3fn")
    g.upscale(2 * PITCH + 10, models, frames, fps, audio, tile=TILE, frames_per_group=1)
    g.group("1  Your clip", (0, 0, 340, 570), SOURCE)
    upscale_groups(g, 2 * PITCH)
    g.note((0, 610), (340, TALL - 610), notes.LOW_VRAM)
    g.note((2 * PITCH, 610), (340, TALL - 610), notes.CHOOSE + "\n\n" + notes.authors())
    return g


def after_generator() -> Graph:
    """ComfyUI's own text-to-video graph for Wan 2.1, and its frames upscaled in the same queue."""
    g = Stages()
    generated, prompt = _wan(g)
    x = 1180 + PITCH
    text = g.put(
        "StringConcatenate",
        (x + 10, 620),
        (WIDE, 200),
        title="The same prompt and quality words",
        string_a=prompt,
        string_b=QUALITY,
        delimiter=", ",
    )
    g.upscale(x + 10, column(g, 1180), generated, 16.0, text=text)
    g.group("1  Generate: ComfyUI's own Wan 2.1", (-40, 0, 1200, 700), SOURCE)
    upscale_groups(g, x, texts=TALL)
    g.note((-40, 740), (700, TALL - 740), notes.GENERATOR)
    g.note((680, 740), (480, TALL - 740), notes.CHOOSE + "\n\n" + notes.authors())
    return g


def _wan(g: Stages) -> tuple[Out, Out]:
    """ComfyUI's template `text_to_video_wan`; the frames and the prompt."""
    unet = g.put(
        "UNETLoader",
        (-20, 80),
        (340, 90),
        unet_name="wan2.1_t2v_1.3B_fp16.safetensors",
        weight_dtype="default",
        models=[f"{WAN}/diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors"],
    )
    clip = g.put(
        "CLIPLoader",
        (-20, 230),
        (340, 110),
        clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        type="wan",
        device="default",
        models=[f"{WAN}/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors"],
    )
    vae = g.put(
        "VAELoader",
        (-20, 400),
        (340, 70),
        vae_name="wan_2.1_vae.safetensors",
        models=[f"{WAN}/vae/wan_2.1_vae.safetensors"],
    )
    prompt = g.put(
        "PrimitiveStringMultiline",
        (-20, 530),
        (340, 150),
        title="What the video shows",
        value="a fox moving quickly in a beautiful winter scenery nature trees mountains daytime "
        "tracking camera",
    )
    positive = g.put("CLIPTextEncode", (370, 80), (350, 110), text=prompt, clip=clip)
    negative = g.put(
        "CLIPTextEncode",
        (370, 250),
        (350, 130),
        title="What Wan should avoid",
        text="blurred details, subtitles, static picture, overexposed, low quality, deformed",
        clip=clip,
    )
    empty = g.put(
        "EmptyHunyuanLatentVideo",
        (370, 440),
        (350, 140),
        width=832,
        height=480,
        length=33,
        batch_size=1,
    )
    shifted = g.put("ModelSamplingSD3", (770, 80), (370, 70), model=unet, shift=8.0)
    latent = g.put(
        "KSampler",
        (770, 210),
        (370, 250),
        model=shifted,
        positive=positive,
        negative=negative,
        latent_image=empty,
        seed=0,
        steps=30,
        cfg=6.0,
        sampler_name="uni_pc",
        scheduler="simple",
        denoise=1.0,
    )
    return g.put("VAEDecode", (770, 560), (370, 60), samples=latent, vae=vae), prompt


def compare_settings() -> Graph:
    """The input, bicubic, and two noise levels with two values of guidance each, as one picture."""
    g = Stages()
    frames, _, fps = g.video(-30, 120)
    piece = g.put(
        "ImageFromBatch",
        (-30, 650),
        (WIDE, 90),
        title="The first eight frames",
        image=frames,
        batch_index=0,
        length=8,
    )
    models = g.models(340, 120)
    propagation = g.propagation(340, 660, models.flow, piece)
    texts = g.texts(760, 120, models.clip)
    pixels = g.put(
        "ImageScaleBy",
        (2440, 600),
        (400, 110),
        title="The input, its pixels enlarged",
        image=piece,
        upscale_method="nearest-exact",
        scale_by=4.0,
    )
    # What is smaller than the others is enlarged by the comparison, bicubic.
    known, rows = (("input", pixels), ("bicubic", piece)), []
    for row, level in enumerate((20, 80)):
        y = 120 + 720 * row
        conditioning = g.conditioning(760, 500 + 720 * row, piece, texts, noise_level=level)
        clips = []
        for column, guidance in enumerate((1.0, 3.0)):
            latent = g.sampler(
                1200 + 400 * column,
                y,
                models.unet,
                conditioning,
                propagation=propagation,
                guidance=guidance,
            )
            clips.append(g.decode(2020, y + 330 * column, latent, models.vae, piece))
        compared = g.put(
            "UpscaleAVideoCompare",
            (2440, y),
            (400, 330),
            first=known[row][1],
            second=clips[0],
            third=clips[1],
            names=f"{known[row][0]}, {notes.VERSIONS[row]}",
        )
        rows.append(compared)
    grid = g.put(
        "ImageStitch",
        (2900, 120),
        (360, 150),
        title="One row under the other",
        image1=rows[0],
        image2=rows[1],
        direction="down",
        match_image_size=True,
    )
    g.save_video(2900, 330, grid, fps, prefix="video/compared")
    g.group("1  Your clip", (-40, 40, 340, 860), SOURCE)
    g.group("2  Models and motion", (320, 40, 400, 920), LOADERS)
    g.group("3  Text and two noise levels", (740, 40, 420, 1400), TEXT)
    g.group("4  Two values of guidance at each", (1180, 40, 800, 1400), SAMPLING)
    g.group("5  Decode", (2000, 40, 400, 1400), RESULT)
    g.group("6  Compare", (2420, 40, 440, 1400), "#3a7a6a")
    g.group("7  All four", (2880, 40, 400, 900), RESULT)
    g.note((-40, 1010), (760, 430), notes.COMPARE + notes.authors(settings=False))
    return g
