"""ViT weights of timm (images), TimeSformer, VideoMAE and PySlowFast, and how they are fitted to a model.

Inflated, spatial positions serve all frames; temporal ones and the output of temporal attention start at 0.
"""

import math
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted, Source
from vidformers.checkpoints.inflate import inflate, tile_position
from vidformers.checkpoints.slowfast import as_3d_kernel
from vidformers.layers.position import resize_joint, resize_spatial, resize_temporal
from vidformers.models.vision_transformer import VisionTransformer

_STEM, _BLOCK = "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"
# timm and VideoMAE; PySlowFast's final norm stands for both of ours: which one, its names do not tell.
_RENAMED = {"head.weight": "head.projection.weight", "head.bias": "head.projection.bias"}
_FINAL_NORM = "final_norm."


def _plain(names: Iterable[str]) -> set[str]:
    """Names without TimeSformer's `model.` in front."""
    names = list(names)
    wrapped = names and all(name.startswith("model.") for name in names)
    return {name.removeprefix("model.") for name in names} if wrapped else set(names)


def _is_vit(names: set[str]) -> bool:
    return {_STEM, _BLOCK} <= names and "head.projection.weight" not in names


def matches_timesformer(names: Iterable[str]) -> bool:
    names = _plain(names)
    return _is_vit(names) and ("time_embed" in names or any(".temporal_fc." in name for name in names))


def matches_videomae(names: Iterable[str]) -> bool:
    names = set(names)
    return _is_vit(names) and "blocks.0.attn.q_bias" in names


def matches_timm(names: Iterable[str]) -> bool:
    """Also TimeSformer's space-only model, whose names are the same."""
    names = _plain(names)
    return _is_vit(names) and "pos_embed" in names


def matches_slowfast(names: Iterable[str]) -> bool:
    names = set(names)
    # MViT's and Hiera's names are a superset.
    multiscale = any(part in name for name in names for part in (".pool_", ".norm_q.", ".rel_pos_"))
    multiscale = multiscale or any(re.fullmatch(r"blocks\.\d+\.proj\.weight", name) for name in names)
    ours = {"time_embed", "fc_norm.weight", "blocks.0.attn.q_bias", "blocks.0.temporal_fc.weight"} & names
    return {_STEM, _BLOCK, "head.projection.weight"} <= names and not multiscale and not ours


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's, TimeSformer's or VideoMAE's state dict -> ours; a 2D patch kernel becomes a 3D one."""
    converted = {}
    for name, plain in zip(state, _in_order(state), strict=True):
        ours = _RENAMED.get(plain, plain).replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2")
        converted[ours] = as_3d_kernel(ours, state[name])
    return converted


def convert_slowfast(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """PySlowFast's state dict -> ours: its separable positions are `pos_embed` and `time_embed`."""
    converted = {}
    for name, tensor in state.items():
        if name == "pos_embed_spatial":
            first = [state["pos_embed_class"]] if "pos_embed_class" in state else []
            converted["pos_embed"] = torch.cat([*first, tensor], dim=1)
        elif name == "pos_embed_temporal":
            converted["time_embed"] = tensor
        elif name.startswith("norm."):
            converted[_FINAL_NORM + name.removeprefix("norm.")] = tensor
        elif name != "pos_embed_class":
            converted[name] = as_3d_kernel(name, tensor)
    return converted


def _in_order(state: dict[str, Tensor]) -> list[str]:
    wrapped = all(name.startswith("model.") for name in state)
    return [name.removeprefix("model.") for name in state] if wrapped else list(state)


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Fits what can be fitted; whatever else differs in shape is left for the caller to judge."""
    target = model.state_dict()
    final_norm = "fc_norm." if "fc_norm.weight" in target else "norm."
    assert isinstance(model, VisionTransformer)
    state = {name.replace(_FINAL_NORM, final_norm): tensor for name, tensor in state.items()}
    kernel = state.get(_STEM)
    has_time = "time_embed" in state or any(".temporal_" in name for name in state)
    from_images = kernel is not None and kernel.ndim == 5 and kernel.shape[2] == 1 and not has_time
    adapted = inflate(state, model) if from_images else Adapted(state)
    if from_images:
        _add_temporal(adapted, target)
    _fit_positions(adapted, model, target, from_images)
    return adapted


def _add_temporal(adapted: Adapted, target: dict[str, Tensor]) -> None:
    """Adds to image weights what only video models have, so that it changes nothing in a still clip."""
    state = adapted.state
    for name, wanted in target.items():
        source = name.replace("temporal_norm1", "norm1").replace("temporal_attn", "attn")
        if name in state:
            continue
        if name == "time_embed" or ".temporal_fc." in name:
            state[name] = torch.zeros_like(wanted, device="cpu")
        elif source != name and source in state:
            state[name] = state[source].clone()  # TimeSformer's start; without effect until temporal_fc moves
        else:
            continue
        adapted.inflated.append(name)


def _fit_positions(
    adapted: Adapted, model: VisionTransformer, target: dict[str, Tensor], from_images: bool
) -> None:
    """Position embeddings of another input size: spatial ones only from square inputs or the model's own."""
    state = adapted.state
    T, H, W = grid = model.grid
    time, wanted_time = state.get("time_embed"), target.get("time_embed")
    if time is not None and wanted_time is not None and time.shape[1] != wanted_time.shape[1]:
        state["time_embed"] = resize_temporal(time.float(), T)
        adapted.resized.append("time_embed")

    position, wanted = state.get("pos_embed"), target.get("pos_embed")
    if position is None or wanted is None or position.shape == wanted.shape:
        return
    first = 1 if "cls_token" in state else 0
    class_position, patches = position[:, :first].float(), position[:, first:].float()
    num_tokens = patches.shape[1]
    joint = model.position_embedding == "joint"
    if joint and not from_images:
        side = math.isqrt(num_tokens // T)
        if num_tokens % (H * W) == 0:
            patches = resize_joint(patches, (num_tokens // (H * W), H, W), grid)
        elif T * side * side == num_tokens:
            patches = resize_joint(patches, (T, side, side), grid)
    else:
        side = math.isqrt(num_tokens)
        if side * side == num_tokens != H * W:
            patches = resize_spatial(patches, (side, side), (H, W))
        if joint:
            patches = tile_position(patches, T)
    fitted = torch.cat([class_position, patches], dim=1)
    if fitted.shape == wanted.shape:
        state["pos_embed"] = fitted
        (adapted.inflated if joint and from_images else adapted.resized).append("pos_embed")


SOURCES = (
    Source("timesformer", matches_timesformer, convert),
    Source("videomae", matches_videomae, convert),
    Source("slowfast", matches_slowfast, convert_slowfast),
    Source("timm", matches_timm, convert),
)
