import pytest
import torch
import torch.nn.functional as F
from generated import det, golden

from uav_core.errors import InputError
from uav_core.frames.color import adain, color_fix, low_frequencies, wavelet

GOLDEN = golden()
CONTENT = det("color/content", (3, 3, 64, 72)).clamp(-1, 1)
STYLE = det("color/style", (3, 3, 64, 72)).clamp(-1, 1) * 0.5 + 0.2


@pytest.mark.parametrize("fix", [adain, wavelet])
def test_golden(fix):
    expected = GOLDEN[f"color/{fix.__name__}"]
    torch.testing.assert_close(fix(CONTENT, STYLE), expected, rtol=0, atol=1e-5)


def test_adain_takes_mean_and_spread():
    fixed = adain(CONTENT, STYLE)
    torch.testing.assert_close(fixed.mean((2, 3)), STYLE.mean((2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(fixed.std((2, 3)), STYLE.std((2, 3)), rtol=1e-4, atol=0)
    assert adain(torch.zeros_like(CONTENT), STYLE).isfinite().all()


def test_wavelet_moves_a_cast_and_keeps_detail():
    cast = CONTENT + torch.tensor([0.3, -0.2, 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(wavelet(CONTENT, cast), cast)
    torch.testing.assert_close(wavelet(CONTENT, CONTENT), CONTENT)


@pytest.mark.parametrize("mode", ["adain", "wavelet"])
def test_color_fix_uses_the_enlarged_clip(mode):
    frames = det("frames", (1, 3, 4, 32, 40)).clamp(-1, 1)
    low_res = det("low_res", (1, 3, 4, 8, 10)).clamp(-1, 1)
    before = frames.clone()
    fixed = color_fix(frames, low_res, mode)
    assert torch.equal(frames, before)
    fix = {"adain": adain, "wavelet": wavelet}[mode]
    for i in range(4):
        style = F.interpolate(low_res[:, :, i], size=(32, 40), mode="bicubic")
        torch.testing.assert_close(fixed[:, :, i], fix(frames[:, :, i], style))


def test_color_fix_keeps_dtype_and_none_does_nothing():
    frames = det("frames", (1, 3, 1, 4, 4)).half()
    low_res = det("low_res", (1, 3, 1, 1, 1))
    assert color_fix(frames, low_res, "wavelet").dtype == torch.float16
    assert color_fix(frames, low_res, "none") is frames


@pytest.mark.parametrize(
    ("frames", "low_res", "mode", "says"),
    [
        ((1, 3, 2, 8, 8), (1, 3, 2, 2, 2), "lab", "unknown"),
        ((1, 3, 2, 8, 8), (1, 3, 3, 2, 2), "adain", "expected"),
        ((1, 3, 2, 8, 8), (1, 3, 2, 4, 4), "adain", "expected"),
        ((3, 2, 8, 8), (3, 2, 2, 2), "wavelet", "t, h, w"),
    ],
)
def test_color_fix_names_what_is_wrong(frames, low_res, mode, says):
    with pytest.raises(InputError, match=says):
        color_fix(torch.zeros(frames), torch.zeros(low_res), mode)


@pytest.mark.parametrize("shape", [(1, 3, 40, 64), (2, 3, 5, 7), (1, 1, 1, 20)])
def test_low_frequencies_are_dilated_convolutions(shape):
    x = det("color.low", shape)
    kernel = torch.tensor([0.25, 0.5, 0.25])
    both = (kernel[:, None] * kernel).expand(shape[1], 1, 3, 3)
    expected = x
    for dilation in (1, 2, 4, 8, 16):
        padded = F.pad(expected, (dilation,) * 4, mode="replicate")
        expected = F.conv2d(padded, both, dilation=dilation, groups=shape[1])
    torch.testing.assert_close(low_frequencies(x, 5), expected, rtol=0, atol=2e-6)
