"""Training clips: motion that is exact, smooth and sharp, and nothing held out in training."""

import json
import tarfile
from dataclasses import replace
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import write_clip

from uav_core.errors import InputError
from uav_core.training.data import clips, media, pack, sources
from uav_core.training.data.clips import ClipSource, Path2D, Picture, film, held_out, held_out_mild
from uav_core.training.data.degrade import DegradationParams
from uav_core.training.evaluate import low_resolution


def waves(height: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """A picture made of plane waves, so that it can be moved by any part of a pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.zeros((height, width, 3))
    for _ in range(12):
        fx, fy = rng.uniform(-0.6, 0.6, 2)
        phase, gain = rng.uniform(0, 6.3), rng.uniform(0.2, 1.0, 3)
        picture += gain * np.sin(fx * (x + shift) + fy * y + phase)[..., None]
    return np.clip(127.5 + 20 * picture, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared folder: two photographs and one video to train on, and everything held out."""
    root = tmp_path_factory.mktemp("data")
    (root / "photos").mkdir()
    (root / "videos").mkdir()
    files = []
    for seed, name in enumerate(("one", "two", *clips.HELD_OUT_PHOTOS)):
        Image.fromarray(waves(300, 400, seed)).save(root / "photos" / f"{name}.png")
        files.append(f"photos/{name}.png")
    for seed, name in enumerate(("film_00000", *sources.HELD_OUT_PIECES)):
        wide = waves(220, 320, 100 + seed)
        frames = [wide[:, t : t + 290] for t in range(sources.SEGMENT)]
        np.save(root / "videos" / f"{name}.npy", np.stack(frames))
        files.append(f"videos/{name}.npy")
    line = {"package": "", "version": "", "member": "", "author": "", "licence": "", "size": ""}
    lines = [{"file": file, **line} for file in files]
    (root / sources.INDEX).write_text(json.dumps({"files": lines}))
    return root


@pytest.fixture(scope="module")
def source(folder):
    return ClipSource(folder)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("frames", [1, 5])
def test_shape_and_range(folder, share, frames):
    source = ClipSource(folder, video_share=share)
    rng = np.random.default_rng(0)
    for _ in range(4):
        clip = source.sample(rng, frames, 64, 96)
        assert clip.shape == (3, frames, 64, 96)
        assert clip.dtype == torch.float32
        assert clip.is_contiguous()
        assert -1 <= clip.min() < clip.max() <= 1
        assert clip.std() > 0.05


def test_the_same_seed_gives_the_same_clips(source, folder):
    again = ClipSource(folder)
    for seed in range(6):
        one = source.sample(np.random.default_rng(seed), 4, 48, 48)
        two = again.sample(np.random.default_rng(seed), 4, 48, 48)
        assert torch.equal(one, two)
    other = source.sample(np.random.default_rng(99), 4, 48, 48)
    assert not torch.equal(one, other)


def test_nothing_held_out_is_in_training(source):
    assert source.photo_names == ["one", "two"]
    assert source.video_names == ["film_00000"]


def test_no_piece_of_the_film_touches_the_sample_or_a_held_out_part():
    """Also ten frames on either side stay clear."""
    (film_video,) = (video for video in sources.VIDEOS if video.name == "film")
    for start in film_video.starts:
        for first, stop in (media.SAMPLE_SCENE, *media.HELD_OUT_PARTS):
            assert start + sources.SEGMENT + 10 <= first or start >= stop + 10
    parts = (media.SAMPLE_SCENE, *media.HELD_OUT_PARTS)
    for start in film_video.held_out:
        inside = [a <= start and start + sources.SEGMENT <= b for a, b in parts]
        assert sum(inside) == 1


def test_names_in_the_tables_are_unique_and_known():
    names = [photo.name for photo in sources.PHOTOS]
    assert len(set(names)) == len(names)
    assert set(clips.HELD_OUT_PHOTOS) <= set(names)
    packages = {package.name for package in sources.PACKAGES}
    assert {photo.package for photo in sources.PHOTOS} <= packages
    assert {video.package for video in sources.VIDEOS} <= packages
    assert all(photo.author and photo.licence for photo in sources.PHOTOS)
    files = [(photo.package, photo.member) for photo in sources.PHOTOS]
    assert len(set(files)) == len(files)


def test_only_the_known_pieces_of_video_are_held_out():
    """More media may be added for training, but the clips for evaluation stay the same."""
    assert media.HELD_OUT_PIECES == (
        "film_01256",
        "film_01630",
        "film_05450",
        "film_06360",
        "film_07290",
        "film_10130",
        "film_11150",
        "city_00140",
    )


@pytest.mark.parametrize("video", media.VIDEOS, ids=lambda video: video.name)
def test_pieces_of_a_video_hardly_overlap(video):
    starts = sorted((*video.starts, *video.held_out))
    assert all(b - a >= sources.SEGMENT // 2 for a, b in pairwise(starts))
    assert not set(video.starts) & set(video.held_out)


def test_a_line_of_a_table_of_several_photographs_may_have_spaces():
    rows = """
        one first
        two second file
    """
    photos = media._several("package", "someone", "CC0", "in/{}.jpg", rows)
    assert [(photo.name, photo.member) for photo in photos] == [
        ("one", "in/first.jpg"),
        ("two", "in/second file.jpg"),
    ]
    assert {(p.package, p.author, p.licence) for p in photos} == {("package", "someone", "CC0")}


def test_held_out_clips_are_fixed(folder, monkeypatch):
    assert clips.HELD_OUT_SIZE == (256, 192)
    assert clips.HELD_OUT_FRAMES == 16
    monkeypatch.setattr(clips, "HELD_OUT_SIZE", (64, 48))
    one, two = held_out(folder), held_out(folder)
    assert len(one) == 24
    assert len({clip.name for clip in one}) == 24
    for a, b in zip(one, two, strict=True):
        assert a.name == b.name
        assert a.frames.shape == (3, 16, 48, 64)
        assert torch.equal(a.frames, b.frames)


def test_the_mild_half_is_the_same_clips_less_damaged(folder, monkeypatch):
    monkeypatch.setattr(clips, "HELD_OUT_SIZE", (64, 48))
    frames = {clip.name: clip.frames for clip in held_out(folder)}
    mild = held_out_mild(folder)
    assert [clip.name for clip in mild] == [f"{n}_{k}" for n, k in clips.HELD_OUT_MILD.items()]
    assert len(mild) == len(frames) / 2
    damage = {True: 0.0, False: 0.0}
    for number, (clip, name) in enumerate(zip(mild, clips.HELD_OUT_MILD, strict=True)):
        assert torch.equal(clip.frames, frames[name])
        ideal = torch.nn.functional.avg_pool3d(clip.frames[None], (1, 4, 4))
        for other in (clip, replace(clip, degradation=DegradationParams())):
            found = low_resolution(other, number) - ideal
            damage[other is clip] += float(found.abs().mean()) / len(mild)
    assert 0 < damage[True] < 0.8 * damage[False], damage


def test_a_known_pan_gives_a_known_shift():
    """Half a clip pixel per frame at two photo pixels each: one photo pixel per frame."""
    photo = waves(200, 260, 7)
    matrices = clips._matrices(Path2D(velocity=(0.5, 0.0)), 5, 2.0)
    matrices[:, :, 2] += (130.0, 100.0)
    clip = film(photo, matrices, 48, 64)
    for frame, offset in enumerate(range(-2, 3)):
        left, top = 130 - 64 + offset, 100 - 48
        part = photo[top : top + 96, left : left + 128].astype(np.float32)
        expected = part.reshape(48, 2, 64, 2, 3).mean((1, 3)) / 127.5 - 1
        got = clip[frame].permute(1, 2, 0).numpy()
        assert np.abs(got - expected).max() < 0.01


@pytest.mark.parametrize("part", [0.1, 0.25, 0.5])
def test_sub_pixel_motion_is_exact_and_keeps_its_sharpness(part):
    photo = waves(200, 260, 8)
    matrices = clips._matrices(Path2D(), 1, 1.5)
    matrices[:, :, 2] += (130.0 + part, 100.0)
    moved = film(photo, matrices, 48, 64)[0]
    matrices[:, :, 2] -= (part, 0.0)
    still = film(waves(200, 260, 8, shift=part), matrices, 48, 64)[0]
    assert (moved - still).abs().max() < 0.03
    assert abs(moved.std() / still.std() - 1) < 0.01


def test_random_paths_are_smooth():
    """Speed changes steadily, apart from the small sway of a hand."""
    for seed in range(200):
        path = clips.random_path(np.random.default_rng(seed), 8)
        x, y, size, angle = replace(path, sway=(0.0, 0.0)).at(8)
        assert np.allclose(np.diff(x, 3), 0) and np.allclose(np.diff(y, 3), 0)
        assert np.hypot(np.diff(x), np.diff(y)).max() < 25
        assert np.allclose(np.diff(np.log(size), 3), 0) and np.allclose(np.diff(angle, 3), 0)
        assert size.min() > 0.7 and size.max() < 1.4
        assert np.abs(angle).max() < 0.6
        swayed = path.at(8)
        assert max(np.abs(swayed[0] - x).max(), np.abs(swayed[1] - y).max()) < 5


def test_motion_is_not_in_whole_pixels():
    steps = []
    for seed in range(100):
        x, y, _, _ = clips.random_path(np.random.default_rng(seed), 8).at(8)
        steps += list(np.diff(x)) + list(np.diff(y))
    parts = np.abs(np.array(steps) % 1 - 0.5)
    assert np.histogram(parts, 5, (0, 0.5))[0].min() > 0.1 * len(steps)


def test_views_stay_inside_the_photo():
    picture = Picture.of(waves(200, 220, 9))
    for seed in range(50):
        rng = np.random.default_rng(seed)
        matrices = clips._placed(picture, clips.random_path(rng, 8), rng, 8, 96, 128)
        low, high = clips._reach(matrices, 96, 128)
        assert (low >= 1.99).all() and (high <= np.array([220, 200]) - 1.99).all()


def test_the_second_layer_moves_on_its_own():
    back = Picture.of(np.full((300, 300, 3), 40, np.uint8))
    front = Picture.of(np.full((300, 300, 3), 220, np.uint8))
    clip = clips.film_photos(back, front, np.random.default_rng(3), 6, 64, 64)
    share = ((clip[0] + 1) * 127.5 - 40) / 180
    assert 0.02 < share.mean() < 0.8
    assert share.min() >= -0.01 and share.max() <= 1.01
    columns = torch.arange(64.0)
    middles = (share.sum(1) * columns).sum(-1) / share.sum((1, 2))
    assert (middles[1:] - middles[:-1]).abs().max() > 0.05


def test_the_detailed_place_is_preferred():
    flat = np.full((400, 800, 3), 128, np.uint8)
    flat[:, 400:] = waves(400, 400, 5)
    picture = Picture.of(flat)
    right = picture.contrast(np.array([420.0, 50.0]), np.array([780.0, 350.0]))
    assert right > 1 > picture.contrast(np.array([20.0, 50.0]), np.array([380.0, 350.0]))


def test_a_folder_that_was_not_prepared_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"uav_core\.training\.data\.sources"):
        ClipSource(tmp_path)
    (tmp_path / sources.INDEX).write_text('{"files": []}')
    with pytest.raises(InputError, match="nothing to train on"):
        ClipSource(tmp_path)


def test_a_clip_larger_than_every_picture_is_refused(source):
    with pytest.raises(InputError, match="large and long enough"):
        source.sample(np.random.default_rng(0), 4, 1000, 1000)
    with pytest.raises(InputError, match="needs frames"):
        source.sample(np.random.default_rng(0), 0, 64, 64)


def test_big_pictures_are_shrunk_by_area():
    picture = Image.fromarray(waves(1200, 1900, 3))
    small = sources.shrink(picture)
    assert small.size == (950, 600)
    expected = np.asarray(picture).reshape(600, 2, 950, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(small) - expected).max() <= 1
    assert sources.shrink(Image.new("RGB", (4000, 3000))).size == (1536, 1152)
    assert sources.shrink(Image.new("RGB", (600, 400))).size == (600, 400)


def test_own_pictures_are_added_and_cuts_are_kept_out(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    Image.fromarray(waves(300, 400, 1)).save(own / "a b.png")
    (own / "broken.png").write_bytes(b"no picture")
    root = tmp_path / "data"
    (root / "photos").mkdir(parents=True)
    index = sources._Index(root)
    sources.add_photos(own, index)
    assert list(index.lines) == ["photos/own_a_b.png"]

    frames = [np.full((64, 64, 3), 30, np.uint8)] * 40 + [np.full((64, 64, 3), 200, np.uint8)] * 90
    pieces = list(sources.pieces_of_scenes(frames))
    assert [start for start, _ in pieces] == [0, 40, 88]
    assert all(len(piece) == sources.SEGMENT and piece.std() == 0 for _, piece in pieces)


def test_a_source_that_cannot_be_had_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    def fetch(package, folder):
        if package.client == "apt":
            raise sources.SourceError(f"{package.name}: no network")
        root = folder / "unpacked"
        for photo in (p for p in sources.PHOTOS if p.package == package.name):
            if photo.name == "coffee":  # a package that no longer has it
                continue
            (root / photo.member).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(waves(64, 64, 1)).save(root / photo.member)
        return root, "1.0"

    taken = []
    monkeypatch.setattr(sources, "fetch", fetch)
    # A video of the package that lacks a photograph.
    video = replace(sources.VIDEOS[0], package="scikit-image", starts=(0,), held_out=())
    monkeypatch.setattr(sources, "VIDEOS", (video,))
    monkeypatch.setattr(sources, "_take_video", lambda video, *_: taken.append(video))
    failed = sources.prepare(tmp_path)
    assert taken == [video]
    used = {photo.package for photo in sources.PHOTOS}
    apt, pip = (
        [p.name for p in sources.PACKAGES if p.client == client and p.name in used]
        for client in ("apt", "pip")
    )
    assert failed == [*apt, "scikit-image"]
    files = json.loads((tmp_path / sources.INDEX).read_text("utf-8"))["files"]
    assert {line["package"] for line in files} == set(pip)
    assert "photos/coffee.png" not in {line["file"] for line in files}
    assert all((tmp_path / line["file"]).exists() and line["version"] == "1.0" for line in files)


def test_a_pack_is_a_data_folder(folder, source, tmp_path):
    assert pack.write(folder, tmp_path / "pack.tar") == (tmp_path / "pack.tar").stat().st_size
    with tarfile.open(tmp_path / "pack.tar") as tar:
        tar.extractall(tmp_path / "data", filter="data")
    assert not pack.is_unpacked(folder) and pack.is_unpacked(tmp_path / "data")
    again = ClipSource(tmp_path / "data")
    assert (again.photo_names, again.video_names) == (source.photo_names, source.video_names)
    pairs = [(x.pixels, y.pixels) for x, y in zip(again.photos, source.photos, strict=True)]
    for there, here in [*pairs, *zip(again.videos, source.videos, strict=True)]:
        assert there.shape == here.shape
        assert np.abs(there.astype(int) - here).mean() < 4
    # The held-out clips travel as they are, and credits with everything.
    there, here = pack.held_out(tmp_path / "data", 30), pack.held_out(folder, 30)
    assert (there.names, there.which) == (here.names, here.which)
    assert there.names[:2] == ["castle", "stream"] and there.which[24:26] == [0, 2]
    assert np.array_equal(there.low, here.low) and np.array_equal(there.clean, here.clean)
    assert (tmp_path / "data" / sources.INDEX).read_bytes() == (folder / sources.INDEX).read_bytes()


def own_files(folder):
    """Photographs and videos with names that are alike, as people have them."""
    (folder / "trip").mkdir(parents=True)
    for seed, name in enumerate(("a-b.png", "a_b.png", "a b.jpg")):
        Image.fromarray(waves(300, 400, seed)).save(folder / name)
    for name in ("holiday.mp4", "holiday (1).mp4", "trip.mp4", "trip/part.mp4"):
        still = waves(102, 150, 0)
        shown = [av.VideoFrame.from_ndarray(still, "rgb24") for _ in range(sources.SEGMENT + 2)]
        write_clip(folder / name, len(shown), size=(150, 102), pictures=shown)
    return folder


def test_own_media_of_like_names_are_all_taken(tmp_path):
    own, index = own_files(tmp_path / "own"), sources._Index(tmp_path / "data")
    for name in ("photos", "videos"):
        (index.folder / name).mkdir(parents=True)
    for _ in range(2):  # the second time nothing is missing
        sources.add_photos(own, index)
        sources.add_videos(own, index)
        assert len([f for f in index.lines if f.startswith("photos/")]) == 3
        assert len([f for f in index.lines if f.startswith("videos/")]) == 4
    for file in index.lines:
        assert (index.folder / file).is_file()
    # A new one with a name before those that are there takes the place of none.
    Image.fromarray(waves(300, 400, 9)).save(own / "a b.tif")
    sources.add_photos(own, index)
    photos = [line.member for line in index.lines.values() if line.file.startswith("photos/")]
    assert sorted(photos) == ["a b.jpg", "a b.tif", "a-b.png", "a_b.png"]
    assert len(photos) == 4


def test_own_media_go_on_where_they_were_stopped(tmp_path, monkeypatch):
    own, data = own_files(tmp_path / "own"), tmp_path / "data"
    for name in ("photos", "videos"):
        (data / name).mkdir(parents=True)
    monkeypatch.setattr(sources, "PACKAGES", ())
    save, saved = sources._save, []

    def stopped(path, piece):
        save(path, piece)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(sources, "_save", stopped)
        sources.prepare(data, own, own)
    sources.prepare(data, own, own)
    files = [line["file"] for line in json.loads((data / sources.INDEX).read_text())["files"]]
    assert len(files) == len(set(files)) == 7


def test_no_clip_is_held_out_where_none_is_asked_for(tmp_path):
    assert pack.held_out(tmp_path, 0).names == []
