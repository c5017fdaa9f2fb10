"""PySlowFast's MViT and ViT names, which are also this library's."""

from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source


def matches(names: Iterable[str]) -> bool:
    """Whether these are PySlowFast's names of a transformer classifier."""
    names = set(names)
    has_block = any(name.startswith(("blocks.0.attn.", "rev_backbone.")) for name in names)
    return "patch_embed.proj.weight" in names and has_block


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """PySlowFast's state dict -> ours: the same names. The 2D patch kernel of an image model stays 2D, to be
    known as one by `adapt`.

    ValueError for reversible models (names under rev_backbone).
    """
    if any(name.startswith("rev_backbone.") for name in state):
        raise ValueError(
            "the checkpoint is of a reversible MViT (it has names such as rev_backbone.layers.0.F...), "
            "and reversible MViT is not supported yet"
        )
    return dict(state)


def as_3d_kernel(name: str, tensor: Tensor) -> Tensor:
    """(O, I, kh, kw) -> (O, I, 1, kh, kw) for the patch embedding of an image model; others unchanged."""
    return tensor.unsqueeze(2) if name == "patch_embed.proj.weight" and tensor.ndim == 4 else tensor


SOURCE = Source("slowfast", matches, convert)
