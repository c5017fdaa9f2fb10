"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) on the last grid of tokens of any family."""

from typing import Any

import torch
from torch import Tensor, nn

from vidformers.analysis.attention_maps import as_it_predicts, chosen
from vidformers.layers.sizes import Grid, triple

# Tokens pass through members of lists (blocks, stages), the model's own, and these.
_BETWEEN_STAGES = {"downsample", "merge"}


def grad_cam(model: nn.Module, clip: Tensor, class_index: Any) -> Tensor:
    """Class activation map of the last tokens, (B, T', H', W'); not negative.

    relu(sum over the channels of weight x token), a channel's weight being the mean over the tokens of the
    gradient of the class's logit. The tokens are those of `forward_features` where the classifier averages
    them (before a norm that comes after the mean). Where it reads a class token or messengers, on which the
    last patches have no influence, they are the last that have: those that enter the last attention, on
    their grid.

    clip (B, 3, T, H, W); class_index: a class for each clip. Raises ValueError for a class that there is not,
    and for a model in whose forward pass no grid of tokens is found.
    """
    found: list[tuple[Tensor, Grid]] = []

    def keep(tokens: Any, grid: Any) -> None:
        is_grid = isinstance(grid, tuple) and len(grid) == 3 and all(isinstance(n, int) for n in grid)
        if isinstance(tokens, Tensor) and tokens.requires_grad:
            found.append((tokens, grid if is_grid else last_grid))

    with as_it_predicts(model):
        with torch.no_grad():
            last_grid = triple(model.forward_features(clip).shape[1:4])  # type: ignore[operator]
        hooks: list[Any] = []
        for name, module in model.named_modules():
            *path, last = name.split(".")
            if last and (not path or last.isdecimal() or last in _BETWEEN_STAGES):
                hooks.append(module.register_forward_pre_hook(lambda _, x: keep(x[0], (*x, None)[1])))
                hooks.append(module.register_forward_hook(lambda _, x, y: keep(*_with_grid(y))))
        try:
            with torch.enable_grad():
                clip = clip.detach().clone().requires_grad_()
                logits = model(clip)
                scores = chosen(logits, class_index)
        finally:
            for hook in hooks:
                hook.remove()
        candidates = [(x, grid) for x, grid in found if _on_grid(x, len(clip), grid) is not None]
        tensors = [x for x, _ in candidates]
        gradients = torch.autograd.grad(scores.sum(), tensors, allow_unused=True) if tensors else ()
    for (tokens, grid), gradient in zip(reversed(candidates), reversed(gradients), strict=True):
        slopes = None if gradient is None else _on_grid(gradient, len(clip), grid)
        if slopes is not None and slopes.any():
            features = _on_grid(tokens.detach(), len(clip), grid)
            assert features is not None
            return (slopes.mean(dim=(1, 2, 3), keepdim=True) * features).sum(dim=-1).clamp(min=0)
    raise ValueError(
        f"{type(model).__name__} has no tokens on the grid {last_grid} of its forward_features that its "
        "logits depend on; try method rollout"
    )


def _with_grid(output: Any) -> tuple[Any, Any]:
    """(tokens, grid or None) of what a module returns."""
    return (output[0], output[1]) if isinstance(output, tuple) else (output, None)


def _on_grid(x: Tensor, batch: int, grid: Grid) -> Tensor | None:
    """Patches (B, T', H', W', C) in any of the layouts that the families have; None of other tensors."""
    T, H, W = grid
    if x.ndim == 5 and x.shape[:4] == (batch, *grid):
        return x
    if x.ndim == 5 and (x.shape[0], *x.shape[2:]) == (batch, *grid):
        return x.permute(0, 2, 3, 4, 1)  # (B, C, T, H, W) -> (B, T, H, W, C)
    for rows, places in ((batch, T * H * W), (batch * T, H * W)):
        if x.ndim == 3 and x.shape[0] == rows and x.shape[1] in (places, places + 1):
            return x[:, -places:].reshape(batch, *grid, x.shape[2])  # a class token comes first
    return None
