"""Peak memory of a piece of work, in a process that does nothing else."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

__all__ = ["in_fresh_process", "peak_bytes"]

T = TypeVar("T")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """How much memory a second `run` takes at its peak above what is held after a first one.

    On CUDA that of tensors; on the CPU that of the process, which only means something in a fresh one. What
    the first run leaves (gradients, optimizer state, caches, the libraries' own buffers) is not counted.
    """
    run()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    _give_back_freed_memory()
    held = _process_peak()
    run()
    return _process_peak() - held


def in_fresh_process(function: Callable[..., T], *arguments: object, maps_blocks: bool = False) -> T:
    """function(*arguments) in a new interpreter; these and what it gives are pickled.

    maps_blocks: there glibc maps each block of a megabyte or more by itself. Otherwise freed ones stay with
    the process as holes between the tensors that are held, and their number, not the tensors, would be
    measured as peak memory. It also makes each of them slower to get.
    """
    variable, before = "MALLOC_MMAP_THRESHOLD_", os.environ.get("MALLOC_MMAP_THRESHOLD_")
    if maps_blocks:
        os.environ.setdefault(variable, str(2**20))
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        if before is None:
            os.environ.pop(variable, None)


def _give_back_freed_memory() -> None:
    """What malloc keeps for later would hide as much of the next run; and the peak starts anew from here."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def _process_peak() -> int:
    """Largest resident size so far. Not getrusage's on Linux: it has the parent's in it, and stays."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    scale = 1 if sys.platform == "darwin" else 1024
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
