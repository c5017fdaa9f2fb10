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
from vidformers.layers.position import resize_joint, resize_spatial, resize_temporal
from vidformers.layers.sizes import Grid
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


def matches_videomae_pretraining(names: Iterable[str]) -> bool:
    wanted = {"encoder.patch_embed.proj.weight", "encoder.blocks.0.attn.qkv.weight"}
    return wanted | {"encoder_to_decoder.weight"} <= set(names)


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
    """timm's, TimeSformer's or VideoMAE's state dict -> ours."""
    converted = {}
    for name, plain in zip(state, _in_order(state), strict=True):
        ours = _RENAMED.get(plain, plain).replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2")
        converted[ours] = state[name]
    return converted


def convert_videomae_pretraining(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder of VideoMAE's pre-training, or of ours -> ours, without the head, which it lacks.

    As in the official fine-tuning its last norm, which served the decoder, is left out: that one starts anew.
    """
    found = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    weight = found.pop("norm.weight")
    del found["norm.bias"]
    last = {_FINAL_NORM + "weight": torch.ones_like(weight), _FINAL_NORM + "bias": torch.zeros_like(weight)}
    return {**convert(found), **last}


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
            converted[name] = tensor
    return converted


def _in_order(state: dict[str, Tensor]) -> list[str]:
    wrapped = all(name.startswith("model.") for name in state)
    return [name.removeprefix("model.") for name in state] if wrapped else list(state)


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Fits what can be fitted; whatever else differs in shape is left for the caller to judge.

    ValueError for a joint position embedding that could be of several grids of tokens.
    """
    assert isinstance(model, VisionTransformer)
    target = model.state_dict()
    final_norm = "fc_norm." if "fc_norm.weight" in target else "norm."
    kernel = state.get(_STEM)
    has_time = "time_embed" in state or any(".temporal_" in name for name in state)
    of_images = kernel is not None and kernel.ndim == 4 and not has_time
    may_be_images = of_images or (kernel is not None and kernel.shape[2] == 1 and not has_time)
    state = {name.replace(_FINAL_NORM, final_norm): tensor for name, tensor in state.items()}
    if has_time and kernel is not None and kernel.ndim == 4:  # TimeSformer's, which are 2D in video models
        state[_STEM] = kernel.unsqueeze(2)
    adapted = inflate(state, model) if may_be_images else Adapted(state)
    if may_be_images:
        _add_temporal(adapted, target)
    time, wanted_time = state.get("time_embed"), target.get("time_embed")
    if time is not None and wanted_time is not None and time.shape[1] != wanted_time.shape[1]:
        adapted.state["time_embed"] = resize_temporal(time.float(), wanted_time.shape[1])
        adapted.resized.append("time_embed")
    position, wanted = state.get("pos_embed"), target.get("pos_embed")
    if position is not None and wanted is not None and position.shape != wanted.shape:
        _fit_position(adapted, model, of_images, may_be_images)
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


def _fit_position(adapted: Adapted, model: VisionTransformer, of_images: bool, may_be_images: bool) -> None:
    """pos_embed of another input size: a spatial one only if it is square."""
    position = adapted.state["pos_embed"].float()
    T, H, W = grid = model.grid
    first = 1 if "cls_token" in adapted.state else 0
    class_position, patches = position[:, :first], position[:, first:]
    num_tokens = patches.shape[1]
    if model.position_embedding == "joint":
        old_grid = _joint_grid(num_tokens, grid, of_images, may_be_images)
    else:
        side = math.isqrt(num_tokens)
        old_grid = (1, side, side) if side * side == num_tokens else None
    if old_grid is None:
        return
    if old_grid[0] > 1:
        patches = resize_joint(patches, old_grid, grid)
    else:
        patches = resize_spatial(patches, old_grid[1:], (H, W), antialias=True)
        if model.position_embedding == "joint":
            patches = tile_position(patches, T)
    adapted.state["pos_embed"] = torch.cat([class_position, patches], dim=1)
    tiled = patches.shape[1] == T * num_tokens and T > 1
    (adapted.inflated if tiled else adapted.resized).append("pos_embed")


def _joint_grid(num_tokens: int, grid: Grid, of_images: bool, may_be_images: bool) -> Grid | None:
    """The grid that a joint embedding was made for: as large frames as the model's, or as many square ones of
    another size, or one square image. ValueError if several of these are possible."""
    T, H, W = grid
    if may_be_images and num_tokens == H * W:
        return 1, H, W
    possible = set()
    for frames in {1} if of_images else {1, T} if may_be_images else {T}:
        side = math.isqrt(num_tokens // frames)
        if frames * side * side == num_tokens:
            possible.add((frames, side, side))
    if num_tokens % (H * W) == 0 and not of_images:
        possible.add((num_tokens // (H * W), H, W))
    if len(possible) > 1:
        raise ValueError(
            f"its pos_embed has {num_tokens} tokens, which can be {' or '.join(map(str, sorted(possible)))} "
            f"(t, h, w), and the model has {grid}; build the model with the num_frames and image_size that "
            "the checkpoint was trained with: it takes clips of other sizes too, and interpolates"
        )
    return possible.pop() if possible else None


SOURCES = (
    Source("timesformer", matches_timesformer, convert),
    Source("videomae", matches_videomae, convert),
    Source("videomae", matches_videomae_pretraining, convert_videomae_pretraining),
    Source("slowfast", matches_slowfast, convert_slowfast),
    Source("timm", matches_timm, convert),
)
