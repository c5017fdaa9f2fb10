"""Weights of any project that is understood, as one file that says what it is."""

import os

from vidformers.checkpoints.load import to_our_names
from vidformers.checkpoints.metadata import OF_TRAINING, Metadata, metadata_of
from vidformers.checkpoints.read import find_state_dict, read_checkpoint
from vidformers.checkpoints.save import save_weights
from vidformers.engine.protocol import own_metadata
from vidformers.engine.published import published_config
from vidformers.engine.ready_model import ready_model


def convert_weights(
    weights: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Metadata:
    """Writes `weights` to the .safetensors file `path` in our names, with their protocol, and returns what it
    says of them.

    model: a registered name or a YAML file, for weights that do not say what they are of, as those of a run
    of ours do. The protocol is that of the YAML file, of the run, or of the file of configs/ for the name.
    labels: a file of class names; else those in `weights`. An averaged model (EMA) goes before the last one.

    Raises ValueError where the model, the protocol or the number of classes is not known or does not fit.
    """
    ready = ready_model(model, weights=weights, labels=labels)
    checkpoint = read_checkpoint(os.fspath(weights))
    said = own_metadata(checkpoint, os.fspath(weights))
    named = model is not None and model.endswith((".yaml", ".yml"))
    if not named and not published_config(ready.name) and (said is None or said.protocol is None):
        raise ValueError(
            f"how {ready.name} takes its clips is not known: no file of configs/ is of it; give the YAML "
            "file that it was trained with (--model my_run.yaml)"
        )
    source = "vidformers"
    if "vidformers" not in checkpoint:
        own_names = set(ready.model.state_dict())
        source, _ = to_our_names(find_state_dict(checkpoint), type(ready.model).__name__, own_names)
    made = metadata_of(ready.model)
    assert made is not None
    metadata = Metadata(
        model_name=ready.name,
        model_arguments={k: v for k, v in made.model_arguments.items() if k not in OF_TRAINING},
        protocol=ready.protocol,
        labels=None if ready.class_names is None else tuple(ready.class_names),
        source=(said and said.source) or source,
        multi_label=ready.multi_label,
    )
    save_weights(ready.model, path, metadata)
    return metadata
