"""timm's MaxViT image weights (`maxvit_*_tf_*`: the published TensorFlow ones)."""

from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

_RENAMED = (
    ("head.pre_logits.fc.", "head.pre_logits."),
    ("head.fc.", "head.projection."),
    (".rel_pos.relative_position_bias_table", ".position_bias.table"),
)


def matches(names: Iterable[str]) -> bool:
    """Whether these are timm's names of a MaxViT, of either kind."""
    names = set(names)
    return "stages.0.blocks.0.attn_grid.attn.qkv.weight" in names and "head.fc.weight" in names


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict -> ours: 2D kernels get a time axis, tables our (Swin's) layout.

    timm's tables are (heads, 2h-1, 2w-1) and looked up by key - query, ours by query - key: the same numbers
    with both axes reversed. ValueError for timm's other MaxViT, the `rw` one.
    """
    if "head.pre_logits.fc.weight" not in state:
        raise ValueError(
            "the checkpoint is of one of timm's own MaxViT variants (maxvit_*_rw_*, maxvit_rmlp_*), which "
            "differ in activations, padding and position bias; use one of the published maxvit_*_tf_*"
        )
    converted = {}
    for name, tensor in state.items():
        for theirs, ours in _RENAMED:
            name = name.replace(theirs, ours)
        if name.endswith("relative_position_index"):
            continue
        if name.endswith(".table"):
            tensor = tensor.flip(1, 2).flatten(1).T  # (heads, h, w) -> (h*w, heads)
        elif tensor.ndim == 4:
            tensor = tensor.unsqueeze(2)  # (O, I, kh, kw) -> (O, I, 1, kh, kw)
        converted[name] = tensor
    return converted


SOURCE = Source("timm", matches, convert)
