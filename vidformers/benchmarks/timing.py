"""Times of several ways to do the same, taken so that they can be compared on a machine that is not idle."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

__all__ = ["Timing", "interleaved"]


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds, in milliseconds.

    cpu_ms: processor time of all threads of this process. wall_ms: time that passed. ratio: median over the
    rounds of cpu time divided by that of the first contender in the same round.
    """

    cpu_ms: float
    wall_ms: float
    ratio: float


def interleaved(contenders: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Runs all contenders one after another, `rounds` times.

    Neighbours on a shared machine come and go. They slow down all contenders of a round alike, so ratios are
    taken within rounds.
    """
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            run()
            cpu[name].append(1000 * (time.process_time() - cpu_start))
            wall[name].append(1000 * (time.perf_counter() - wall_start))
    first = cpu[next(iter(contenders))]
    return {
        name: Timing(
            cpu_ms=median(cpu[name]),
            wall_ms=median(wall[name]),
            ratio=median(its / ours for its, ours in zip(cpu[name], first, strict=True)),
        )
        for name in contenders
    }
