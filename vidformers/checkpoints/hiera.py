"""Hiera's weights, official and timm's; they are fitted as MViT's are, see `adapt.py`."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from vidformers.checkpoints.family import Source

# Only a hierarchy has this Linear beside the attention; MViT's has more (pools, norms of q, position tables).
_WIDENING = re.compile(r"blocks\.\d+\.proj\.weight")
# What masked pre-training adds.
_DECODER = ("decoder_", "encoder_norm.", "mask_token", "multi_scale_fusion_heads.")


def matches(names: Iterable[str]) -> bool:
    names = set(names)
    pools = any(part in name for name in names for part in (".pool_", ".norm_q.", ".rel_pos_"))
    widens = any(_WIDENING.fullmatch(name) for name in names)
    return "patch_embed.proj.weight" in names and "cls_token" not in names and widens and not pools


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict -> ours: the same names.

    Of a pre-trained model without the decoder and, as it has none, without a head. Its last norm served the
    decoder: as in the official code, ours starts anew.
    """
    converted = {name: tensor for name, tensor in state.items() if not name.startswith(_DECODER)}
    if "encoder_norm.weight" in state:
        converted["norm.weight"] = torch.ones_like(state["encoder_norm.weight"])
        converted["norm.bias"] = torch.full_like(state["encoder_norm.bias"], 0.02)
    return converted


def matches_timm(names: Iterable[str]) -> bool:
    """Whether these are timm's names, which are the official ones but for the head."""
    names = set(names)
    return "head.fc.weight" in names and matches(names)


def convert_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict -> ours: its last norm is in its head."""
    renamed = {"head.norm": "norm", "head.fc": "head.projection"}
    parts = ((name.rpartition("."), tensor) for name, tensor in state.items())
    return {f"{renamed.get(layer, layer)}{dot}{kind}": tensor for (layer, dot, kind), tensor in parts}


TIMM = Source("timm", matches_timm, convert_timm)
SOURCE = Source("hiera", matches, convert)
