"""CPVT's image weights: no official code exists, so the names are those of timm's ViT, and `peg`."""

from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

_RENAMES = (("head.", "head.projection."), ("fc_norm.", "norm."))


def matches(names: Iterable[str]) -> bool:
    """Whether these are the names of a CPVT, but not this library's."""
    names = set(names)
    return {"peg.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"} <= names


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict in timm's manner -> ours: one name for the last norm, with and without a class token."""
    converted = {}
    for name, tensor in state.items():
        for theirs, ours in _RENAMES:
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        converted[name] = tensor
    return converted


SOURCE = Source("timm", matches, convert)
