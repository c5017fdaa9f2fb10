"""What a prediction looks at, by its attention: rollout and gradient-weighted relevance, as maps of the clip.

Both follow tokens from the classifier back to the pixels through every block: attention over all tokens, in
windows, grids and dilated groups, to pooled and to reduced maps; pooled queries and their pooled skips;
merging; class tokens, messengers, or the mean of all tokens (see `token_replay`). A clip is (B, 3, T, H, W),
a map (B, T, H, W), not negative.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from vidformers.analysis.token_replay import TokenReplay, plainly_computed
from vidformers.layers.attention import attention_probabilities, replaced_attention
from vidformers.layers.clip import as_clip


def rollout(model: nn.Module, clip: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928): (B, T, H, W), which frames and places the
    information at the classifier comes from. It is the same for every class.

    Every block passes on half of a token itself and half of what it attends to, by the mean of the heads.
    Convolutions and pooling pass on the cells under their kernels. The sum of a map is 1, less the part that
    comes from learned tokens (a class token, messengers).

    Raises ValueError, naming what works instead, for a model that calculates with its tokens in a way that
    has no such reading, and for one without attention.
    """
    with as_it_predicts(model), torch.no_grad():
        matrices = _recorded(model, clip)[1]
    return _replayed(model, clip, matrices, residual="mean")[0]


def relevance(model: nn.Module, clip: Tensor, class_index: Sequence[int] | Tensor) -> Tensor:
    """Relevance for a class (Chefer et al. 2021, arXiv 2103.15679, section 3.1): (B, T, H, W).

    As rollout, with each matrix of attention A replaced by the mean over heads of (gradient of the class's
    logit by A, times A), where that is positive, and with I + A for a block. What goes along the skips alone
    is taken off, as there by leaving out the class token itself: it is the same for every input.

    class_index: a class for each clip of the batch. Raises ValueError as `rollout`.
    """
    return _of_weighted(model, clip, weighted_attention(model, clip, class_index))


def weighted_attention(model: nn.Module, clip: Tensor, class_index: Sequence[int] | Tensor) -> list[Tensor]:
    """For each attention, in the order of the calls, gradient x probability where positive: (B, heads, Nq,
    Nk) as the model's layer has it."""
    weighted: dict[int, Tensor] = {}

    def keep(index: int, probabilities: Tensor) -> None:
        # Before the backward pass frees them: gradients and probabilities of one layer at a time.
        probabilities.register_hook(
            lambda gradient: weighted.__setitem__(index, (gradient * probabilities.detach()).clamp(min=0))
        )

    with as_it_predicts(model), torch.enable_grad():
        clip = clip.detach().clone().requires_grad_()
        logits, matrices = _recorded(model, clip)
        for index, probabilities in enumerate(matrices):
            keep(index, probabilities)
        torch.autograd.grad(chosen(logits, class_index).sum(), clip)
    # What the class does not depend on, such as the patches' own queries of the last block of a ViT.
    return [weighted.get(i, torch.zeros_like(p)).detach() for i, p in enumerate(matrices)]


def _of_weighted(model: nn.Module, clip: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Relevance (B, T, H, W) by the weighted matrices of every attention."""
    with_attention, _ = _replayed(model, clip, matrices, residual="sum")
    # The skips alone. MLPs and convolutions double what passes them, everywhere alike: by `skips` in all.
    without, skips = _replayed(model, clip, [None] * len(matrices), residual="sum")
    return ((with_attention - without) / skips.view(-1, 1, 1, 1)).clamp(min=0).float()


def chosen(logits: Tensor, class_index: Sequence[int] | Tensor) -> Tensor:
    """(B,) the logit of each clip's class. Raises ValueError for a class that there is not."""
    index = torch.as_tensor(class_index, device=logits.device)
    if index.shape != logits.shape[:1] or not bool(((index >= 0) & (index < logits.shape[1])).all()):
        raise ValueError(
            f"class_index={index.tolist()} does not give each of the {len(logits)} clips a class from 0 to "
            f"{logits.shape[1] - 1}"
        )
    return logits[torch.arange(len(logits), device=logits.device), index]


@contextmanager
def as_it_predicts(model: nn.Module) -> Iterator[None]:
    """In eval mode, with constant parameters, and with ordinary autograd: reversible blocks keep nothing to
    ask gradients of."""
    training = [(module, module.training) for module in model.modules()]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        with torch.inference_mode(False), _without(model, "reversible_backward"):
            yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter in learned:
            parameter.requires_grad_(True)


@contextmanager
def _without(model: nn.Module, option: str) -> Iterator[None]:
    """The modules that have this option do without it."""
    switched = [module for module in model.modules() if getattr(module, option, False) is True]
    for module in switched:
        setattr(module, option, False)
    try:
        yield
    finally:
        for module in switched:
            setattr(module, option, True)


def _recorded(model: nn.Module, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the probabilities of every attention in the order of the calls."""
    matrices: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        matrices.append(attention_probabilities(q, k, bias, scale))
        return matrices[-1] @ v

    with replaced_attention(attend):
        logits = model(clip)
    if not matrices:
        raise ValueError(
            f"{type(model).__name__} calls no attention of vidformers.layers.attention, so there is none to "
            "follow; use Grad-CAM (method gradcam)"
        )
    return logits, matrices


def _replayed(
    model: nn.Module, clip: Tensor, matrices: Sequence[Tensor | None], *, residual: str
) -> tuple[Tensor, Tensor]:
    """Map (B, T, H, W) of the clip by `TokenReplay`; and all that arrives, learned tokens too (B,)."""
    # Sums grow like 2 ** depth, and differences of them are taken; MPS has no float64.
    exact = torch.float32 if residual == "mean" or clip.device.type == "mps" else torch.float64
    replay = TokenReplay(matrices, residual=residual)
    with ExitStack() as stack:
        stack.enter_context(as_it_predicts(model))
        # MViTv2 adds the query to what it attends to: the token itself, which the skip holds already.
        stack.enter_context(_without(model, "residual_pooling"))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(clip.device.type, enabled=False))
        shape = as_clip(clip, clip.shape[1]).shape
        ones = torch.ones(shape, dtype=exact, device=clip.device, requires_grad=True)
        with plainly_computed(), replaced_attention(replay.attend), replay:
            arrived = model(ones)[:, 0]  # the same in all classes
        (gradient,) = torch.autograd.grad(arrived.sum(), ones)
    return gradient.sum(dim=1), arrived.detach()
