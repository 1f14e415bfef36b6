"""Optical flow without learned weights, called like torchvision's RAFT.

It works from coarse to fine. On the coarsest level of a pyramid it tries whole-pixel shifts. From
there to the finest level it warps the second image by the flow so far, linearises the differences
in colour and gradient around it, and finds a smooth flow that explains them by a primal-dual
scheme. Sources: TV-L1 flow (Zach, Pock & Bischof 2007) solved with the steps of Chambolle & Pock
2011; data terms summed over neighbours (Bruhn, Weickert & Schnoerr 2005) and gradient constancy
(Brox et al. 2004); Huber smoothness, weaker at the image's edges (Werlberger et al. 2009); a median
filter after every warp (Sun, Roth & Black 2010). Nothing is random.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .estimate import stretch_flow
from .warp import inside, warp

BUILTIN_FLOW = "built-in (no weights)"
"""The built-in flow's name in lists of flow models."""

# The pyramid: every level has half the sides of the one before; the last one has at least
# COARSEST_SIDE pixels on its short side. The shifts tried there reach REACH of its pixels each
# way, up to a quarter of its short side.
COARSEST_SIDE = 24
REACH = 6

# How often each level warps the second image and linearises the differences anew.
WARPS = 4

# Weights of the energy, for colours in [0, 1] and flows in pixels of the level.
FIDELITY = 30.0
"""Weight of the data term; smoothness has weight 1."""
SLOPE_WEIGHT = 1.5
"""Weight of a difference of gradients; one of colours has weight 1."""
ROBUST = 0.005
"""Differences well below this have a quadratic cost, those well above a linear one."""
HUBER = 0.05
"""Gradients of the flow below this have a quadratic cost, those above a linear one."""
EDGE = 8.0
"""How fast smoothing weakens as the gradient of the colours grows."""
LEAST_SMOOTHING = 0.02
"""The share of smoothing that is left at steep gradients."""

# Standard deviations of Gaussians, in pixels of the level: for the images, against aliasing; for
# the data term; and for the windows that the search compares.
PRESMOOTH = 0.6
WINDOW = 0.8
SEARCH_WINDOW = 2.0

# The search: differences above SEARCH_CAP count as SEARCH_CAP; a shift costs SEARCH_COST per pixel,
# so that plain areas do not move. A shift is not considered where less than SEARCH_SHARE of the
# window stays inside the picture.
SEARCH_CAP = 0.2
SEARCH_COST = 0.003
SEARCH_SHARE = 0.3

# Step sizes of the primal-dual scheme: their product times 8, the squared norm of the gradient,
# must not exceed 1. The weights of the robust data term are renewed every _RENEW steps.
_PRIMAL = 0.25
_DUAL = 0.5
_SHRINK = 1 + _DUAL * HUBER
"""Divides the dual in every step: the cost of a small gradient is quadratic."""
_RENEW = 5


class BuiltinFlow(nn.Module):
    """Flow from image1 to image2, both (n,3,h,w) in [-1, 1], as [(n,2,h,w)] in pixels.

    The list has one entry, as RAFT returns a list of predictions. `num_flow_updates` is the number
    of solver steps after each warp: 20 is exact enough, less is faster. Takes any size; computes in
    fp32.
    """

    # Tells `uav_core.flow.estimate` not to resize the images for a network.
    any_size = True

    def __init__(self) -> None:
        super().__init__()
        # Not learned: like weights, it only tells on which device to compute.
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, image1: Tensor, image2: Tensor, num_flow_updates: int = 20) -> list[Tensor]:
        first, second = (_pyramid(image.float().add(1).div(2)) for image in (image1, image2))
        pairs = [
            (_features(a), _features(b))
            for a, b in zip(reversed(first), reversed(second), strict=True)
        ]
        flow = _search(*pairs[0])
        for level in pairs:
            flow = _refine(*level, stretch_flow(flow, *level[0].shape[-2:]), num_flow_updates)
        return [flow]


def _pyramid(image: Tensor) -> list[Tensor]:
    """The image, and copies of half the sides each, down to the coarsest."""
    levels = [image]
    h, w = image.shape[-2:]
    while min(h, w) // 2 >= COARSEST_SIDE:
        h, w = h // 2, w // 2
        levels.append(
            F.interpolate(levels[-1], (h, w), mode="bilinear", align_corners=False, antialias=True)
        )
    return levels


