"""Processes started by torchrun: who am I, and setting up what they talk through."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def world_size() -> int:
    """Number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that writes files and talks to people."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def process_group() -> Iterator[None]:
    """The group of all processes while the block runs: nccl on CUDA, gloo else. Nothing for one process."""
    if world_size() == 1:
        yield
        return
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
