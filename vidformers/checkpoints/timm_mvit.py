"""timm's image weights of MViTv2 (`mvitv2_*`): the official ones, with blocks counted in each stage."""

import re
from collections import Counter
from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

_BLOCK = re.compile(r"^stages\.(\d+)\.blocks\.(\d+)\.")
_RENAMED = (
    (".shortcut_proj_attn.", ".proj."),
    (".shortcut_proj_mlp.", ".proj."),
    ("head.fc.", "head.projection."),
)


def matches(names: Iterable[str]) -> bool:
    """Whether these are timm's names of an MViTv2, which pools by convolutions."""
    wanted = {"patch_embed.proj.weight", "stages.0.blocks.0.attn.pool_k.weight"}
    return wanted <= set(names)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict -> ours: blocks are counted from the first of the model; kernels stay 4-D."""
    blocks = {(int(found[1]), int(found[2])) for name in state if (found := _BLOCK.match(name))}
    depths = Counter(stage for stage, _ in blocks)
    converted = {}
    for name, tensor in state.items():
        if found := _BLOCK.match(name):
            before = sum(depth for stage, depth in depths.items() if stage < int(found[1]))
            name = f"blocks.{before + int(found[2])}.{name[found.end() :]}"
        for theirs, ours in _RENAMED:
            name = name.replace(theirs, ours)
        converted[name] = tensor
    return converted


SOURCE = Source("timm", matches, convert)
