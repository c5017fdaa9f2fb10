"""Twins' image weights, of the official code and of timm, which have the same names."""

from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source


def _is_twins(names: set[str]) -> bool:
    return {"patch_embeds.0.proj.weight", "pos_block.0.proj.0.weight"} <= names


def matches_pcpvt(names: Iterable[str]) -> bool:
    """Whether these are the names of a Twins-PCPVT, all of whose blocks have separate queries."""
    names = set(names)
    return _is_twins(names) and "blocks.0.0.attn.q.weight" in names


def matches_svt(names: Iterable[str]) -> bool:
    """Whether these are the names of a Twins-SVT, whose first block attends within windows."""
    names = set(names)
    return _is_twins(names) and "blocks.0.0.attn.qkv.weight" in names


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict -> ours: our positional encoding generators hold no list of one layer."""
    converted = {}
    for name, tensor in state.items():
        name = name.replace(".proj.0.", ".proj.") if name.startswith("pos_block.") else name
        name = name.replace("head.", "head.projection.") if name.startswith("head.") else name
        converted[name] = tensor
    return converted


PCPVT_SOURCE = Source("timm", matches_pcpvt, convert)
SVT_SOURCE = Source("timm", matches_svt, convert)