def _features(image: Tensor) -> Tensor:
    """(n,5,h,w): the colours, slightly smoothed, and the gradient of their mean."""
    image = _blur(image, PRESMOOTH)
    slopes = _slopes(image.mean(dim=1, keepdim=True))
    return torch.cat([image, *(SLOPE_WEIGHT * slope for slope in slopes)], dim=1)


def _search(first: Tensor, second: Tensor) -> Tensor:
    """For every pixel, the whole-pixel shift within REACH at which small windows agree best."""
    h, w = first.shape[-2:]
    shifts = [(dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1)]
    inside = F.pad(second.new_ones(1, 1, h, w), (REACH,) * 4)
    padded = F.pad(second, (REACH,) * 4, mode="replicate")
    costs, shares = [], []
    for dy, dx in shifts:
        rows, columns = slice(REACH + dy, REACH + dy + h), slice(REACH + dx, REACH + dx + w)
        share = inside[..., rows, columns]
        difference = (padded[..., rows, columns] - first).abs().clamp(max=SEARCH_CAP)
        costs.append(difference.sum(dim=1, keepdim=True) * share)
        shares.append(share)
    share = _blur(torch.cat(shares, dim=1), SEARCH_WINDOW)
    table = first.new_tensor([(dx, dy) for dy, dx in shifts])
    cost = _blur(torch.cat(costs, dim=1), SEARCH_WINDOW) / share.clamp(min=SEARCH_SHARE)
    cost = cost + SEARCH_COST * table.norm(dim=1).view(1, -1, 1, 1)
    cost = cost.masked_fill(share < SEARCH_SHARE, torch.inf)
    best = table[cost.argmin(dim=1)].permute(0, 3, 1, 2)
    return _median(_median(best))


def _refine(first: Tensor, second: Tensor, flow: Tensor, steps: int) -> Tensor:
    """One level: the flow between two images' features, refined from a rough one."""
    dx1, dy1 = _slopes(first)
    contrast = (dx1[:, :3].square() + dy1[:, :3].square()).sum(dim=1, keepdim=True).sqrt()
    ease = torch.exp(-EDGE * contrast).clamp(min=LEAST_SMOOTHING)
    dual = flow.new_zeros(len(flow), 4, *flow.shape[-2:])
    for _ in range(WARPS):
        # Bicubic: bilinear sampling blurs, and would pull the flow towards whole pixels.
        warped = warp(second, flow, "bicubic", padding="border")
        # Gradients of both images, averaged: half the error of those of one.
        dx, dy = ((a + b) / 2 for a, b in zip(_slopes(warped), (dx1, dy1), strict=True))
        data = _data_term(dx, dy, warped - first)
        known = inside(flow).to(flow.dtype)
        flow, dual = _solve(data, known, ease, flow, dual, steps)
        flow = _median(flow)
    return flow


def _data_term(dx: Tensor, dy: Tensor, dt: Tensor) -> Tensor:
    """(n,6,h,w): xx, xy, yy, xt, yt, tt; products summed over channels and a window.

    The squared difference left after a change (u, v) of the flow is
    tt + 2 (xt u + yt v) + xx u u + 2 xy u v + yy v v.
    """
    products = (dx * dx, dx * dy, dy * dy, dx * dt, dy * dt, dt * dt)
    return _blur(torch.cat([p.sum(dim=1, keepdim=True) for p in products], dim=1), WINDOW)


