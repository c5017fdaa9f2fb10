"""MViT and Hiera weights in our names to one model: another input size, q k v fused or not, images to video.

Inflation keeps the function (see inflate.py): temporal tables start at 0, spatial ones serve all frames.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted
from vidformers.checkpoints.inflate import inflate, tile_position
from vidformers.layers.position import resize_joint, resize_spatial, resize_temporal
from vidformers.layers.rel_pos import resize_rows
from vidformers.layers.sizes import Grid

_PATCH_KERNEL = "patch_embed.proj.weight"


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Fits what can be fitted; whatever else differs in shape is left for the caller to judge.

    ValueError for a joint position embedding that could be of several grids of tokens.
    """
    target = model.state_dict()
    grid = cast(Grid, model.grid)
    from_images, joint_grid = _origin(state, grid, "pos_embed" in target)
    state = match_qkv(state, set(target))
    if from_images and grid[0] > 1:
        state = {name: _tap_of_the_frame(tensor) for name, tensor in state.items()}
    adapted = inflate(state, model) if from_images else Adapted(state)
    if from_images:
        _inflate_positions(adapted, target, grid)
    if joint_grid not in (None, grid) and "pos_embed" in target:
        _resize_joint(adapted, joint_grid, grid, from_images)
    for name, wanted in target.items():
        tensor = adapted.state.get(name)
        if tensor is not None and tensor.shape != wanted.shape and tensor.ndim == wanted.ndim:
            _resize_table(adapted, name, wanted, grid, from_images)
    return adapted


