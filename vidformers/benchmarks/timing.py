"""Times of several ways to do the same, taken so that they can be compared on a machine that is not idle."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

__all__ = ["Sample", "Timing", "interleaved", "samples", "timed", "timed_on_cuda"]


@dataclass(frozen=True)
class Sample:
    """One run, in milliseconds.

    cpu_ms: processor time of all threads of this process. wall_ms: time that passed; on a GPU between the
    first and the last of its kernels.
    """

    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds, in milliseconds.

    cpu_ms: processor time of all threads of this process. wall_ms: time that passed. ratio: median over the
    rounds of cpu time divided by that of the first contender in the same round.
    """

    cpu_ms: float
    wall_ms: float
    ratio: float


def timed(run: Callable[[], object]) -> Sample:
    """One run, with the garbage of the one before it gone."""
    gc.collect()
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    run()
    cpu = time.process_time() - cpu_start
    return Sample(cpu_ms=1000 * cpu, wall_ms=1000 * (time.perf_counter() - wall_start))


def timed_on_cuda(run: Callable[[], object]) -> Sample:
    """One run on the GPU, which gets nothing else to do meanwhile; cpu_ms is what launching took."""
    gc.collect()
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    cpu_start = time.process_time()
    start.record()
    run()
    end.record()
    cpu = time.process_time() - cpu_start
    end.synchronize()
    return Sample(cpu_ms=1000 * cpu, wall_ms=start.elapsed_time(end))


def samples(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    timer: Callable[[Callable[[], object]], Sample] = timed,
) -> dict[str, list[Sample]]:
    """Runs all contenders one after another, `rounds` times; -> the samples of each, one a round.

    Neighbours on a shared machine come and go; they slow down all contenders of a round alike.
    """
    taken: dict[str, list[Sample]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            taken[name].append(timer(run))
    return taken


def interleaved(contenders: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Medians of `samples`; ratios are taken within rounds."""
    taken = samples(contenders, rounds=rounds)
    first = taken[next(iter(contenders))]
    return {
        name: Timing(
            cpu_ms=median(sample.cpu_ms for sample in own),
            wall_ms=median(sample.wall_ms for sample in own),
            ratio=median(its.cpu_ms / ours.cpu_ms for its, ours in zip(own, first, strict=True)),
        )
        for name, own in taken.items()
    }
