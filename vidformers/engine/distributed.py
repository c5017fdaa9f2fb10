"""Processes started by torchrun: who am I, what the others have, and one model on all of them.

Without torchrun everything here is that of a single process, and costs nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.models import RevMViT


def world_size() -> int:
    """Number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the process that writes files and talks to people."""
    return rank() == 0


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The group of all processes while the block runs: nccl on CUDA, gloo else. Nothing for one process.

    device: DEVICE of the config. Raises ValueError where there are fewer GPUs than processes.
    """
    if world_size() == 1:
        yield
        return
    if device != "cpu" and torch.cuda.is_available():
        local_rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= num_gpus:
            raise ValueError(
                f"torchrun started process {local_rank} (from 0) on this machine, which has {num_gpus} GPUs; "
                f"use --nproc_per_node={num_gpus}, or DEVICE cpu."
            )
        torch.cuda.set_device(local_rank)
        # gloo beside nccl: lists of videos and flags are exchanged by the CPUs
        _init("cpu:gloo,cuda:nccl")
    else:
        _init("gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _init(backend: str) -> None:
    """init_process_group, but what torchrun's restarted processes (--max-restarts) tell each other lies apart
    from what those before them have left in the same store: addresses of dead processes."""
    from torch.distributed import PrefixStore, rendezvous

    store, number, count = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    torch.distributed.init_process_group(
        backend, store=PrefixStore(f"attempt_{attempt}", store), rank=number, world_size=count
    )


def gathered(value: Any) -> list[Any]:
    """The values of all processes, by rank, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def summed(*numbers: float) -> list[float]:
    """Each number summed over the processes, in double precision."""
    if world_size() == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    torch.distributed.all_reduce(total)
    return total.tolist()


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    if world_size() == 1:
        return number
    value = torch.tensor(number)
    torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
    return int(value)


def wait_for_all() -> None:
    """Return when every process has got here."""
    if world_size() > 1:
        torch.distributed.barrier()


def replicated(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as DistributedDataParallel; itself for one process.

    On CUDA batch normalisation then takes its statistics over all processes; on the CPU, where torch has no
    such layer, over those of its own.
    """
    if world_size() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(model, device_ids=[device.index])
    return nn.parallel.DistributedDataParallel(model)


def shard_(model: nn.Module, device: torch.device) -> None:
    """Split parameters, gradients and optimizer state over the processes (FSDP2), block by block.

    Raises ValueError without torchrun, and for a reversible model: its backward runs parts of blocks by
    itself, where no hook of FSDP2 would gather their parameters.
    """
    if "RANK" not in os.environ:
        raise ValueError(
            "TRAIN.SHARD is True, which splits the model over the processes of torchrun, but there is one "
            "process alone; start it as `torchrun --nproc_per_node=8 tools/run_net.py ...`, or set it False."
        )
    if isinstance(model, RevMViT):
        raise ValueError(
            f"TRAIN.SHARD cannot split {type(model).__name__}, whose backward pass is its own; set it False."
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    for module in reversed(list(model.modules())):  # inner blocks before those that hold them
        if isinstance(module, nn.ModuleList):
            for block in module:
                # A list of lists: the inner one has had its turn, and cannot be called.
                if not isinstance(block, nn.ModuleList) and any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def same_buffers_(model: nn.Module) -> None:
    """Give every process the first one's buffers: statistics of batches differ where each takes its own."""
    if world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """State dict with whole tensors on every process, whether the model is sharded or not."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
