"""Stages: order, and recomputation that leaves no trace."""

import torch
from torch import nn

from vidformers.layers.stage import Stage


def stage(activation_checkpointing: bool) -> Stage:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2)) for _ in range(2)]
    return Stage(blocks, merge=nn.Conv3d(1, 2, 1), activation_checkpointing=activation_checkpointing)


def test_merge_then_blocks() -> None:
    model = stage(False).eval()
    x = torch.randn(2, 1, 3, 4, 4)
    torch.testing.assert_close(model(x), model.blocks[1](model.blocks[0](model.merge(x))))


def test_recomputation_leaves_gradients_and_running_statistics_alone() -> None:
    x = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    states, gradients, calls = [], [], []
    for checkpointing in (False, True):
        model = stage(checkpointing).train()
        model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
        model(x).square().sum().backward()
        statistics = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
        states.append(statistics)
        gradients.append([p.grad for p in model.parameters()])
        assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm3d))
    assert len(calls) == 3  # once, then twice
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert states[0]["blocks.0.1.running_mean"].abs().max() > 0
