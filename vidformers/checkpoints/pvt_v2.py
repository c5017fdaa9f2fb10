"""PVTv2's image weights, of timm and of the official code."""

import re
from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

_OFFICIAL = re.compile(r"^(patch_embed|block|norm)(\d+)\.")


def matches_timm(names: Iterable[str]) -> bool:
    """Whether these are timm's names of a PVTv2."""
    names = set(names)
    return {"stages.0.blocks.0.mlp.dwconv.weight", "stages.0.norm.weight", "head.weight"} <= names


def convert_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict -> ours: the same names, but for the head."""
    return {
        name.replace("head.", "head.projection.") if name.startswith("head.") else name: tensor
        for name, tensor in state.items()
    }


def matches_official(names: Iterable[str]) -> bool:
    """Whether these are the official code's names of a PVTv2."""
    names = set(names)
    return {"patch_embed1.proj.weight", "block1.0.mlp.dwconv.dwconv.weight"} <= names


def convert_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official code's state dict -> ours: it counts stages from 1 and has no module for one."""
    converted = {}
    for name, tensor in convert_timm(state).items():
        found = _OFFICIAL.match(name)
        if found:
            kind, stage = found[1], int(found[2]) - 1
            ours = {"patch_embed": "downsample", "block": "blocks", "norm": "norm"}[kind]
            prefix = "patch_embed" if (kind, stage) == ("patch_embed", 0) else f"stages.{stage}.{ours}"
            name = f"{prefix}.{name[found.end() :]}"
        converted[name.replace(".dwconv.dwconv.", ".dwconv.")] = tensor
    return converted


SOURCES = (
    Source("timm", matches_timm, convert_timm),
    Source("official", matches_official, convert_official),
)