def match_qkv(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Joins separate q, k, v Linears into qkv, or splits qkv, where the model wants the other form."""
    matched = {}
    for name, tensor in state.items():
        prefix, _, kind = name.rpartition(".")
        block, _, layer = prefix.rpartition(".")
        fused = f"{block}.qkv.{kind}"
        parts = [f"{block}.{letter}.{kind}" for letter in "qkv"]
        if layer == "q" and name not in wanted and fused in wanted and all(p in state for p in parts):
            matched[fused] = torch.cat([state[part] for part in parts])
        elif (
            layer in ("k", "v") and name not in wanted and fused in wanted and all(p in state for p in parts)
        ):
            continue
        elif layer == "qkv" and name not in wanted and all(part in wanted for part in parts):
            matched.update(zip(parts, tensor.chunk(3), strict=True))
        else:
            matched[name] = tensor
    return matched


def _origin(state: dict[str, Tensor], grid: Grid, wants_joint: bool) -> tuple[bool, Grid | None]:
    """Whether the weights are of an image model, and the grid of their joint position embedding, if any.

    Neither is written in them. A 2D patch kernel, or temporal tables, tell the number of frames; otherwise
    weights in which nothing reaches over time are those of images, unless the number of tokens contradicts.
    """
    kernel = state.get(_PATCH_KERNEL)
    if kernel is None:
        return False, None
    per_frame = kernel.ndim == 4 or (kernel.ndim == 5 and kernel.shape[2] == 1)
    frames = 1 if kernel.ndim == 4 else _frames_of_tables(state)
    # A spatial table without its temporal one is a video model's, of which a part is missing.
    reaches_over_time = "pos_embed_spatial" in state or any(
        tensor.ndim == 5 and tensor.shape[2] > 1 for tensor in state.values()
    )
    may_be_images = per_frame and (frames == 1 or (frames is None and not reaches_over_time))
    if "pos_embed" not in state or not (wants_joint or may_be_images):
        return may_be_images, None
    num_tokens = state["pos_embed"].shape[1] - _num_prefix(state)
    if may_be_images and num_tokens == grid[1] * grid[2]:
        frames = 1
    joint_grid = _joint_grid(num_tokens, grid, frames, may_be_images)
    return may_be_images and (frames == 1 or joint_grid is None or joint_grid[0] == 1), joint_grid


def _tap_of_the_frame(tensor: Tensor) -> Tensor:
    """Of a pooling kernel over several frames, in an image model, the one tap that an image meets."""
    taps = tensor.shape[2] if tensor.ndim == 5 else 1
    return tensor[:, :, taps // 2 : taps // 2 + 1] if taps > 1 and taps % 2 else tensor


def _frames_of_tables(state: dict[str, Tensor]) -> int | None:
    """Steps of the token grid along time, told by the first temporal table there is."""
    for name, tensor in state.items():
        if name == "pos_embed_temporal":
            return tensor.shape[1]
        if name.endswith(".rel_pos_t"):
            return (tensor.shape[0] + 1) // 2
    return None


def _num_prefix(state: dict[str, Tensor]) -> int:
    return 1 if "cls_token" in state else 0


def _joint_grid(num_tokens: int, grid: Grid, frames: int | None, may_be_images: bool) -> Grid | None:
    """The grid that a joint embedding was made for: that of the model, or else one of as large frames, as
    many square frames of another size, or one square frame. ValueError if several of these are possible."""
    T, H, W = grid
    if num_tokens == T * H * W and frames in (None, T):
        return grid
    possible = set()
    if num_tokens % (H * W) == 0 and (num_tokens > H * W or may_be_images):
        possible.add((num_tokens // (H * W), H, W))
    counts = [frames] if frames is not None else [T, 1] if may_be_images else [T]
    for t in counts:
        side = math.isqrt(num_tokens // t)
        if t * side * side == num_tokens:
            possible.add((t, side, side))
    possible = {guess for guess in possible if frames in (None, guess[0])}
    if len(possible) > 1:
        raise ValueError(
            f"its pos_embed has {num_tokens} tokens, which can be {' or '.join(map(str, sorted(possible)))} "
            f"(t, h, w), and the model has {grid}; build the model with the num_frames and image_size that "
            "the checkpoint was trained with: it takes clips of other sizes too, and interpolates"
        )
    return possible.pop() if possible else None


def _inflate_positions(adapted: Adapted, target: dict[str, Tensor], grid: Grid) -> None:
    """Adds what only video models have: temporal tables, at 0; a joint embedding becomes a separable one.

    Where the weights have some tables of a kind, those that they lack are missing, and stay so.
    """
    state = adapted.state
    has_relative = any(name.endswith(".rel_pos_t") for name in state)
    has_separable = "pos_embed_spatial" in state
    if "pos_embed_spatial" in target and "pos_embed" in state:
        joint = state.pop("pos_embed")
        first = _num_prefix(state)
        state["pos_embed_spatial"] = joint[:, first:]
        adapted.inflated.append("pos_embed_spatial")
        if first:
            state["pos_embed_class"] = joint[:, :1]
            adapted.inflated.append("pos_embed_class")
    for name, wanted in target.items():
        is_position, is_relative = name == "pos_embed_temporal", name.endswith(".rel_pos_t")
        if (is_position and not has_separable) or (is_relative and not has_relative):
            state[name] = torch.zeros_like(wanted, device="cpu")
        elif is_position and name in state and grid[0] > 1:
            # The one frame's vector of an image model holds for every frame.
            state[name] = state[name].expand(-1, grid[0], -1)
        else:
            continue
        adapted.inflated.append(name)


def _resize_joint(adapted: Adapted, old_grid: Grid, grid: Grid, from_images: bool) -> None:
    position = adapted.state["pos_embed"].float()
    first = _num_prefix(adapted.state)
    # Frames of an image are tiled, which rounds nothing, where interpolation would.
    frames = 1 if old_grid[0] == 1 else grid[0]
    patches = resize_joint(position[:, first:], old_grid, (frames, *grid[1:]))
    patches = tile_position(patches, grid[0] // frames)
    adapted.state["pos_embed"] = torch.cat([position[:, :first], patches], dim=1)
    (adapted.inflated if from_images else adapted.resized).append("pos_embed")


def _resize_table(adapted: Adapted, name: str, wanted: Tensor, grid: Grid, from_images: bool) -> None:
    """Interpolates position tables of another input size; spatial ones only from square inputs."""
    tensor = adapted.state[name]
    if tensor.shape[-1] != wanted.shape[-1]:
        return
    kind = name.rpartition(".")[2]
    resized = None
    if kind == "rel_pos_t" and tensor.shape[0] == 1:  # an image's: exact, where interpolation rounds
        resized = tensor.expand(wanted.shape[0], -1)
    elif kind in ("rel_pos_t", "rel_pos_h", "rel_pos_w"):
        resized = resize_rows(tensor.float(), wanted.shape[0])
    elif kind == "pos_embed_temporal":
        resized = resize_temporal(tensor.float(), wanted.shape[1])
    elif kind == "pos_embed_spatial":
        side = math.isqrt(tensor.shape[1])
        if side * side == tensor.shape[1]:
            resized = resize_spatial(tensor.float(), (side, side), grid[1:])
    if resized is not None and resized.shape == wanted.shape:
        adapted.state[name] = resized
        (adapted.inflated if from_images and kind == "rel_pos_t" else adapted.resized).append(name)
