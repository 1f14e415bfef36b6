"""The dial from the plain enlargement to all of the result."""

import pytest
import torch
import torch.nn.functional as F
from generated import det

from uav_core.errors import InputError
from uav_core.frames.detail import with_detail
from uav_core.sampling.pipeline import bicubic

LOW_RES = det("low_res", (1, 3, 3, 8, 10)).clamp(-1, 1)
FRAMES = bicubic(LOW_RES) + 0.2 * det("frames", (1, 3, 3, 32, 40))


def test_all_of_it_is_the_frames_themselves():
    assert with_detail(FRAMES, LOW_RES, 1) is FRAMES


def test_none_of_it_is_the_bicubic_enlargement_to_the_bit():
    assert torch.equal(with_detail(FRAMES, LOW_RES, 0), bicubic(LOW_RES))


def shrunk(clip):
    return F.avg_pool3d(clip, (1, 4, 4))


def test_half_of_it_takes_back_what_the_frames_change_of_the_input():
    result = with_detail(FRAMES, LOW_RES, 0.5)
    expected = FRAMES + bicubic(LOW_RES - shrunk(FRAMES))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    missing = [(shrunk(x) - LOW_RES).square().mean().sqrt() for x in (FRAMES, result)]
    assert missing[1] < 0.4 * missing[0]


def showing(low_res):
    """Frames with detail of their own that are ``low_res`` when they are shrunk."""
    frames = bicubic(low_res) + 0.2 * det("finer", (1, 3, 3, 32, 40))
    return frames + F.interpolate(low_res - shrunk(frames), scale_factor=(1, 4, 4))


def test_frames_that_show_the_input_lose_nothing_at_a_half():
    frames = showing(LOW_RES)
    torch.testing.assert_close(with_detail(frames, LOW_RES, 0.5), frames, rtol=0, atol=1e-6)


def test_a_change_of_all_colours_comes_in_the_upper_half_alone():
    plain, frames = bicubic(LOW_RES), showing(LOW_RES)
    for detail, fine, cast in ((0.2, 0.4, 0.0), (0.5, 1.0, 0.0), (0.75, 1.0, 0.5), (1.0, 1.0, 1.0)):
        expected = plain + fine * (frames - plain) + 0.25 * cast
        result = with_detail(frames + 0.25, LOW_RES, detail)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_dtype_and_input_stay():
    half, before = FRAMES.half(), FRAMES.clone()
    assert with_detail(half, LOW_RES, 0.3).dtype == torch.float16
    with_detail(FRAMES, LOW_RES, 0.3)
    assert torch.equal(FRAMES, before)


def test_above_all_of_it_only_what_is_finer_than_the_input_grows():
    frames = showing(LOW_RES)
    result = with_detail(frames + 0.25, LOW_RES, 1.5)
    expected = bicubic(LOW_RES) + 1.5 * (frames - bicubic(LOW_RES)) + 0.25
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("detail", [-0.1, 1.51, float("nan")])
def test_out_of_range(detail):
    with pytest.raises(InputError, match=r"expected 0 \(bicubic\) to 1\.5"):
        with_detail(FRAMES, LOW_RES, detail)


def test_clips_that_do_not_belong_together():
    with pytest.raises(InputError, match="detail got frames"):
        with_detail(FRAMES, LOW_RES[..., :-1], 0.5)
