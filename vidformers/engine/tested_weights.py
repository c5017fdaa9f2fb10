"""Weights to test a model with."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from vidformers.checkpoints import LoadInfo, find_state_dict, load_weights, read_checkpoint, to_our_names
from vidformers.engine.checkpoint import check_num_classes


def load_whole(
    model: nn.Module,
    path: str,
    state: Mapping[str, Any] | None,
    *,
    num_classes: int,
    class_names: Sequence[str] | None,
) -> LoadInfo:
    """Load all of `path`, or `state` where that was read from it already.

    Raises as `load_weights`, naming `path`; where the classifier is one of another number of classes the
    error says so (`check_num_classes`).
    """
    try:
        return load_weights(model, path if state is None else state)
    except ValueError as error:
        checkpoint = read_checkpoint(path) if state is None else state
        check_num_classes(
            path,
            _count_classes(model, checkpoint),
            checkpoint.get("class_names"),
            num_classes,
            class_names,
            purpose="test it",
        )
        if state is None:
            raise
        raise ValueError(f"{path}: {error}") from error


def _count_classes(model: nn.Module, checkpoint: Mapping[str, Any]) -> int | None:
    """Classes of the classifier in a checkpoint for `model`, of any project; None where it cannot be told."""
    own_names = set(model.state_dict())
    try:
        _, weights = to_our_names(find_state_dict(checkpoint), type(model).__name__, own_names)
    except (KeyError, ValueError):  # of another model
        return None
    classifier = weights.get("head.projection.weight")
    return None if classifier is None else len(classifier)
