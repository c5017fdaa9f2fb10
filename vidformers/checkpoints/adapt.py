"""MViT weights in our names to the shapes of one model: other input sizes, q k v fused or not, 2D to 3D.

Inflation keeps the function (see inflate.py): temporal tables start at 0, spatial ones serve all frames.
"""

import math

import torch
from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted
from vidformers.checkpoints.inflate import inflate_kernel
from vidformers.layers.position import resize_joint, resize_spatial, resize_temporal
from vidformers.layers.rel_pos import resize_rows


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Fits what can be fitted; whatever else differs in shape is left for the caller to judge."""
    target = model.state_dict()
    adapted = Adapted(match_qkv(state, set(target)))
    patch_kernel = state.get("patch_embed.proj.weight")
    from_images = patch_kernel is not None and patch_kernel.ndim == 5 and patch_kernel.shape[2] == 1
    grid = getattr(model, "grid", None)
    if from_images and grid is not None:
        _inflate_positions(adapted, target, grid)
    for name, wanted in target.items():
        tensor = adapted.state.get(name)
        if tensor is None or tensor.shape == wanted.shape:
            continue
        if tensor.ndim == wanted.ndim == 5:
            _inflate_kernel(adapted, name, wanted, model)
        elif grid is not None:
            _resize_positions(adapted, name, wanted, grid, from_images)
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


def _inflate_kernel(adapted: Adapted, name: str, wanted: Tensor, model: nn.Module) -> None:
    kernel = adapted.state[name]
    convolution = model.get_submodule(name.rpartition(".")[0])
    is_image_kernel = kernel.shape[2] == 1 < wanted.shape[2]
    same_otherwise = kernel.shape[:2] == wanted.shape[:2] and kernel.shape[3:] == wanted.shape[3:]
    if is_image_kernel and same_otherwise and isinstance(convolution, nn.Conv3d):
        adapted.state[name] = inflate_kernel(kernel, wanted.shape[2], int(convolution.padding[0]))
        adapted.inflated.append(name)


def _inflate_positions(adapted: Adapted, target: dict[str, Tensor], grid: tuple[int, int, int]) -> None:
    """Adds what only video models have: temporal tables, at 0; a joint embedding becomes a separable one."""
    state = adapted.state
    if "pos_embed_spatial" in target and "pos_embed" in state:
        joint = state.pop("pos_embed")
        first = 1 if "cls_token" in state else 0
        state["pos_embed_spatial"] = joint[:, first:]
        adapted.inflated.append("pos_embed_spatial")
        if first:
            state["pos_embed_class"] = joint[:, :1]
            adapted.inflated.append("pos_embed_class")
    temporal = [name for name in target if name.endswith((".rel_pos_t", "pos_embed_temporal"))]
    for name in temporal:
        absent = name not in state
        if absent or (name == "pos_embed_temporal" and state[name].shape[1] == 1 < grid[0]):
            old = torch.zeros_like(target[name], device="cpu")
            # The one frame's vector of an image model holds for every frame.
            state[name] = old if absent else old + state[name]
            adapted.inflated.append(name)


def _resize_positions(
    adapted: Adapted, name: str, wanted: Tensor, grid: tuple[int, int, int], from_images: bool
) -> None:
    """Interpolates position tables of another input size; spatial ones only from square inputs."""
    tensor = adapted.state[name]
    if tensor.ndim != wanted.ndim or tensor.shape[-1] != wanted.shape[-1]:
        return
    kind = name.rpartition(".")[2]
    resized = None
    if kind in ("rel_pos_t", "rel_pos_h", "rel_pos_w"):
        resized = resize_rows(tensor.float(), wanted.shape[0])
    elif kind == "pos_embed_temporal":
        resized = resize_temporal(tensor.float(), wanted.shape[1])
    elif kind == "pos_embed_spatial":
        side = math.isqrt(tensor.shape[1])
        if side * side == tensor.shape[1]:
            resized = resize_spatial(tensor.float(), (side, side), grid[1:])
    elif kind == "pos_embed":
        first = 1 if "cls_token" in adapted.state else 0
        old_grid = _guess_grid(tensor.shape[1] - first, grid, from_images)
        if old_grid is not None:
            patches = resize_joint(tensor[:, first:].float(), old_grid, grid)
            resized = torch.cat([tensor[:, :first].float(), patches], dim=1)
    if resized is not None and resized.shape == wanted.shape:
        adapted.state[name] = resized
        (adapted.inflated if from_images and kind == "pos_embed" else adapted.resized).append(name)


def _guess_grid(
    num_tokens: int, grid: tuple[int, int, int], from_images: bool
) -> tuple[int, int, int] | None:
    """The grid that a joint embedding was made for, which its shape does not tell: square frames, and as many
    of them as the model has, or else frames of the model's size, and another number of them."""
    num_frames = 1 if from_images else grid[0]
    side = math.isqrt(num_tokens // num_frames)
    if num_frames * side * side == num_tokens:
        return num_frames, side, side
    if num_tokens % (grid[1] * grid[2]) == 0:
        return num_tokens // (grid[1] * grid[2]), grid[1], grid[2]
    return None
