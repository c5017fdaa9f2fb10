"""The official MSG-Transformer's names, and what its image weights need besides the common inflation."""

from collections.abc import Iterable

from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted, Source
from vidformers.checkpoints.inflate import inflate
from vidformers.models.msg_transformer import MSGTransformer

# Buffers of the official model; they follow from the sizes.
_BUFFERS = ("relative_position_index", "attn_mask")
_RENAMES = (
    (".attn.relative_position_bias_table", ".attn.position_bias.patches.table"),
    (".attn.rel_pos_msg", ".attn.position_bias.rel_pos_msg"),
)


def matches(names: Iterable[str]) -> bool:
    """Whether these are the official names: messengers, and their position bias beside Swin's table."""
    names = set(names)
    return "msg_tokens" in names and any(name.endswith(".attn.rel_pos_msg") for name in names)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict -> ours; image kernels stay 4-D."""
    converted = {}
    for name, tensor in state.items():
        if name.rpartition(".")[2] in _BUFFERS:
            continue
        for old, new in _RENAMES:
            name = name.replace(old, new)
        if name in ("head.weight", "head.bias"):
            name = name.replace("head.", "head.projection.")
        converted[name] = tensor
    return converted


def adapt(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Common inflation; and the messengers of an image's region serve each time step of a clip's."""
    adapted = inflate(state, model)
    tokens = adapted.state.get("msg_tokens")
    assert isinstance(model, MSGTransformer)
    frames, height, width = model.region
    if tokens is None or tokens.ndim != 4 or frames == 1 or tokens.shape[1] != height * width:
        return adapted
    adapted.state["msg_tokens"] = tokens.repeat(1, frames, 1, 1)
    adapted.inflated.append("msg_tokens")
    return adapted


SOURCE = Source("official", matches, convert)
