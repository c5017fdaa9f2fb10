"""The official CrossFormer's and CrossFormer++'s names."""

from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

# Older official checkpoints hold these; they follow from the sizes.
_BUFFERS = ("relative_position_index", "biases", "attn_mask")


def matches(names: Iterable[str]) -> bool:
    """Whether these are the official names: a dynamic position bias, and a classifier called head."""
    names = set(names)
    has_bias = any(name.endswith(".attn.pos.pos_proj.weight") for name in names)
    return has_bias and "patch_embed.projs.0.weight" in names


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict -> ours; image kernels stay 4-D."""
    converted = {}
    for name, tensor in state.items():
        if name.rpartition(".")[2] in _BUFFERS:
            continue
        name = name.replace(".attn.pos.", ".attn.position_bias.")
        if name in ("head.weight", "head.bias"):
            name = name.replace("head.", "head.projection.")
        converted[name] = tensor
    return converted


SOURCE = Source("official", matches, convert)
