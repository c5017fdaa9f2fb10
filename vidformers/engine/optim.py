"""Parameter groups, optimisers and learning-rate schedules, equal to PySlowFast's."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def parameter_groups(
    model: nn.Module,
    *,
    base_weight_decay: float,
    layer_decay: float = 1.0,
    zero_decay_pos_cls: bool = False,
    zero_wd_1d_param: bool = False,
) -> list[dict[str, Any]]:
    """Trainable parameters of `model`, grouped by weight decay and learning-rate multiplier.

    Each group has "params", "names", "weight_decay" and "lr_scale". `zero_wd_1d_param` takes the decay from
    one-dimensional parameters and biases, `zero_decay_pos_cls` from those of `model.no_weight_decay()`. With
    `layer_decay` below 1 a parameter of depth i = `model.layer_id(name)` learns at
    layer_decay ** (num_layers + 1 - i) times the rate of the head.

    Raises ValueError for a layer decay with a model that cannot tell its layers.
    """
    if layer_decay < 1 and not hasattr(model, "layer_id"):
        raise ValueError(
            f"layer_decay={layer_decay} needs a model with layer_id() and num_layers, which "
            f"{type(model).__name__} lacks; use 1.0."
        )
    undecayed: set[str] = set()
    if zero_decay_pos_cls and hasattr(model, "no_weight_decay"):
        undecayed = model.no_weight_decay()  # type: ignore[operator]
    if layer_decay < 1:
        # PySlowFast looks these names up exactly here, and by substring otherwise, and has them without the
        # path of their module: with layer decay the relative positions of the blocks do decay.
        undecayed = {name for name in undecayed if "." not in name}

    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        one_dimensional = parameter.ndim <= 1 or name.endswith(".bias")
        no_decay = name in undecayed or (zero_wd_1d_param and one_dimensional)
        weight_decay = 0.0 if no_decay else base_weight_decay
        lr_scale = 1.0
        if layer_decay < 1:
            lr_scale = layer_decay ** (model.num_layers + 1 - model.layer_id(name))  # type: ignore[operator]
        group = groups.setdefault(
            (weight_decay, lr_scale),
            {"params": [], "names": [], "weight_decay": weight_decay, "lr_scale": lr_scale},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(
    groups: Sequence[dict[str, Any]],
    *,
    method: str,
    lr: float,
    momentum: float = 0.9,
    dampening: float = 0.0,
    nesterov: bool = True,
    betas: Sequence[float] = (0.9, 0.999),
    fused: bool = False,
) -> torch.optim.Optimizer:
    """An optimiser over `parameter_groups`: "sgd" (momentum, dampening, nesterov), "adam" or "adamw" (betas).

    Each group starts at `lr` times its "lr_scale". `fused` updates all parameters in one kernel. Raises
    ValueError for another method or for no parameters.
    """
    groups = [dict(group, lr=lr * group.get("lr_scale", 1.0)) for group in groups]
    if not groups:
        raise ValueError("there is nothing to train: no parameter of the model requires a gradient.")
    beta1, beta2 = betas
    if method == "sgd":
        return torch.optim.SGD(
            groups, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, fused=fused
        )
    if method == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=(beta1, beta2), eps=1e-8, fused=fused)
    if method == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=1e-8, fused=fused)
    raise ValueError(f"optimiser {method!r} is not known; use sgd, adam or adamw.")


def learning_rate(
    epoch: float,
    *,
    base_lr: float,
    policy: str = "cosine",
    max_epoch: int,
    warmup_epochs: float = 0.0,
    warmup_start_lr: float = 0.0,
    cosine_end_lr: float = 0.0,
    cosine_after_warmup: bool = False,
    steps: Sequence[float] = (),
    relative_lrs: Sequence[float] = (),
) -> float:
    """Learning rate at a fractional epoch (epoch 2.5 = halfway through the third).

    "cosine" falls from `base_lr` to `cosine_end_lr` at `max_epoch`, from the end of the warm-up or from "
    "epoch 0;
    "steps_with_relative_lrs" is `relative_lrs[i] * base_lr` from epoch `steps[i]` on. Before "
    "`warmup_epochs` the rate
    rises linearly from `warmup_start_lr` to what the policy gives at that point. Raises ValueError for
    another policy.
    """

    def by_policy(at: float) -> float:
        if policy == "cosine":
            offset = warmup_epochs if cosine_after_warmup else 0.0
            progress = (at - offset) / (max_epoch - offset)
            return cosine_end_lr + (base_lr - cosine_end_lr) * (math.cos(math.pi * progress) + 1.0) * 0.5
        if policy == "steps_with_relative_lrs":
            current = max(index for index, step in enumerate(steps) if step <= at)
            return relative_lrs[current] * base_lr
        raise ValueError(
            f"learning-rate policy {policy!r} is not known; use cosine or steps_with_relative_lrs."
        )

    if epoch < warmup_epochs:
        end = by_policy(warmup_epochs)
        return warmup_start_lr + (end - warmup_start_lr) * epoch / warmup_epochs
    return by_policy(epoch)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group to `lr` times its "lr_scale"."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
