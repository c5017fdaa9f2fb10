"""PySlowFast's MViT, ViT and Rev-MViT names, which are also this library's."""

from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source


def matches(names: Iterable[str]) -> bool:
    """Whether these are PySlowFast's names of a transformer classifier that is not reversible."""
    return _has(names, "blocks.0.attn.")


def matches_reversible(names: Iterable[str]) -> bool:
    """Whether these are PySlowFast's names of a reversible one."""
    return _has(names, "rev_backbone.layers.0.")


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """PySlowFast's state dict -> ours: the same names. The 2D patch kernel of an image model stays 2D, to be
    known as one by `adapt`.
    """
    return dict(state)


def _has(names: Iterable[str], block: str) -> bool:
    names = set(names)
    return "patch_embed.proj.weight" in names and any(name.startswith(block) for name in names)


SOURCE = Source("slowfast", matches, convert)
REVERSIBLE = Source("slowfast", matches_reversible, convert)
