"""The same mathematics in plain eager PyTorch, the baseline for the pack's speed and memory.

Written independently, as a port of the paper without optimisation: fp32, contiguous
``b c t h w`` between layers and ``(b t) c h w`` inside them, attention as an explicit matrix of
scores, the text repeated for every frame, no operation in place. It imports nothing of
``uav_core`` and consists of functions over the same state dict, so that agreement with the pack
is meaningful; ``tests/bench/test_bench_baseline.py`` checks that both give the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from .weights import Weights

GROUPS = 32
RESNET_EPS, TEMPORAL_EPS, VAE_EPS = 1e-5, 1e-6, 1e-6


# ---------------------------------------------------------------- layers


def linear(w: Weights, x: Tensor) -> Tensor:
    """A linear layer on the last axis."""
    return F.linear(x, w["weight"], w.get("bias"))


def layer_norm(w: Weights, x: Tensor) -> Tensor:
    """Layer normalisation of the last axis."""
    return F.layer_norm(x, x.shape[-1:], w["weight"], w["bias"])


def group_norm(w: Weights, x: Tensor, eps: float) -> Tensor:
    """Group normalisation over all axes after the channels; three groups for an RGB input."""
    groups = min(GROUPS, x.shape[1])
    return F.group_norm(x.contiguous(), groups, w["weight"], w["bias"], eps)


def to_frames(x: Tensor) -> Tensor:
    """A clip as a contiguous batch of frames."""
    return rearrange(x, "b c t h w -> (b t) c h w").contiguous()


def to_clip(frames: Tensor, batch: int) -> Tensor:
    """A batch of frames as a contiguous clip."""
    return rearrange(frames, "(b t) c h w -> b c t h w", b=batch).contiguous()


def conv_frames(w: Weights, x: Tensor) -> Tensor:
    """A 2-D convolution that keeps the size, on every frame of a clip."""
    padding = w["weight"].shape[-1] // 2
    return to_clip(F.conv2d(to_frames(x), w["weight"], w["bias"], padding=padding), x.shape[0])


def conv(w: Weights, x: Tensor) -> Tensor:
    """A convolution that keeps the size: along time if the kernel has that axis, else per frame."""
    kernel = w["weight"].shape[2:]
    if len(kernel) == 2:
        return conv_frames(w, x)
    padding = [side // 2 for side in kernel]
    return F.conv3d(x.contiguous(), w["weight"], w["bias"], padding=padding)


def resnet(w: Weights, x: Tensor, eps: float, time: Tensor | None = None) -> Tensor:
    """norm, SiLU, conv, (+ time), norm, SiLU, conv, + shortcut, (+ 3-D refinement)."""
    h = conv(w.at("conv1"), F.silu(group_norm(w.at("norm1"), x, eps)))
    if w.has("time_emb_proj"):
        assert time is not None
        h = h + rearrange(linear(w.at("time_emb_proj"), F.silu(time)), "b c -> b c 1 1 1")
    h = conv(w.at("conv2"), F.silu(group_norm(w.at("norm2"), h, eps)))
    if w.has("conv_shortcut"):
        x = conv_frames(w.at("conv_shortcut"), x)
    out = x + h
    if w.has("conv_3d"):
        out = out + conv(w.at("conv_3d"), F.silu(group_norm(w.at("norm_3d"), out, eps)))
    return out


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T * scale + bias) v, the whole matrix of scores at once."""
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale
    if bias is not None:
        scores = scores + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split tokens (b n (h d)) into heads (b h n d)."""
    return rearrange(x, "b n (h d) -> b h n d", h=heads).contiguous()


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of split_heads."""
    return rearrange(x, "b h n d -> b n (h d)").contiguous()


# ---------------------------------------------------------------- U-Net


def rotary(x: Tensor, freqs: Tensor) -> Tensor:
    """Rotate the leading pairs of dims (..., n, d) by position times frequency."""
    position = torch.arange(x.shape[-2], device=x.device, dtype=freqs.dtype)
    angle = repeat(position[:, None] * freqs[None], "n f -> n (f two)", two=2)
    dims = angle.shape[-1]
    turned, kept = x[..., :dims], x[..., dims:]
    pairs = rearrange(turned, "... (f two) -> ... f two", two=2)
    swapped = rearrange(
        torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1), "... f two -> ... (f two)"
    )
    return torch.cat((turned * angle.cos() + swapped * angle.sin(), kept), dim=-1)


