"""UniFormer's official weights, of videos and of images."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted, Source
from vidformers.checkpoints.inflate import inflate

_STAGE = re.compile(r"^(patch_embed|blocks)(\d+)\.")
_OURS = {"patch_embed": "merge", "blocks": "blocks"}


def matches(names: Iterable[str]) -> bool:
    """Whether these are the official names."""
    names = set(names)
    return {"patch_embed1.proj.weight", "blocks1.0.conv1.weight", "blocks1.0.pos_embed.weight"} <= names


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict -> ours: stages are counted from 0, 2D kernels get a time axis."""
    converted = {}
    for name, tensor in state.items():
        name = _STAGE.sub(lambda found: f"stages.{int(found[2]) - 1}.{_OURS[found[1]]}.", name)
        name = name.replace("head.", "head.projection.") if name.startswith("head.") else name
        # (O, I, kh, kw) -> (O, I, 1, kh, kw)
        converted[name] = tensor.unsqueeze(2) if tensor.ndim == 4 else tensor
    return converted


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Inflates image weights; those of the temporal attention, which they lack, start so that it adds 0."""
    adapted = inflate(state, model)
    position = state.get("stages.0.blocks.0.pos_embed.weight")
    from_images = position is not None and position.ndim == 5 and position.shape[2] == 1
    for name, wanted in model.state_dict().items():
        if from_images and name not in state and (".t_attn." in name or ".t_norm." in name):
            starts_at_one = name.endswith((".t_attn.proj.weight", ".t_norm.weight"))
            adapted.state[name] = torch.full(wanted.shape, float(starts_at_one))
            adapted.inflated.append(name)
    return adapted


SOURCE = Source("official", matches, convert)
