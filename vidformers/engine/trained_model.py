"""What is done to a model before and while it is trained: weights to start from, freezing, averaging."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vidformers.checkpoints import load_weights
from vidformers.checkpoints.load import its_model
from vidformers.engine.checkpoint import check_class_names, share_no_class
from vidformers.engine.logs import say

_CLASSIFIER = "head.projection."


def start_from_weights(model: nn.Module, path: str, class_names: Sequence[str] | None, output: Path) -> None:
    """Load `path` to fine-tune from; the classifier starts afresh when the number of classes differs, or not
    one class of the file is among those of the videos, `class_names`.

    Else the classes are compared (`check_class_names`).
    Raises ValueError when anything but the classifier does not fit: half a backbone is no starting point.
    """
    new = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(_CLASSIFIER)}
    info = load_weights(model, path, strict=False)
    misfits = [name for name in (*info.missing, *info.unexpected) if not name.startswith("head.")]
    if misfits:
        raise ValueError(
            f"{path} ({info.source}) does not fit the model: {len(misfits)} parameters besides the "
            f"classifier are missing or left over, such as {', '.join(misfits[:5])}. "
            + (
                its_model(info.metadata)
                or "Set MODEL.NAME and MODEL.ARGS to the model that it was trained as"
            )
            + "."
        )
    other_number = any(name.startswith("head.") for name in info.missing)
    other_names = not other_number and share_no_class(info.class_names, class_names)
    if other_names:
        model.load_state_dict(new, strict=False)
        info.matched = [name for name in info.matched if name not in new]
        info.missing += new
    elif not other_number:
        check_class_names(path, info.class_names, class_names, output)
    say(f"Starting from {path} ({info.source}): {len(info.matched)} tensors loaded.")
    if other_number or other_names:
        known = info.class_names or ()
        theirs = f", its {len(known)} are {', '.join([*known[:3], *(['...'] if known[3:] else [])])}"
        say(f"  the classifier is new: the file has none for these classes{theirs if known else ''}")
    if info.resized:
        say(f"  resized: {', '.join(sorted(info.resized))}")
    if info.inflated:
        say(f"  inflated from images: {', '.join(sorted(info.inflated))}")
    if info.missing:
        say(f"  left at random initialisation: {', '.join(sorted(info.missing))}")


def freeze_(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Exclude from training all parameters whose name starts with one of `prefixes`; "backbone" is all but
    the classifier. Raises ValueError for a prefix that no parameter has."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        chosen = [
            name
            for name in names
            if (not name.startswith("head.") if prefix == "backbone" else name.startswith(prefix))
        ]
        if not chosen:
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ValueError(f"MODEL.FREEZE: no parameter is named {prefix}...; use backbone or {known}.")
        for name in chosen:
            model.get_parameter(name).requires_grad_(False)


def train_mode_(model: nn.Module) -> None:
    """Training mode, but for the modules that are wholly frozen: no dropout, and their statistics stay."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def norms_in_fp32(model: nn.Module) -> None:
    """Give every LayerNorm float32 input, as autocast does on CUDA but not on the CPU.

    torch (seen in 2.13) sums the gradient of a LayerNorm's bias in half precision there: with 7000 tokens
    it is off by 90 %.
    """
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """torch's exponential average, for lists in which only some tensors are sharded (buffers never are)."""
    update = get_ema_multi_avg_fn(decay)

    def average(averages: Sequence[Tensor], tensors: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        for sharded in (True, False):
            pairs = list(zip(averages, tensors, strict=True))
            pairs = [pair for pair in pairs if isinstance(pair[0], DTensor) == sharded]
            if pairs:
                update([own for own, _ in pairs], [new for _, new in pairs], num_averaged)

    return average