def _solve(
    data: Tensor, known: Tensor, ease: Tensor, start: Tensor, dual: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """The flow that balances the robust data term with smoothness, and its dual."""
    xx, xy, yy, xt, yt, tt = data.split(1, dim=1)
    flow, ahead, change = start, start, torch.zeros_like(start)
    gradient, pull = torch.zeros_like(dual), _DUAL * ease
    for step in range(steps):
        if step % _RENEW == 0:
            u, v = change.split(1, dim=1)
            along_u = torch.add(xx * u, torch.addcmul(xt, xy, v), alpha=2)
            along_v = torch.add(yy * v, yt, alpha=2)
            squared = torch.addcmul(tt, along_u, u).addcmul_(along_v, v)
            weight = _PRIMAL * FIDELITY * known / (squared.clamp(min=0) + ROBUST**2).sqrt()
            a, b, d = 1 + weight * xx, weight * xy, 1 + weight * yy
            # The inverse of the 2x2 system: what it has twice, and its diagonal.
            determinant = torch.addcmul(a * d, b, b, value=-1)
            both, diagonal = -b / determinant, torch.cat((d, a), dim=1) / determinant
            weighted_t = weight * data[:, 3:5]
        _gradient(ahead, gradient)
        dual = _shortened(torch.addcmul(dual, pull, gradient))
        rest = torch.add(change, _divergence(ease * dual), alpha=_PRIMAL).sub_(weighted_t)
        change = torch.addcmul(diagonal * rest, both, rest.flip(1))
        before, flow = flow, start + change
        ahead = torch.lerp(before, flow, 2.0)  # as far again beyond
    return flow, dual


def _shortened(dual: Tensor) -> Tensor:
    """Each component's pair divided by ``_SHRINK``, or by its length if that is more; in place."""
    pairs = dual.unflatten(1, (2, 2))
    x, y = pairs.unbind(2)
    # Not torch's norm, which takes thirty times as long over this dimension on a CPU.
    length = torch.addcmul(x * x, y, y).sqrt_()
    pairs.div_(length.clamp_(min=_SHRINK)[:, :, None])
    return dual


def _gradient(flow: Tensor, out: Tensor) -> None:
    """``out`` (n,4,h,w) is set to u_x, u_y, v_x, v_y, forward differences; it is 0 at the far
    borders and stays so."""
    torch.sub(flow[..., 1:], flow[..., :-1], out=out[:, 0::2, :, :-1])
    torch.sub(flow[..., 1:, :], flow[..., :-1, :], out=out[:, 1::2, :-1])


def _divergence(dual: Tensor) -> Tensor:
    """The negative adjoint of `_gradient`; ``dual`` is 0 at the far borders."""
    across, down = dual[:, 0::2], dual[:, 1::2]
    result = across + down
    result[..., 1:].sub_(across[..., :-1])
    result[..., 1:, :].sub_(down[..., :-1, :])
    return result


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives along x and y by five-point differences; the border is repeated."""
    kernel = x.new_tensor([1.0, -8.0, 0.0, 8.0, -1.0]) / 12
    return _filter(x, kernel, across=True), _filter(x, kernel, across=False)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; the border is repeated."""
    radius = math.ceil(2.5 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    return _filter(_filter(x, kernel, across=True), kernel, across=False)


def _filter(x: Tensor, kernel: Tensor, *, across: bool) -> Tensor:
    """Every channel filtered along x (across) or y, the border repeated."""
    n, c, h, w = x.shape
    radius = len(kernel) // 2
    padding = (radius, radius, 0, 0) if across else (0, 0, radius, radius)
    padded = F.pad(x.reshape(n * c, 1, h, w), padding, mode="replicate")
    return F.conv2d(padded, kernel.view(1, 1, 1, -1) if across else kernel.view(1, 1, -1, 1)).view(
        n, c, h, w
    )


def _median(flow: Tensor) -> Tensor:
    """3x3 median of each component; the border is repeated."""
    h, w = flow.shape[-2:]
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    left, centre, right = (padded[..., x : x + w] for x in range(3))
    low, high = torch.minimum(left, centre), torch.maximum(left, centre)
    # The median of nine is the median of three: the greatest of the rows' least values, the median
    # of their medians, and the least of their greatest values.
    least, middle, greatest = (
        [x[..., y : y + h, :] for y in range(3)]
        for x in (
            torch.minimum(low, right),
            _middle(left, centre, right),
            torch.maximum(high, right),
        )
    )
    a = torch.maximum(torch.maximum(least[0], least[1]), least[2])
    c = torch.minimum(torch.minimum(greatest[0], greatest[1]), greatest[2])
    return _middle(a, _middle(*middle), c)


def _middle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The median of three tensors, element by element."""
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
