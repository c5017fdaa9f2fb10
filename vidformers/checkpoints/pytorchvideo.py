"""PyTorchVideo's MViT (create_multiscale_vision_transformers) names.

Its LayerNorms have eps 1e-6, as ours by default, but for one release: in 0.1.5, the last on PyPI, the norms
after pooling (norm_q, norm_k, norm_v) have 1e-5, and there is no constructor argument for that here. Weights
that were trained with it (names without `_attention_pool_`) give logits that differ in the fourth digit.
"""

import re
from collections.abc import Iterable

from torch import Tensor

from vidformers.checkpoints.family import Source

_PREFIXES = {
    "patch_embed.patch_model.": "patch_embed.proj.",
    "cls_positional_encoding.": "",
    "norm_patch_embed.": "norm_stem.",
    "norm_embed.": "norm.",
    "head.proj.": "head.projection.",
}
# Newer releases hold each pooling layer and its norm in one more module, so its tensors are listed twice;
# older releases, and files that were thinned out, have only one of the two names.
_POOL = re.compile(r"(.*\.attn\.)_attention_pool_([qkv])\.(pool|norm)\.(.*)")


def matches(names: Iterable[str]) -> bool:
    """Whether these are PyTorchVideo's names of an MViT."""
    return any(name.startswith(("patch_embed.patch_model.", "cls_positional_encoding.")) for name in names)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """PyTorchVideo's state dict -> ours. q, k and v stay separate where they are, 2D patch kernels 2D."""
    converted = {}
    for name, tensor in state.items():
        match = _POOL.fullmatch(name)
        if match:
            attention, letter, part, rest = match.groups()
            name = f"{attention}{part}_{letter}.{rest}"
        for prefix, ours in _PREFIXES.items():
            if name.startswith(prefix):
                name = ours + name.removeprefix(prefix)
                break
        converted[name] = tensor
    return converted


SOURCE = Source("pytorchvideo", matches, convert)
