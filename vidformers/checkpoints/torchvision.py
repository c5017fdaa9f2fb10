"""torchvision.models.video.MViT names.

The same weights give the same logits but for one thing: torchvision computes the index of relative positions
in another order than PySlowFast, and float32 rounding then picks the neighbouring row for some pairs where
neither of the numbers of queries and keys divides the other (8 and 6, for instance; none of those at
16 x 224 x 224). Ours is PySlowFast's.
"""

import re
from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

# Applied one after the other, each to the result of the one before.
_RENAMES = [
    (r"conv_proj\.", "patch_embed.proj."),
    (r"pos_encoding\.class_token", "cls_token"),
    (r"pos_encoding\.class_pos", "pos_embed_class"),
    (r"pos_encoding\.spatial_pos", "pos_embed_spatial"),
    (r"pos_encoding\.temporal_pos", "pos_embed_temporal"),
    (r"(blocks\.\d+\.attn)\.pool_([qkv])\.pool\.", r"\1.pool_\2."),
    (r"(blocks\.\d+\.attn)\.pool_([qkv])\.norm_act\.0\.", r"\1.norm_\2."),
    (r"(blocks\.\d+\.attn)\.project\.0\.", r"\1.proj."),
    (r"(blocks\.\d+)\.project\.", r"\1.proj."),
    (r"(blocks\.\d+)\.mlp\.0\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.mlp\.3\.", r"\1.mlp.fc2."),
    (r"head\.1\.", "head.projection."),
]


def matches(names: Iterable[str]) -> bool:
    """Whether these are torchvision's names of an MViT (its other models have no pos_encoding)."""
    names = set(names)
    return "conv_proj.weight" in names and any(name.startswith("pos_encoding.") for name in names)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict -> ours; its embeddings lack our leading axes."""
    converted = {}
    for name, tensor in state.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(f"^{pattern}", replacement, name)
        if name in ("cls_token", "pos_embed_class"):
            tensor = tensor.reshape(1, 1, -1)  # (C,) -> (1, 1, C)
        elif name in ("pos_embed_spatial", "pos_embed_temporal"):
            tensor = tensor.unsqueeze(0)  # (n, C) -> (1, n, C)
        converted[name] = tensor
    return converted


SOURCE = Source("torchvision", matches, convert)
