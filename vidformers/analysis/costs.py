"""What a model costs by stage and by layer, and the memory of a training step; nothing is computed."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vidformers.analysis.complexity import count_by_module
from vidformers.models.registry import create_model
from vidformers.models.video_classifier import VideoClassifier

_BYTES = 4  # of a float32


@dataclass(frozen=True)
class StageCost:
    """name: "stem", "stage 1", ..., "head"; output: (T', H', W', C) of the last block, () of stem and head.

    parameters; flops: multiply-adds of one clip; activations: elements that convolutions, Linears and matrix
    products put out for one clip (fvcore's definition).
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    flops: int
    activations: int


def stage_costs(model: VideoClassifier, input_shape: Sequence[int]) -> list[StageCost]:
    """The costs of a model on the meta device, for clips of `input_shape`; they add up to the whole.

    A stage is one of `feature_info`, with the merging in front of it as `layer_id` has it.
    """
    # The last layer id of the stem, of each stage, and of what follows.
    ends = [0, *(model.layer_id(f"{stage['module']}.norm.weight") for stage in model.feature_info)]
    ends.append(model.layer_id("head.projection.weight"))

    def stage_of(name: str) -> int:
        layer = model.layer_id(name)
        return next(i for i, end in enumerate(ends) if layer <= end)

    parameters = [0] * len(ends)
    for name, parameter in model.named_parameters():
        parameters[stage_of(name)] += parameter.numel()
    flops, activations = (
        _by_stage(counts, stage_of, len(ends)) for counts in count_by_module(model, input_shape)
    )
    size = input_shape[2:]
    outputs: list[tuple[int, ...]] = [
        (*(-(-n // step) for n, step in zip(size, stage["reduction"], strict=True)), stage["num_chs"])
        for stage in model.feature_info
    ]
    names = ["stem", *(f"stage {i + 1}" for i in range(len(outputs))), "head"]
    rows = zip(names, [(), *outputs, ()], parameters, flops, activations, strict=True)
    return [StageCost(*row) for row in rows]


def _by_stage(counts: dict[str, int], stage_of: Callable[[str], int], num_stages: int) -> list[int]:
    """Sums over the stages of what each module counts beyond its children; "" is the model."""
    own = Counter(counts)
    for name, count in counts.items():
        if name:
            own[name.rpartition(".")[0]] -= count
    sums = [0] * num_stages
    for name, count in own.items():
        if count:
            sums[stage_of(f"{name}.weight") if name else -1] += count
    return sums


class _Counted:
    """What fvcore's table asks of fvcore's analyses, which cannot run on the meta device."""

    def __init__(self, model: nn.Module, counts: dict[str, int]):
        self._model = model
        self._counts = counts

    def by_module(self) -> dict[str, int]:
        return {name: self._counts.get(name, 0) for name, _ in self._model.named_modules()}

    def uncalled_modules(self) -> set[str]:
        return set()

    def unsupported_ops_warnings(self, enabled: bool) -> None: ...

    def uncalled_modules_warnings(self, enabled: bool) -> None: ...

    def tracer_warnings(self, mode: str) -> None: ...


def layer_table(model: nn.Module, input_shape: Sequence[int], *, depth: int) -> str:
    """fvcore's table of parameters, multiply-adds and activations, `depth` levels of modules deep; of a model
    on the meta device."""
    from fvcore.nn import flop_count_table

    flops, activations = (_Counted(model, counts) for counts in count_by_module(model, input_shape))
    return flop_count_table(flops, depth, activations, show_param_shapes=False)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step in float32: parameters, their gradients, AdamW's two moments, and what
    autograd keeps of the forward pass for the backward pass."""

    parameters: int
    gradients: int
    optimizer: int
    kept_for_backward: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.kept_for_backward


def training_memory(name: str, input_shape: Sequence[int], **overrides: Any) -> TrainingMemory:
    """An estimate for a registered model: a forward pass in training mode, of tensors without values, in
    which every tensor that autograd keeps is counted once.

    What the kernels need besides, the gradients of activations and the memory that an allocator holds are not
    counted.
    """
    kept: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # and alive, so that no other gets its place
        return tensor

    with torch.device("meta"):
        model = create_model(name, **overrides).train()
    # Not on the meta device: there attention is not fused, and would keep what it does not keep elsewhere.
    with FakeTensorMode(allow_non_fake_inputs=True):  # what layers keep between calls has values
        values = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype).requires_grad_(tensor.requires_grad)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        own = {tensor.untyped_storage()._cdata for tensor in values.values()}
        clip = torch.zeros(tuple(input_shape))
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            logits = torch.func.functional_call(model, values, (clip,))
        activations = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
        del logits
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(math.prod(p.shape) for p in trained) * _BYTES
    parameters = sum(math.prod(p.shape) for p in model.parameters()) * _BYTES
    return TrainingMemory(parameters, size, 2 * size, activations)
