import weakref
from itertools import pairwise

import pytest
import tiny
import torch
from generated import det
from tile_pictures import Largest, jump, paste, smooth

from uav_core.errors import InputError
from uav_core.sampling.tiles import (
    Tile,
    blended,
    plan_tiles,
    tiled_decode,
    tiled_predict,
)

LEVEL, STEP = torch.tensor([120]), torch.tensor([500])


@pytest.mark.parametrize("h", [8, 61, 64, 65, 100, 270])
@pytest.mark.parametrize("w", [64, 71, 480])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (100, 20), (24, 0), (72, 64)])
def test_plans_cover_in_tiles_of_one_size(h, w, tile, overlap):
    plan = plan_tiles((h, w), tile, overlap)
    assert plan == plan_tiles((h, w), tile, overlap)
    seen = torch.zeros(h, w)
    for t in plan:
        assert 0 <= t.top < t.bottom <= h
        assert 0 <= t.left < t.right <= w
        t.crop(seen).add_(1)
    assert seen.min() >= 1
    sizes = {(t.bottom - t.top, t.right - t.left) for t in plan}
    assert sizes == {(h if h <= tile else tile // 8 * 8, w if w <= tile else tile // 8 * 8)}
    starts = sorted({t.left for t in plan})
    assert all(start % 8 == 0 for start in starts[:-1])
    width = min(w, tile // 8 * 8) if len(starts) > 1 else w
    shared = [a + width - b for a, b in pairwise(starts)]
    assert all(n >= overlap for n in shared)
    assert all(n < overlap + 8 for n in shared[:-1])


def test_known_plan():
    assert plan_tiles((64, 100), 64, 16) == (Tile(0, 64, 0, 64), Tile(0, 64, 36, 100))
    assert plan_tiles((33, 47), 48, 40) == (Tile(0, 33, 0, 47),)


@pytest.mark.parametrize(
    ("h", "w", "tile", "overlap"), [(0, 8, 64, 16), (64, 64, 20, 16), (64, 64, 64, -1)]
)
def test_impossible_plans_are_named(h, w, tile, overlap):
    with pytest.raises(InputError, match="expected"):
        plan_tiles((h, w), tile, overlap)


@pytest.mark.parametrize("overlap", [0, 8, 16, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tiles_of_a_picture_give_the_picture(overlap, dtype):
    # The last tiles are moved back, so that up to three meet.
    x = det("picture", (2, 3, 100, 149)).to(dtype)
    plan = plan_tiles((100, 149), 64, overlap)
    out = blended(plan, lambda tile: tile.crop(x))
    assert out.dtype == dtype
    torch.testing.assert_close(out, x, rtol=1e-6 if dtype == torch.float32 else 1e-3, atol=1e-6)


def test_every_pixel_of_every_tile_counts_and_fades():
    plan = plan_tiles((40, 100), 48, 16)
    assert len(plan) == 3
    for chosen in plan:
        share = blended(plan, lambda t, one=chosen: torch.full((40, 48), float(t == one)))
        assert (chosen.crop(share) > 0).all()
        # A raised cosine over n pixels is nowhere steeper than pi / (2 n).
        assert share.diff(dim=1).abs().max() <= torch.pi / 2 / 16
        for column in (c for c in (chosen.left, chosen.right) if 0 < c < 100):
            assert (share[:, column] - share[:, column - 1]).abs().max() < 0.01


def test_parts_are_held_one_at_a_time():
    plan = plan_tiles((16, 64), 16, 0)
    alive: list[weakref.ref] = []

    def made(tile):
        assert all(ref() is None for ref in alive), "an earlier part is still held"
        part = torch.ones(1, 16, 16)
        alive.append(weakref.ref(part))
        return part

    assert blended(plan, made).eq(1).all()
    assert len(alive) == 4


def test_parts_of_another_size_are_refused():
    plan = plan_tiles((16, 24), 16, 8)
    with pytest.raises(InputError, match="expected \\(16, 16\\)"):
        blended(plan, lambda tile: torch.zeros(1, 64, 64))
    assert blended(plan, lambda tile: torch.zeros(1, 64, 64), 4).shape == (1, 64, 96)


def test_a_picture_of_one_tile_runs_as_without():
    def predict(x):
        return x

    assert tiled_predict(predict, plan_tiles((16, 24), 24, 8)) is predict


def test_what_has_the_pictures_size_is_cropped_to_its_place():
    h, w = 40, 48
    noise, frames = det("noise", (2, 4, 3, h, w)), det("frames", (2, 3, 3, h, w))
    text = det("text", (2, h, w))  # by chance as large as the picture
    seen = []

    def predict(x, t, context, *, c_concat, options):
        seen.append((tuple(x.shape), tuple(c_concat.shape)))
        assert context is text
        assert options["a"] is noise
        return x + c_concat[:, :1] * t

    plan = plan_tiles((h, w), 32, 16)
    checks = []
    tiled = tiled_predict(predict, plan, lambda: checks.append(len(seen)))
    out = tiled(noise, 7, text, c_concat=frames, options={"a": noise})
    # What looks at single pixels cannot tell tiles from the whole: noise stays where it was.
    torch.testing.assert_close(out, noise + frames[:, :1] * 7, rtol=1e-6, atol=1e-5)
    assert seen == [((2, 4, 3, 32, 32), (2, 3, 3, 32, 32))] * 4
    assert checks == [0, 1, 2, 3]


def test_cancelling_between_tiles_passes():
    class Cancelled(Exception):
        pass

    calls = []

    def check():
        if calls:
            raise Cancelled

    def predict(x):
        calls.append(1)
        return x

    with pytest.raises(Cancelled):
        tiled_predict(predict, plan_tiles((16, 32), 16, 0), check)(torch.zeros(1, 1, 16, 32))
    assert len(calls) == 1


@torch.inference_mode()
def test_unet_tiles_leave_no_border():
    h, w = 32, 48
    plan = plan_tiles((h, w), 32, 16)
    x, frames, text = smooth("jl", 4, h, w), smooth("jlr", 3, h, w), tiny.context()[:1]

    def predict(latent, low_res):
        return tiny.unet()(latent, STEP, low_res, text, LEVEL)

    parts = [(tile, predict(tile.crop(x), tile.crop(frames))) for tile in plan]
    whole = tiled_predict(predict, plan)(x, frames)
    assert len(plan) == 2
    assert jump(whole, plan) < 1.1
    assert jump(paste(parts, x), plan) > 1.4


@pytest.mark.parametrize("kind", ["vae_3d", "vae_video"])
@torch.inference_mode()
def test_decoded_tiles_leave_no_border(kind):
    vae, h, w = tiny.vae(kind), 32, 48
    z, frames = smooth("jl", 4, h, w), smooth("jlr", 3, h, w)
    whole = vae.decode(z, frames)
    assert torch.equal(tiled_decode(vae, z, frames, 1.0, plan_tiles((h, w), 48, 16)), whole)

    plan = plan_tiles((h, w), 32, 16)
    large = [tile.scaled(4) for tile in plan]
    tiled = tiled_decode(vae, z, frames, 1.0, plan)
    parts = [(tile.scaled(4), vae.decode(tile.crop(z), tile.crop(frames))) for tile in plan]
    assert tiled.shape == whole.shape
    assert jump(tiled, large) < 1.1
    assert jump(paste(parts, whole), large) > 1.4
    # Far from the other tile, a tile alone decides.
    torch.testing.assert_close(tiled[..., :64], parts[0][1][..., :64])


def test_decode_refuses_a_plan_for_another_size():
    vae, plan = tiny.vae("vae_video"), plan_tiles((16, 24), 16, 8)
    with pytest.raises(InputError, match="of the latent is"):
        tiled_decode(vae, torch.zeros(1, 4, 1, 16, 32), None, 0.0, plan)
    with pytest.raises(InputError, match="low-resolution frames is"):
        z, frames = torch.zeros(1, 4, 1, 16, 24), torch.zeros(1, 3, 1, 16, 32)
        tiled_decode(vae, z, frames, 1.0, plan)


@torch.inference_mode()
def test_decoding_holds_features_of_one_tile():
    vae = tiny.vae("vae_3d")
    z = det("wide", (1, 4, 1, 16, 128))
    with Largest() as whole:
        vae.decode(z)
    with Largest() as tiled:
        tiled_decode(vae, z, None, 1.0, plan_tiles((16, 128), 16, 8))
    assert tiled.nbytes <= whole.nbytes / 4
