"""The dial from the plain enlargement to all of the result."""

import pytest
import torch
import torch.nn.functional as F
from generated import det

from uav_core.errors import InputError
from uav_core.frames.color import low_frequencies
from uav_core.frames.detail import NEW_BANDS, with_detail
from uav_core.sampling.pipeline import bicubic

LOW_RES = det("low_res", (1, 3, 3, 8, 10)).clamp(-1, 1)
FRAMES = bicubic(LOW_RES) + 0.2 * det("frames", (1, 3, 3, 32, 40))


def test_all_of_it_is_the_frames_themselves():
    assert with_detail(FRAMES, LOW_RES, 1) is FRAMES


def test_none_of_it_is_the_bicubic_enlargement_to_the_bit():
    assert torch.equal(with_detail(FRAMES, LOW_RES, 0), bicubic(LOW_RES))


def test_half_of_it_adds_what_is_finer_and_changes_nothing_else():
    result = with_detail(FRAMES, LOW_RES, 0.5)
    gained = (FRAMES - bicubic(LOW_RES))[0].transpose(0, 1)
    fine = gained - low_frequencies(gained, NEW_BANDS)
    expected = bicubic(LOW_RES) + fine.transpose(0, 1)[None]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_a_change_of_all_colours_comes_in_the_upper_half_alone():
    cast = bicubic(LOW_RES) + 0.25
    for detail, share in ((0.0, 0.0), (0.3, 0.0), (0.5, 0.0), (0.75, 0.5), (1.0, 1.0)):
        expected = bicubic(LOW_RES) + 0.25 * share
        torch.testing.assert_close(with_detail(cast, LOW_RES, detail), expected, rtol=0, atol=1e-6)


def test_more_is_never_less_sharp():
    def sharpness(x):
        return float((F.avg_pool2d(x[0], 3, 1) - x[0, ..., 1:-1, 1:-1]).abs().mean())

    seen = [sharpness(with_detail(FRAMES, LOW_RES, step / 8)) for step in range(9)]
    assert seen == sorted(seen) and seen[0] < seen[4] < seen[8]


def test_dtype_and_input_stay():
    half, before = FRAMES.half(), FRAMES.clone()
    assert with_detail(half, LOW_RES, 0.3).dtype == torch.float16
    with_detail(FRAMES, LOW_RES, 0.3)
    assert torch.equal(FRAMES, before)


@pytest.mark.parametrize("detail", [-0.1, 1.01, float("nan")])
def test_out_of_range(detail):
    with pytest.raises(InputError, match=r"expected 0 \(bicubic\) to 1"):
        with_detail(FRAMES, LOW_RES, detail)


def test_clips_that_do_not_belong_together():
    with pytest.raises(InputError, match="detail got frames"):
        with_detail(FRAMES, LOW_RES[..., :-1], 0.5)