def relative_bias(table: Tensor, length: int) -> Tensor:
    """(heads, queries, keys): T5's bidirectional buckets, 32 of them, saturating at 32 frames."""
    index = torch.arange(length, device=table.device)
    ahead = rearrange(index, "k -> 1 k") - rearrange(index, "q -> q 1")
    distance = ahead.abs()
    far = 8 + (torch.log(distance.clamp(min=8) / 8) / math.log(32 / 8) * 8).long()
    bucket = torch.where(distance < 8, distance, far.clamp(max=15))
    bucket = torch.where(ahead > 0, bucket + 16, bucket)
    return rearrange(table[bucket], "q k heads -> heads q k")


def attend_source(w: Weights, x: Tensor, source: Tensor, heads: int) -> Tensor:
    """Multi-head attention of tokens ``x`` over ``source``, both (frames, tokens, channels)."""
    q = split_heads(linear(w.at("to_q"), x), heads)
    k = split_heads(linear(w.at("to_k"), source), heads)
    v = split_heads(linear(w.at("to_v"), source), heads)
    out = attention(q, k, v, q.shape[-1] ** -0.5)
    return linear(w.at("to_out", 0), merge_heads(out))


def attend_time(w: Weights, x: Tensor, frames: int, heads: int) -> Tensor:
    """Self-attention along time at every position of tokens ((b t), n, c)."""
    tokens = x.shape[1]
    sequences = rearrange(x, "(b t) n c -> (b n) t c", t=frames).contiguous()
    q = split_heads(linear(w.at("to_q"), sequences), heads) * (x.shape[-1] // heads) ** -0.5
    k = split_heads(linear(w.at("to_k"), sequences), heads)
    v = split_heads(linear(w.at("to_v"), sequences), heads)
    freqs = w["rotary_emb.freqs"]
    bias = relative_bias(w["time_rel_pos_bias.relative_attention_bias.weight"], frames)
    out = attention(rotary(q, freqs), rotary(k, freqs), v, 1.0, bias)
    out = linear(w.at("to_out", 0), merge_heads(out))
    return rearrange(out, "(b n) t c -> (b t) n c", n=tokens).contiguous()


def feed_forward(w: Weights, x: Tensor) -> Tensor:
    """A GEGLU feed-forward layer."""
    value, gate = linear(w.at("net", 0, "proj"), x).chunk(2, dim=-1)
    return linear(w.at("net", 2), value * F.gelu(gate))


def transformer(w: Weights, x: Tensor, text: Tensor, heads: int, over_self: bool) -> Tensor:
    """Temporal resnet, then attention and feed-forward on the tokens of every frame."""
    b, _, t, h, width = x.shape
    x = resnet(w.at("resblock_temporal"), x, TEMPORAL_EPS)
    frames = group_norm(w.at("norm"), to_frames(x), 1e-6)
    tokens = linear(w.at("proj_in"), rearrange(frames, "f c h w -> f (h w) c").contiguous())
    text = repeat(text, "b n c -> (b t) n c", t=t)
    for block in w.parts("transformer_blocks"):
        normed = layer_norm(block.at("norm1"), tokens)
        source = normed if over_self else text
        tokens = tokens + attend_source(block.at("attn1"), normed, source, heads)
        normed = layer_norm(block.at("norm2"), tokens)
        tokens = tokens + attend_source(block.at("attn2"), normed, text, heads)
        normed = layer_norm(block.at("norm_temporal"), tokens)
        tokens = tokens + attend_time(block.at("attn_temporal"), normed, t, heads)
        tokens = tokens + feed_forward(block.at("ff"), layer_norm(block.at("norm3"), tokens))
    tokens = linear(w.at("proj_out"), tokens)
    return x + to_clip(rearrange(tokens, "f (h w) c -> f c h w", h=h, w=width), b)


def stage_module(w: Weights, x: Tensor, time: Tensor) -> Tensor:
    """The residual stage module: along time, per frame, 1x1."""
    h = resnet(w.at("resblocks_3d_temporal"), x, TEMPORAL_EPS, time)
    h = resnet(w.at("resblocks_3d_spatial"), h, TEMPORAL_EPS, time)
    return x + conv_frames(w.at("shift_conv"), h)


def time_embedding(w: Weights, timestep: Tensor, noise_level: Tensor) -> Tensor:
    """Embedding (b, time_dim) of the time step and the noise level."""
    half = w["time_embedding.linear_1.weight"].shape[1] // 2
    exponent = -math.log(10000) * torch.arange(half, device=timestep.device).float() / half
    angle = timestep.float()[:, None] * exponent.exp()[None]
    wave = torch.cat((torch.cos(angle), torch.sin(angle)), dim=-1)
    hidden = F.silu(linear(w.at("time_embedding", "linear_1"), wave))
    emb = linear(w.at("time_embedding", "linear_2"), hidden)
    return emb + w["class_embedding.weight"][noise_level]


def upsample(w: Weights, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of every frame, then a convolution."""
    frames = F.interpolate(to_frames(x), size=size, mode="nearest")
    return conv_frames(w.at("conv"), to_clip(frames, x.shape[0]))


def unet(
    w: Weights,
    latent: Tensor,
    timestep: Tensor,
    low_res: Tensor,
    context: Tensor,
    noise_level: Tensor,
) -> Tensor:
    """One evaluation of the temporal U-Net; arguments and result as ``TemporalUNet``'s."""
    levels = len(w.parts("down_blocks"))
    bias = "attn_temporal.time_rel_pos_bias.relative_attention_bias.weight"
    heads = w.at("mid_block", "attentions", 0, "transformer_blocks", 0)[bias].shape[1]
    time = time_embedding(w, timestep, noise_level)

    def block(part: Weights, i: int, x: Tensor, innermost: bool) -> Tensor:
        x = resnet(part.at("resnets", i), x, RESNET_EPS, time)
        if part.has(f"attentions.{i}"):
            x = transformer(part.at("attentions", i), x, context, heads, innermost)
        return x

    x = conv_frames(w.at("conv_in"), torch.cat((latent, low_res), dim=1))
    skips = [x]
    for level, part in enumerate(w.parts("down_blocks")):
        for i in range(len(part.parts("resnets"))):
            x = block(part, i, x, level == levels - 1)
            skips.append(x)
        if part.has("downsamplers"):
            down = part.at("downsamplers", 0, "conv")
            frames = F.conv2d(to_frames(x), down["weight"], down["bias"], stride=2, padding=1)
            x = to_clip(frames, x.shape[0])
            skips.append(x)
        x = stage_module(w.at("down_temp_blocks", level), x, time)

    mid = w.at("mid_block")
    x = block(mid, 0, x, True)
    x = resnet(mid.at("resnets", 1), x, RESNET_EPS, time)
    x = stage_module(w.at("mid_temp_block"), x, time)

    for level, part in enumerate(w.parts("up_blocks")):
        for i in range(len(part.parts("resnets"))):
            x = block(part, i, torch.cat((x, skips.pop()), dim=1), level == 0)
        if part.has("upsamplers"):
            height, width = skips[-1].shape[-2:]
            x = upsample(part.at("upsamplers", 0), x, (height, width))
        x = stage_module(w.at("up_temp_blocks", level), x, time)
    return conv_frames(w.at("conv_out"), F.silu(group_norm(w.at("conv_norm_out"), x, RESNET_EPS)))


# ---------------------------------------------------------------- VAE


def frame_attention(w: Weights, x: Tensor) -> Tensor:
    """One head over all positions of a frame, added to the input."""
    b, _, _, h, width = x.shape
    frames = group_norm(w.at("group_norm"), to_frames(x), VAE_EPS)
    tokens = rearrange(frames, "f c h w -> f (h w) c").contiguous()
    q, k, v = (linear(w.at(name), tokens) for name in ("query", "key", "value"))
    out = linear(w.at("proj_attn"), attention(q, k, v, q.shape[-1] ** -0.5))
    return x + to_clip(rearrange(out, "f (h w) c -> f c h w", h=h, w=width), b)


def vae_decode(
    w: Weights, z: Tensor, low_res: Tensor | None = None, strength: float = 1.0
) -> Tensor:
    """Decode one group of frames; arguments and result as ``TemporalVAE.decode``'s."""
    z = conv_frames(w.at("post_quant_conv"), z)
    w = w.at("decoder")
    x = conv_frames(w.at("conv_in"), z)
    if low_res is not None and w.has("condition_in"):
        condition = low_res
        for part in w.parts("condition_in"):
            condition = resnet(part, condition, VAE_EPS)
        h = torch.cat((condition, x), dim=1)
        fuse = w.at("condition_fuse")
        for part in fuse.parts("shared"):
            h = resnet(part, h, VAE_EPS)
        scale, shift = conv_frames(fuse.at("scale"), h), conv_frames(fuse.at("shift"), h)
        x = x + strength * (x * scale + shift)
    x = resnet(w.at("mid_block", "resnets", 0), x, VAE_EPS)
    x = frame_attention(w.at("mid_block", "attentions", 0), x)
    x = resnet(w.at("mid_block", "resnets", 1), x, VAE_EPS)
    for level in w.parts("up_blocks"):
        for part in level.parts("resnets"):
            x = resnet(part, x, VAE_EPS)
        if level.has("upsamplers"):
            h, width = x.shape[-2:]
            x = upsample(level.at("upsamplers", 0), x, (2 * h, 2 * width))
    return conv_frames(w.at("conv_out"), F.silu(group_norm(w.at("conv_norm_out"), x, VAE_EPS)))


# ---------------------------------------------------------------- a run


def segments(frames: int) -> list[slice]:
    """Segments of 8 frames, 2 of them shared; one past the end is moved back to end there.

    For some lengths, such as 20, the last segment occurs twice and is run twice.
    """
    length, step = 8, 6
    if frames <= length:
        return [slice(0, frames)]
    starts = [min(start, frames - length) for start in range(0, frames, step)]
    return [slice(start, start + length) for start in starts]


def sample(
    w: Weights,
    frames: Tensor,
    context: Tensor,
    noise: Tensor,
    low_res_noise: Tensor,
    steps: int,
    guidance: float,
    noise_level: int,
) -> Tensor:
    """Denoise a clip without propagation; arguments and result as ``uav_core.sample``'s."""
    betas = torch.linspace(0.0001**0.5, 0.02**0.5, 1000, device=noise.device) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    times = [i * (1000 // steps) + 1 for i in range(steps)][::-1]
    a = alphas[noise_level]
    low_res = a.sqrt() * frames + (1 - a).sqrt() * low_res_noise
    latent = noise
    for i, t in enumerate(times):
        total, covered = torch.zeros_like(latent), 0
        for part in segments(latent.shape[2]):
            v = unet(
                w,
                torch.cat([latent[:, :, part]] * 2),
                torch.full((2,), t, device=noise.device),
                torch.cat([low_res[:, :, part]] * 2),
                context,
                torch.full((2,), noise_level, device=noise.device),
            )
            v = v[:1] + guidance * (v[1:] - v[:1])
            shared = max(0, covered - part.start)
            old = total[:, :, part.start : part.start + shared]
            total[:, :, part] = torch.cat((0.5 * old + 0.5 * v[:, :, :shared], v[:, :, shared:]), 2)
            covered = part.stop
        a = alphas[t]
        x0 = a.sqrt() * latent - (1 - a).sqrt() * total
        eps = a.sqrt() * total + (1 - a).sqrt() * latent
        a = alphas[times[i + 1]] if i + 1 < steps else alphas[0]
        latent = a.sqrt() * x0 + (1 - a).sqrt() * eps
    return latent


# ---------------------------------------------------------------- propagation


def warp(x: Tensor, flow: Tensor, mode: str) -> Tensor:
    """Sample ``x`` (b c h w) at the positions plus ``flow`` (b 2 h w, pixels); zeros outside."""
    h, w = x.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(h, device=x.device, dtype=x.dtype),
        torch.arange(w, device=x.device, dtype=x.dtype),
        indexing="ij",
    )
    position = torch.stack((columns, rows))[None] + flow
    across = 2 * position[:, 0] / max(w - 1, 1) - 1
    down = 2 * position[:, 1] / max(h - 1, 1) - 1
    grid = torch.stack((across, down), dim=-1)
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=True)


def propagate(x0: Tensor, flow_forward: Tensor, flow_backward: Tensor) -> Tensor:
    """Two sweeps of flow-guided propagation; arguments and result as ``uav_core.propagate``'s."""

    def length(flow: Tensor) -> Tensor:
        return (flow**2).sum(dim=1, keepdim=True)

    def take(current: Tensor, neighbour: Tensor, flow: Tensor, other: Tensor) -> Tensor:
        warped = warp(neighbour, flow, "nearest")
        back = warp(other, flow, "bilinear")
        limit = 0.001 * (length(flow) + length(back)) + 0.05
        valid = (length(flow + back) < limit).to(current.dtype)
        return valid * (0.5 * warped + 0.5 * current) + (1 - valid) * current

    frames = list(x0.unbind(dim=2))
    for i in range(len(frames) - 2, -1, -1):
        flow, other = flow_forward[:, :, i], flow_backward[:, :, i]
        frames[i] = take(frames[i], frames[i + 1], flow, other)
    for i in range(1, len(frames)):
        flow, other = flow_backward[:, :, i - 1], flow_forward[:, :, i - 1]
        frames[i] = take(frames[i], frames[i - 1], flow, other)
    return torch.stack(frames, dim=2)
