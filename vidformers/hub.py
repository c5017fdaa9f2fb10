"""Models in folders and on the Hugging Face hub: `model.safetensors`, which says what it is, and a card."""

import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from vidformers.checkpoints.metadata import Metadata, Protocol, read_metadata
from vidformers.checkpoints.read import PRETRAINED, WEIGHTS_FILES, weights_file
from vidformers.checkpoints.save import described, save_weights
from vidformers.engine.protocol import run_metadata
from vidformers.models.registry import check_size, create_model, load_fitting

CONFIG = "config.json"
CARD = "README.md"


def from_pretrained(
    source: str | os.PathLike[str], *, revision: str | None = None, **overrides: Any
) -> nn.Module:
    """The model of a file of `save_weights`, a folder of `save_pretrained`, a run of ours, or a repository of
    the hub.

    source: "x.safetensors", a folder, "output/run/checkpoints/best.pyth" (of PySlowFast too, where it carries
    a config that is understood), or "owner/name" (needs the extra `hub`; `revision` is a branch, tag or
    commit of it). `overrides` go over the arguments that the model was made with, as in `create_model`:
    num_classes=10 gives it a new classifier. The model is in eval mode, ready to predict, as those of
    transformers' and huggingface_hub's `from_pretrained` are: call `.train()` to train it further.

    Raises ValueError for weights that do not say what they are of; FileNotFoundError, ImportError, and the
    errors of `create_model` and of huggingface_hub.
    """
    path = os.fspath(source)
    if not path.endswith(WEIGHTS_FILES) and not os.path.exists(path):
        path = _hub().hf_hub_download(path, PRETRAINED, revision=revision)
    path = weights_file(path)
    metadata = read_metadata(path) if path.endswith(".safetensors") else run_metadata(path)
    if metadata is None:
        raise ValueError(
            f"{path} does not say which model it is of; use create_model(name, weights=...), or write it "
            f"anew: python tools/convert_checkpoint.py {path} new.safetensors --model NAME"
        )
    if path.endswith(".safetensors"):
        return create_model(metadata.model_name, weights=path, **overrides).eval()
    check_size(metadata.model_name, metadata.model_arguments, path)
    model = create_model(metadata.model_name, **{**metadata.model_arguments, **overrides})
    load_fitting(model, path, new_classifier="num_classes" in overrides)
    return model.eval()


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    protocol: Protocol | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    """Writes `model.safetensors`, `config.json` (the same metadata to look at) and, if there is none, a card.

    protocol and labels replace those of `model.metadata`. Raises as `save_weights`.
    """
    metadata = described(model, None)
    if protocol is not None:
        metadata = replace(metadata, protocol=protocol)
    if labels is not None:
        metadata = replace(metadata, labels=tuple(labels))
    folder = Path(folder)
    save_weights(model, folder / PRETRAINED, metadata)
    (folder / CONFIG).write_text(json.dumps(asdict(metadata), indent=1) + "\n", encoding="utf-8")
    if not (folder / CARD).exists():
        (folder / CARD).write_text(_card(metadata), encoding="utf-8")


def push_to_hub(
    model: nn.Module,
    repository: str,
    *,
    protocol: Protocol | None = None,
    labels: Sequence[str] | None = None,
    private: bool = False,
    message: str = "Upload a vidformers model",
) -> str:
    """Uploads what `save_pretrained` writes to "owner/name", which is made if need be; returns its address.

    Who may write is huggingface_hub's business (`hf auth login`, or HF_TOKEN). A card that is there stays.
    Raises as `save_pretrained`, and the errors of huggingface_hub.
    """
    api = _hub().HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, protocol=protocol, labels=labels)
        address = api.create_repo(repository, private=private, exist_ok=True)
        if api.file_exists(repository, CARD):
            (Path(folder) / CARD).unlink()
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(address)


def _hub() -> Any:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ImportError("the hub needs the package huggingface_hub: pip install 'vidformers[hub]'")
    import huggingface_hub

    return huggingface_hub


def _card(metadata: Metadata) -> str:
    lines = ["---", "library_name: vidformers", "pipeline_tag: video-classification", "---", ""]
    lines += [f"# {metadata.model_name}", "", "```python", "import vidformers as vf", ""]
    lines += ['model = vf.from_pretrained("owner/name")  # this repository', "```", ""]
    if metadata.protocol is not None:
        p = metadata.protocol
        lines += [
            f"Clips of {p.num_frames} frames, {p.sampling_rate} apart at {p.target_fps:g} a second, "
            f"{p.crop_size} pixels; tested with {p.num_temporal_views} x {p.num_spatial_crops} views.",
            "",
        ]
    if metadata.labels is not None:
        more = ", ..." if len(metadata.labels) > 10 else ""
        lines += [f"{len(metadata.labels)} classes: {', '.join(metadata.labels[:10])}{more}", ""]
    if metadata.multi_label:
        lines += ["A video has a set of classes: probabilities are `model(clip).sigmoid()`."]
    return "\n".join(lines).rstrip() + "\n"
