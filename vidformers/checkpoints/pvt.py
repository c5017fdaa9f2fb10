"""PVT's (v1) image weights, of the official code, and how they are fitted to a model."""

import math
import re
from collections.abc import Iterable

from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted, Source
from vidformers.checkpoints.inflate import inflate, zero
from vidformers.layers.position import resize_temporal
from vidformers.models.pvt import PVT, resize_plane

_STAGED = re.compile(r"^(patch_embed|pos_embed|block)(\d+)")
_OURS = {"patch_embed": "patch_embeds", "pos_embed": "pos_embed_spatial", "block": "blocks"}


def matches(names: Iterable[str]) -> bool:
    """Whether these are the official code's names of a PVT."""
    return {"pos_embed1", "patch_embed1.proj.weight", "cls_token"} <= set(names)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official code's state dict -> ours: stages from 0, the class token's position by itself."""
    last = f"pos_embed{max(int(n.removeprefix('pos_embed')) for n in state if n.startswith('pos_embed'))}"
    converted = {}
    for name, tensor in state.items():
        if name == last:
            converted["pos_embed_class"], tensor = tensor[:, :1], tensor[:, 1:]
        found = _STAGED.match(name)
        if found:
            name = f"{_OURS[found[1]]}.{int(found[2]) - 1}{name[found.end() :]}"
        elif name.startswith("head."):
            name = name.replace("head.", "head.projection.")
        converted[name] = tensor
    return converted


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Convolutions as `inflate`; positions of square images are resized to the model's, in time from 0."""
    assert isinstance(model, PVT)
    adapted = inflate(state, model)
    for i, (_, height, width) in enumerate(model.grids):
        name = f"pos_embed_spatial.{i}"
        plane = adapted.state.get(name)
        if plane is None or plane.shape[1] == height * width:
            continue
        side = math.isqrt(plane.shape[1])
        if side * side == plane.shape[1]:
            adapted.state[name] = resize_plane(plane.float(), (side, side), (height, width))
            adapted.resized.append(name)
    if model.pos_embed_temporal is not None:
        for i, (frames, _, _) in enumerate(model.grids):
            name = f"pos_embed_temporal.{i}"
            zero(adapted, model, name)
            if adapted.state[name].shape[1] != frames:
                adapted.state[name] = resize_temporal(adapted.state[name].float(), frames)
                adapted.resized.append(name)
    return adapted


SOURCE = Source("official", matches, convert)
