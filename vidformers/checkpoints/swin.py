"""Swin and Video Swin weights: timm's, torchvision's (2D and 3D) and the official ones, to a Swin model."""

import math
import re
from collections.abc import Iterable

from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted, Source
from vidformers.checkpoints.inflate import inflate
from vidformers.layers.position_bias import TableBias, table_size
from vidformers.layers.sizes import Grid

_TABLE = "attn.relative_position_bias_table"
# Recomputed from the sizes.
_BUFFERS = ("relative_position_index", "attn_mask")
_TORCHVISION_BLOCK = [(r"mlp\.0\.", "mlp.fc1."), (r"mlp\.3\.", "mlp.fc2.")]


def matches_timm(names: Iterable[str]) -> bool:
    """Whether these are timm's names of a Swin: the merging is in the stage after it."""
    names = set(names)
    return f"layers.0.blocks.0.{_TABLE}" in names and "layers.0.downsample.norm.weight" not in names


def matches_official(names: Iterable[str]) -> bool:
    """Whether these are the official names (also of Video Swin, under `backbone.`): the merging is in the
    stage before it."""
    names = set(names)
    return any(
        {f"{prefix}layers.0.blocks.0.{_TABLE}", f"{prefix}layers.0.downsample.norm.weight"} <= names
        for prefix in ("", "backbone.")
        if f"{prefix}msg_tokens" not in names  # MSG-Transformer is built like Swin
    )


def matches_torchvision(names: Iterable[str]) -> bool:
    """Whether these are torchvision's names of a Swin, for images or for clips."""
    names = set(names)
    return f"features.1.0.{_TABLE}" in names or f"features.0.0.{_TABLE}" in names


def convert_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict -> ours: tables and head have other names."""
    converted = {}
    for name, tensor in state.items():
        if name.endswith(_BUFFERS):
            continue
        name = re.sub(r"^head\.(fc\.)?(weight|bias)$", r"head.projection.\2", name)
        converted[name.replace(_TABLE, "attn.position_bias.table")] = tensor
    return converted


def convert_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official state dict, of an image model or of Video Swin in MMAction2's layout -> ours."""
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("backbone.").replace("cls_head.fc_cls.", "head.")
        name = re.sub(
            r"^layers\.(\d+)\.downsample\.",
            lambda match: f"layers.{int(match.group(1)) + 1}.downsample.",
            name,
        )
        renamed[name] = tensor
    return convert_timm(renamed)


def convert_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict -> ours. Its image model counts the patch embedding as features.0."""
    stem_in_features = "features.0.0.weight" in state
    renamed = {}
    for name, tensor in state.items():
        if stem_in_features:
            name = re.sub(r"^features\.0\.0\.", "patch_embed.proj.", name)
            name = re.sub(r"^features\.0\.2\.", "patch_embed.norm.", name)
        match = re.fullmatch(r"features\.(\d+)\.(.*)", name)
        if match:
            index, rest = int(match.group(1)) - stem_in_features, match.group(2)
            if index % 2:
                name = f"layers.{(index + 1) // 2}.downsample.{rest}"
            else:
                name = f"layers.{index // 2}.blocks.{rest}"
                for theirs, ours in _TORCHVISION_BLOCK:
                    name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    return convert_timm(renamed)


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Inflates; tables of windows that timm clipped to a small map are put where those offsets belong."""
    state = dict(state)
    for prefix, module in model.named_modules():
        name = f"{prefix}.table"
        if isinstance(module, TableBias) and name in state:
            stage = int(prefix.split(".")[1])
            state[name] = _unclipped(state[name], module.window, _stage_grid(model, stage))
    return inflate(state, model)


def _stage_grid(model: nn.Module, stage: int) -> Grid:
    """Tokens of a stage for the input that the model is made for."""
    T, H, W = model.grid  # type: ignore[misc]
    return T, math.ceil(H / 2**stage), math.ceil(W / 2**stage)


def _unclipped(table: Tensor, window: Grid, grid: Grid) -> Tensor:
    """A spatial table of min(window, grid) -> one of the whole window, 0 for offsets that never occur."""
    _, rows_h, rows_w = table_size(window)
    small_h, small_w = (2 * min(w, n) - 1 for w, n in zip(window[1:], grid[1:], strict=True))
    if (small_h, small_w) == (rows_h, rows_w) or table.shape[0] != small_h * small_w:
        return table
    whole = table.new_zeros(rows_h, rows_w, table.shape[1])
    top, left = (rows_h - small_h) // 2, (rows_w - small_w) // 2
    whole[top : top + small_h, left : left + small_w] = table.view(small_h, small_w, -1)
    return whole.flatten(0, 1)


TIMM = Source("timm", matches_timm, convert_timm)
OFFICIAL = Source("official", matches_official, convert_official)
TORCHVISION = Source("torchvision", matches_torchvision, convert_torchvision)
