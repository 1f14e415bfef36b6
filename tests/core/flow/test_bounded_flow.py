import pytest
import torch
import torch.nn.functional as F
from generated import det

from uav_core.errors import InputError
from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import NeighbourFlow, bounded_size, estimate_flow, estimate_flows

MOVE = (4, 2)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """(1, 3, 3, 96, 160): a texture that moves by 4 px right and 2 px down a frame."""
    coarse = det("texture", (1, 3, 14, 22))
    wide = F.interpolate(coarse, (112, 176), mode="bicubic", align_corners=False).clamp(-1, 1)
    x, y = MOVE
    places = [(8 - y * i, 8 - x * i) for i in range(3)]
    return torch.stack([wide[..., a : a + 96, b : b + 160] for a, b in places], dim=2)


def bounded(model, a, b, iterations, longest_side):
    return next(NeighbourFlow(model, iterations).both_ways(a, b, longest_side))


def test_sizes():
    assert bounded_size(1080, 1920, 960) == (540, 960)
    assert bounded_size(1080, 1920, None) == (1080, 1920)
    assert bounded_size(540, 960, 960) == (540, 960)
    assert bounded_size(20, 2000, 100) == (16, 100)
    with pytest.raises(InputError, match="at least 16"):
        bounded_size(100, 100, 15)


def test_frames_within_the_bound_give_the_very_flow(clip):
    a, b = clip[:, :, 0], clip[:, :, 1]
    expected = estimate_flow(BuiltinFlow(), a, b, 2)
    for bound in (None, 160):
        assert torch.equal(bounded(BuiltinFlow(), a, b, 2, bound), expected)


def test_a_shrunk_estimate_is_in_pixels_of_the_frame(clip):
    sizes = []

    class Watched(BuiltinFlow):
        def forward(self, image1, image2, *args, **kwargs):
            sizes.append(tuple(image1.shape[-2:]))
            return super().forward(image1, image2, *args, **kwargs)

    flow = bounded(Watched(), clip[:, :, 0], clip[:, :, 1], 12, 80)
    assert sizes == [(48, 80)]
    assert flow.shape == (1, 2, 96, 160)
    inner = flow[:, :, 16:-16, 16:-16]
    error = inner - torch.tensor(MOVE).view(1, 2, 1, 1)
    assert error.norm(dim=1).median() < 0.3


def test_a_clip_gives_the_flows_of_its_pairs(clip):
    counts = []
    forward, backward = estimate_flows(
        BuiltinFlow(), clip, 2, lambda *count: counts.append(count), longest_side=80
    )
    assert forward.shape == backward.shape == (1, 2, 2, 96, 160)
    for i in range(2):
        a, b = clip[:, :, i], clip[:, :, i + 1]
        for got, pair in ((forward, (a, b)), (backward, (b, a))):
            expected = bounded(BuiltinFlow(), *pair, 2, 80)
            torch.testing.assert_close(got[:, :, i], expected)
    assert counts[-1] == (4, 4)


def test_wrong_images_are_refused(clip):
    with pytest.raises(InputError, match="one size"):
        bounded(BuiltinFlow(), clip[:, :, 0], clip[:, :, 1, :50], 2, 80)
    with pytest.raises(InputError, match=r"\(1, 3, t, h, w\)"):
        estimate_flows(BuiltinFlow(), clip[0], 2, longest_side=80)
