"""Hiera's official weights; they are fitted as MViT's are, see `adapt.py`."""

import re
from collections.abc import Iterable

from vidformers.checkpoints.family import Source

# Only a hierarchy has this Linear beside the attention; MViT's has more (pools, norms of q, position tables).
_WIDENING = re.compile(r"blocks\.\d+\.proj\.weight")


def matches(names: Iterable[str]) -> bool:
    names = set(names)
    pools = any(part in name for name in names for part in (".pool_", ".norm_q.", ".rel_pos_"))
    widens = any(_WIDENING.fullmatch(name) for name in names)
    return "patch_embed.proj.weight" in names and "cls_token" not in names and widens and not pools


SOURCE = Source("hiera", matches, dict)  # the names are the same
