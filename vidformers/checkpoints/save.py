"""Weights to a .safetensors file that says what they are of."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

from torch import nn

from vidformers.checkpoints.metadata import Metadata, metadata_of, to_header
from vidformers.files import written_whole


def save_weights(model: nn.Module, path: str | os.PathLike[str], metadata: Metadata | None = None) -> None:
    """Writes the weights of `model` with `metadata`, those of the model if None are given; atomically.

    `create_model(name, weights=path)` and `from_pretrained(path)` read it. Raises ValueError for a name that
    is not .safetensors, a model without metadata or without a classifier, and labels that are not as many as
    its classes.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise ImportError(
            "weights are written by the package safetensors: pip install 'vidformers[safetensors]'"
        )
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"got {path}; wanted a name that ends with .safetensors")
    metadata = described(model, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata=to_header(metadata))
    except SafetensorError as error:  # also of a write that failed
        raise OSError(f"{path} could not be written ({error})") from error


def described(model: nn.Module, metadata: Metadata | None) -> Metadata:
    """The metadata to write, with the number of classes that the model has. Raises as `save_weights`."""
    metadata = metadata or metadata_of(model)
    if metadata is None:
        raise ValueError(
            f"this {type(model).__name__} does not say what it is, as create_model did not make it; "
            "give metadata=Metadata(model_name=..., model_arguments=...)"
        )
    num_classes = getattr(model, "num_classes", None)
    if not num_classes:
        raise ValueError("the model has no classifier; give it one with reset_classifier(num_classes)")
    if metadata.labels is not None and len(metadata.labels) != num_classes:
        raise ValueError(
            f"got {len(metadata.labels)} labels for {num_classes} classes; give one for each, in their order"
        )
    return replace(metadata, model_arguments={**metadata.model_arguments, "num_classes": num_classes})
