"""Models for other programs: an ONNX file, or a torch.export program. Neither goes through TorchScript."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from vidformers.checkpoints.metadata import KEY, metadata_of, to_json
from vidformers.layers.attention import attention_eager, replaced_attention

FORMATS = ("onnx", "torch_export")
# Largest difference of logits, relative to the largest logit, that is rounding: other kernels, other orders.
_TOLERANCE = 1e-3


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str = "onnx",
    clip_size: Sequence[int] | None = None,
    dynamic_batch: bool = True,
) -> float:
    """Writes a program that maps clips (B, C, T, H, W) to logits (B, num_classes), and runs it to compare.

    format: "onnx" for onnxruntime and others (input "clip", output "logits"), or "torch_export"
      (`torch.export.load(path).module()(clip)`).
    clip_size: (T, H, W) in frames and pixels, the only one that the program takes; None for the size that
      `create_model` made the model for.
    dynamic_batch: any number of clips at once; else one.

    The model's metadata (protocol, classes) go with it: in ONNX as the property "vidformers", of a
    torch.export program as the extra file "vidformers.json", both JSON.

    Returns the largest difference to the model's own logits on random clips, divided by the largest of those.
    Raises ValueError for an unknown format, a missing clip_size, and a program whose logits differ;
    ImportError where the packages of the format are missing.
    """
    if format not in FORMATS:
        raise ValueError(f"got format={format!r}; wanted one of {', '.join(FORMATS)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parameter = next(model.parameters())
    size = (getattr(model, "in_channels", 3), *(clip_size or own_clip_size(model)))
    random = torch.Generator().manual_seed(0)
    batches = [1, 3] if dynamic_batch else [1]
    clips = [torch.randn(n, *size, generator=random).to(parameter) for n in batches]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = [model(clip) for clip in clips]
        # The exporter takes a fused attention apart anyway, and trips over the order in memory of what its
        # parts put out.
        parts = replaced_attention(attention_eager) if format == "onnx" else nullcontext()
        with torch.no_grad(), parts:
            # A batch of 1 would be taken for one that is always 1.
            program = torch.export.export(
                model,
                (clips[-1],),
                dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
            )
    finally:
        model.train(was_training)
    metadata = metadata_of(model)
    text = "" if metadata is None else to_json(metadata)
    run = (_write_onnx if format == "onnx" else _write_program)(program, path, text)
    difference = max(
        float((run(clip).to(logits) - logits).abs().max() / logits.abs().max())
        for clip, logits in zip(clips, expected, strict=True)
    )
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"{path} gives other logits than the model: they differ by {difference:.1e} of the largest; "
            f"wanted at most {_TOLERANCE:.0e}. Try format={FORMATS[format == 'onnx']!r}, and report the model"
        )
    return difference


def own_clip_size(model: nn.Module) -> tuple[int, int, int]:
    """(T, H, W) that `create_model` made the model for; ValueError if something else did."""
    from vidformers.models.registry import model_arguments

    metadata = metadata_of(model)
    if metadata is None:
        raise ValueError(
            f"what clips this {type(model).__name__} takes is not known, as create_model did not make it; "
            "give clip_size=(frames, height, width)"
        )
    arguments = {**model_arguments(metadata.model_name), **metadata.model_arguments}
    side = arguments["image_size"]
    height, width = (side, side) if isinstance(side, int) else side
    return arguments["num_frames"], height, width


def _write_program(program: ExportedProgram, path: Path, text: str) -> Callable[[Tensor], Tensor]:
    temporary = path.with_name(path.name + ".part.pt2")
    torch.export.save(program, temporary, extra_files={f"{KEY}.json": text})
    os.replace(temporary, path)
    return torch.export.load(path).module()


def _write_onnx(program: ExportedProgram, path: Path, text: str) -> Callable[[Tensor], Tensor]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"ONNX needs the package {package}: pip install 'vidformers[export]'")
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own internals
        onnx = torch.onnx.export(
            program, dynamo=True, input_names=["clip"], output_names=["logits"], verbose=False
        )
    assert onnx is not None
    if text:
        onnx.model.metadata_props[KEY] = text
    onnx.save(path)  # weights of more than 2 GB in a file beside it
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(clip: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"clip": clip.cpu().numpy()})
        return torch.from_numpy(logits)

    return run
