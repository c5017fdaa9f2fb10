"""Which registered models a checkpoint fits, for the error that says that it does not fit the one at hand."""

import functools
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vidformers.checkpoints.families import FAMILIES
from vidformers.models.registry import create_model, list_models, model_arguments, model_class

_HEAD = {"head.projection.weight", "head.projection.bias"}


def fitting_models(state: Mapping[str, Tensor], class_names: Collection[str]) -> list[str]:
    """Calls of `create_model`, as text, for the registered models of these classes that `state` fits.

    `state` is in our names, as a source's `convert` gives it. It fits if every name and shape does, after
    resizing and inflating; the number of classes is free, and part of the call. Those that need the fewest
    changes come first. Options that change no shape (a pooling without parameters, say) are not told apart.
    Nothing is computed: models and weights are on the meta device, tens of milliseconds each.
    """
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in state.items()}
    found = []
    for name in list_models():
        class_name = model_class(name).__name__
        if class_name in class_names:
            changes = _changes(shapes, name, class_name)
            if changes is not None:
                found.append((changes, name))
    return [_call(name, shapes) for _, name in sorted(found)]


def _changes(shapes: dict[str, Tensor], name: str, class_name: str) -> int | None:
    """How many weights would be added or get another shape; None if some would not fit."""
    model = _on_meta(name)
    try:
        with torch.device("meta"):
            adapted = FAMILIES[class_name].adapt(shapes, model)
    except ValueError:  # position tables that it cannot make sense of
        return None
    target = model.state_dict()
    # A pre-trained model has no classifier.
    if adapted.state.keys() ^ target.keys() not in (set(), _HEAD):
        return None
    changes = 0
    for key, tensor in adapted.state.items():
        first = 1 if key in _HEAD else 0  # any number of classes
        if tensor.shape[first:] != target[key].shape[first:]:
            return None
        changes += key not in shapes or shapes[key].shape != tensor.shape
    return changes


@functools.lru_cache(maxsize=16)  # those of one class
def _on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name)


def _call(name: str, shapes: Mapping[str, Tensor]) -> str:
    default = model_arguments(name)["num_classes"]
    head = shapes.get("head.projection.bias")
    num_classes = default if head is None else len(head)
    other = "" if num_classes == default else f", num_classes={num_classes}"
    return f"create_model({name!r}{other})"
