"""PySlowFast's MViT, ViT and Rev-MViT names, which are also this library's."""

from collections.abc import Iterable

import torch
from torch import Tensor

from vidformers.checkpoints.family import Source

_ADDED = ("mask_token", "pred_head.", "encoder_to_decoder.", "decoder.")  # by masked pre-training


def matches(names: Iterable[str]) -> bool:
    """Whether these are PySlowFast's names of a transformer classifier that is not reversible."""
    return _has(names, "blocks.0.attn.")


def matches_reversible(names: Iterable[str]) -> bool:
    """Whether these are PySlowFast's names of a reversible one."""
    return _has(names, "rev_backbone.layers.0.")


def matches_pretraining(names: Iterable[str]) -> bool:
    """Whether these are the names of PySlowFast's masked pre-training of an MViT, or of ours."""
    names = set(names)
    ours = matches(name.removeprefix("encoder.") for name in names if name.startswith("encoder."))
    theirs = matches(names) and "pred_head.projections.0.weight" in names
    return "mask_token" in names and (ours or theirs)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """PySlowFast's state dict -> ours: the same names. The 2D patch kernel of an image model stays 2D, to be
    known as one by `adapt`.
    """
    return dict(state)


def convert_pretraining(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder of masked pre-training -> ours, without the head, which it lacks.

    The last norm, which a classifier has and pre-training has not (or for its decoder), starts anew.
    """
    names = {name: name.removeprefix("encoder.") for name in state if not name.startswith(_ADDED)}
    converted = {ours: state[name] for name, ours in names.items() if not ours.startswith("norm.")}
    # The last block's MLP is as wide as its output.
    last = max((name for name in converted if name.endswith(".mlp.fc2.bias")), key=_block)
    converted["norm.weight"] = torch.ones_like(converted[last])
    converted["norm.bias"] = torch.full_like(converted[last], 0.02)
    return converted


def _block(name: str) -> int:
    return int(name.split(".")[1])


def _has(names: Iterable[str], block: str) -> bool:
    names = set(names)
    return "patch_embed.proj.weight" in names and any(name.startswith(block) for name in names)


SOURCE = Source("slowfast", matches, convert)
PRETRAINING = Source("slowfast", matches_pretraining, convert_pretraining)
REVERSIBLE = Source("slowfast", matches_reversible, convert)
