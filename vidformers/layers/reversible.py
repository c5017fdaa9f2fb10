"""Reversible blocks (Gomez et al. 2017; Mangalam et al. 2022), whose backward pass keeps no activations."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vidformers.layers.drop_path import DropPath
from vidformers.layers.mlp import Mlp
from vidformers.layers.pooling_attention import PoolingAttention
from vidformers.layers.sizes import Grid


class AttentionBranch(nn.Module):
    """F: norm and pooling attention. forward: (B, N, dim), grid -> (B, N', dim_out), new grid."""

    def __init__(self, *, dim: int, norm_eps: float, **attention_arguments: Any):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = PoolingAttention(
            dim=dim,
            norm_eps=norm_eps,
            class_token=False,
            class_token_log_frames=False,
            residual_pooling_class_token=False,
            **attention_arguments,
        )

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        return self.attn(self.norm(x), grid)


class MlpBranch(nn.Module):
    """G: norm and MLP, never with dropout. forward: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, *, dim: int, mlp_ratio: float, norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x))


class ReversibleBlock(nn.Module):
    """Two streams (B, N, dim) -> two streams (B, N, dim).

    `f` and `g` are what is added to the streams, stochastic depth included. A sample loses both or none, as
    in PySlowFast: each draws that first, and both run with the same random numbers, those of the seed;
    without one `forward` draws for both.
    """

    def __init__(
        self,
        *,
        dim: int,
        mlp_ratio: float,
        norm_eps: float,
        drop_path_rate: float,
        **attention_arguments: Any,
    ):
        super().__init__()
        self.F = AttentionBranch(dim=dim, dim_out=dim, norm_eps=norm_eps, **attention_arguments)
        self.G = MlpBranch(dim=dim, mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        self.drop_path = DropPath(drop_path_rate)
        self.draws_in_training = drop_path_rate > 0 or attention_arguments["dropout_rate"] > 0

    def f(self, x: Tensor, grid: Grid, keep: Tensor | None = None) -> Tensor:
        keep = self._keep(x) if keep is None else keep
        branch, _ = self.F(x, grid)
        return branch if keep is None else keep * branch

    def g(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        keep = self._keep(x) if keep is None else keep
        branch = self.G(x)
        return branch if keep is None else keep * branch

    def _keep(self, x: Tensor) -> Tensor | None:
        """0 or 1 / keep rate for each sample, (B, 1, 1); None if all are kept."""
        if not self.training or self.drop_path.drop_rate == 0:
            return None
        return self.drop_path(x.new_ones(x.shape[0], 1, 1))

    def forward(self, first: Tensor, second: Tensor, grid: Grid, seed: int | None) -> tuple[Tensor, Tensor]:
        if seed is None:
            keep = self._keep(first)
            first = first + self.f(second, grid, keep)
            return first, second + self.g(first, keep)
        with seeded(seed, first.device):
            first = first + self.f(second, grid)
        with seeded(seed, first.device):
            second = second + self.g(first)
        return first, second

    def backward_step(
        self, outputs: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor], grid: Grid, seed: int | None
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], dict[nn.Parameter, Tensor | None]]:
        """Outputs and the gradients that they get -> inputs, their gradients, those of the parameters."""
        (first, second), (d_first, d_second) = outputs, gradients
        with torch.enable_grad(), seeded(seed, first.device):
            at = first.detach().requires_grad_()
            branch = self.g(at)
        d_branch, d_G = _gradients(branch, at, self.G, d_second)
        second, d_first = second - branch.detach(), d_first + d_branch
        del branch
        with torch.enable_grad(), seeded(seed, first.device):
            at = second.detach().requires_grad_()
            branch = self.f(at, grid)
        d_branch, d_F = _gradients(branch, at, self.F, d_first)
        first, d_second = first - branch.detach(), d_second + d_branch
        return (first, second), (d_first, d_second), {**d_F, **d_G}


@torch.compiler.disable
def run_reversibly(
    run: list[ReversibleBlock], first: Tensor, second: Tensor, grid: Grid, seed: int | None
) -> tuple[Tensor, Tensor]:
    """Two streams through blocks in a row; the backward pass makes inputs from outputs."""
    parameters = [p for block in run for p in block.parameters() if p.requires_grad]
    return _ReversibleRun.apply(run, grid, seed, first, second, *parameters)


class _ReversibleRun(torch.autograd.Function):
    """Blocks in a row, of which only the last outputs are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        run: list[ReversibleBlock],
        grid: Grid,
        seed: int | None,
        first: Tensor,
        second: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        device = first.device.type
        ctx.run, ctx.grid, ctx.seed, ctx.parameters = run, grid, seed, parameters
        ctx.versions = [p._version for p in parameters]
        ctx.autocast = None
        if torch.amp.is_autocast_available(device):
            ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.modes = [block.training for block in run]
        for i, block in enumerate(run):
            first, second = block(first, second, grid, seed if seed is None else seed + i)
        ctx.save_for_backward(first, second)
        return first, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_first: Tensor, d_second: Tensor) -> tuple[Any, ...]:
        now = [p for block in ctx.run for p in block.parameters() if p.requires_grad]
        same = len(now) == len(ctx.parameters) and all(
            p is old and p._version == version
            for p, old, version in zip(now, ctx.parameters, ctx.versions, strict=True)
        )
        if not same or ctx.modes != [block.training for block in ctx.run]:
            raise RuntimeError(
                "the reversible backward pass computes the blocks again, and their parameters or their "
                "training mode have changed since the forward pass; call backward() before changing them, or "
                "build the model with reversible_backward=False"
            )
        outputs, gradients = tuple(ctx.saved_tensors), (d_first, d_second)
        found: dict[Tensor, Tensor | None] = {}
        with nullcontext() if ctx.autocast is None else torch.autocast(*ctx.autocast):
            for i in reversed(range(len(ctx.run))):
                seed = ctx.seed if ctx.seed is None else ctx.seed + i
                outputs, gradients, of_block = ctx.run[i].backward_step(outputs, gradients, ctx.grid, seed)
                found.update(of_block)
        return None, None, None, *gradients, *(found[p] for p in ctx.parameters)


def _gradients(
    branch: Tensor, at: Tensor, module: nn.Module, d_branch: Tensor
) -> tuple[Tensor, dict[nn.Parameter, Tensor | None]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    d_at, *found = torch.autograd.grad(
        branch, [at, *parameters], d_branch.to(branch.dtype), allow_unused=True
    )
    return d_at, dict(zip(parameters, found, strict=True))


@torch.compiler.disable
def draw_seed() -> int:
    """One number from the CPU's generator, from which a run of blocks draws all of its own."""
    return int(torch.randint(2**62, (), device="cpu"))


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Random numbers of the CPU and of `device` come from `seed` inside; after it, they go on as before."""
    if seed is None:
        yield
        return
    on_device = device.type not in ("cpu", "meta")
    kind = device.type if on_device else "cuda"
    with torch.random.fork_rng([device] if on_device else [], device_type=kind):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every device
        if on_device:
            with torch.get_device_module(device).device(device):
                torch.get_device_module(device).manual_seed(seed)
        yield
