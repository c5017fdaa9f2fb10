"""Memory of a forward pass, measured by running it."""

from collections.abc import Sequence
from typing import Any

import torch

from vidformers.benchmarks.memory import in_fresh_process, peak_bytes
from vidformers.models.registry import create_model


def forward_memory(name: str, input_shape: Sequence[int], **overrides: Any) -> tuple[str, int]:
    """(device, bytes): the most that a forward pass of a registered model takes beside its weights and input.

    In eval mode, float32, without gradients; on the GPU if there is one, as PyTorch's allocator counts it,
    else as the operating system counts the memory of a process that does nothing else.
    """
    if torch.cuda.is_available():
        return "cuda", _forward_peak(name, tuple(input_shape), overrides, "cuda")
    return "cpu", in_fresh_process(
        _forward_peak, name, tuple(input_shape), overrides, "cpu", maps_blocks=True
    )


def _forward_peak(name: str, input_shape: tuple[int, ...], overrides: dict[str, Any], device: str) -> int:
    model = create_model(name, **overrides).eval().to(device)
    clip = torch.zeros(input_shape, device=device)
    with torch.inference_mode():
        return peak_bytes(lambda: model(clip), torch.device(device))
