"""Metadata in the header of a weights file: written, read, and said where they are broken."""

import json
from pathlib import Path

import pytest
import torch

from vidformers.checkpoints import read_checkpoint
from vidformers.checkpoints.metadata import Metadata, Protocol, from_header, read_metadata, to_header

safetensors = pytest.importorskip("safetensors.torch")

METADATA = Metadata(
    model_name="mvit_tiny",
    model_arguments={"num_classes": 2, "pool_q_stride": ((1, 1, 2, 2), (3, 1, 2, 2))},
    protocol=Protocol(
        num_frames=8,
        sampling_rate=4,
        num_temporal_views=3,
        num_spatial_crops=1,
        short_side=72,
        crop_size=64,
        mean=(0.485, 0.456, 0.406),
    ),
    labels=("walking", "running"),
    source="slowfast",
    multi_label=True,
)


@pytest.mark.parametrize("metadata", [METADATA, Metadata(model_name="swin_t")])
def test_what_is_written_is_read(metadata: Metadata, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.save_file({"a": torch.ones(2)}, path, metadata=to_header(metadata))
    assert read_metadata(path) == metadata
    checkpoint = read_checkpoint(str(path))
    assert checkpoint["class_names"] == (list(metadata.labels) if metadata.labels else None)
    assert torch.equal(checkpoint["a"], torch.ones(2))


def test_files_without_metadata(tmp_path: Path) -> None:
    safetensors.save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    assert read_metadata(tmp_path / "plain.safetensors") is None
    assert read_metadata(tmp_path / "weights.pyth") is None
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_metadata(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "change", [{"protocol": {"num_frames": 8}}, {"model_name": None}, {"labels": 3}, {"multi_label": "no"}]
)
def test_broken_metadata_name_the_file(change: dict) -> None:
    given = {**json.loads(to_header(METADATA)["vidformers"]), **change}
    if given["model_name"] is None:
        del given["model_name"]
    with pytest.raises(ValueError, match=r"the metadata of x\.safetensors cannot be understood"):
        from_header({"vidformers": json.dumps(given)}, "x.safetensors")
    with pytest.raises(ValueError, match="cannot be understood"):
        from_header({"vidformers": "[1]"}, "x.safetensors")
