"""The official Shuffle Transformer's image weights."""

import re
from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

_STEM = {"conv1.0": "conv1", "conv1.1": "norm1", "conv2.0": "conv2", "conv2.1": "norm2", "conv3": "proj"}
_RENAMED = (
    (".patch_partition.", ".merge."),
    (".attn.to_qkv.", ".attn.qkv."),
    (".attn.relative_position_bias_table", ".attn.position_bias.table"),
)
_BLOCK = re.compile(r"\.layers\.(\d+)\.([01])\.")
_STAGE = re.compile(r"^stage(\d+)\.")
# 1x1 convolutions there, Linears here.
_LINEAR = re.compile(r"\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.weight$")


def matches(names: Iterable[str]) -> bool:
    """Whether these are the official names."""
    names = set(names)
    return {"to_token.conv1.0.weight", "stage1.layers.0.0.attn.to_qkv.weight"} <= names


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict -> ours: kernels get a time axis, 1x1 kernels in the blocks become Linears."""
    converted = {}
    for name, tensor in state.items():
        if name.endswith("relative_position_index"):
            continue
        name = _our_name(name)
        if _LINEAR.search(name):
            tensor = tensor.flatten(1)  # (O, I, 1, 1) -> (O, I)
        elif tensor.ndim == 4:
            tensor = tensor.unsqueeze(2)  # (O, I, kh, kw) -> (O, I, 1, kh, kw)
        converted[name] = tensor
    return converted


def _our_name(name: str) -> str:
    """stage2.layers.1.0.attn.to_qkv.weight -> stages.1.blocks.2.attn.qkv.weight, and the like."""
    if name.startswith("to_token."):
        layer, _, kind = name.removeprefix("to_token.").rpartition(".")
        return f"stem.{_STEM.get(layer, layer)}.{kind}"
    if name.startswith("head."):
        return name.replace("head.", "head.projection.")
    name = _STAGE.sub(lambda found: f"stages.{int(found[1]) - 1}.", name)
    name = _BLOCK.sub(lambda found: f".blocks.{2 * int(found[1]) + int(found[2])}.", name)
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name


SOURCE = Source("official", matches, convert)
