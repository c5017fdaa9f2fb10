"""A function over many files in worker processes that a file may kill or hold up.

Not `concurrent.futures`: there one worker that dies (a decoder that crashes, the system out of memory) breaks
the whole pool, and a task that never ends cannot be stopped.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class WorkerFailure:
    """Why there is no result for an item.

    reason: "timeout", "crashed" (the process died) or "error" (the function raised).
    """

    reason: str
    detail: str


def run_isolated(
    function: Callable[[T], R], items: Sequence[T], *, num_workers: int, time_limit: float
) -> Generator[tuple[T, R | WorkerFailure], None, None]:
    """(item, function(item)) as they are done, in any order; every item exactly once.

    function: something that pickles, such as a module's function or a `functools.partial` of one.
    time_limit: seconds for one item, after which its process is killed.
    """
    # Workers forked from a process that runs threads (progress bar, torch) can lock up.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        # Once in the server instead of once in every worker: importing torch takes seconds.
        context.set_forkserver_preload(["vidformers.data.readers.pyav"])
    queue = list(reversed(items))
    workers = [_Worker(context, function, time_limit) for _ in range(min(num_workers, len(items)))]
    try:
        while workers:
            wait([worker.connection for worker in workers], timeout=_seconds_left(workers))
            for place, worker in enumerate(workers):
                had_item, item = worker.has_item, worker.item
                result = worker.collect()
                if had_item and not worker.has_item:
                    yield item, result
                if not worker.is_alive:
                    worker.stop()
                    # A new one only if there is something left for it.
                    workers[place] = worker = _Worker(context, function, time_limit) if queue else worker
                elif worker.is_ready and not worker.has_item:
                    if queue:
                        worker.give(queue.pop())
                    else:
                        worker.stop()
            workers = [worker for worker in workers if worker.is_alive]
    finally:
        for worker in workers:
            worker.stop()


def _seconds_left(workers: Sequence[_Worker]) -> float | None:
    deadlines = [worker.deadline for worker in workers if worker.has_item]
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


class _Worker:
    def __init__(self, context: Any, function: Callable[[Any], Any], time_limit: float) -> None:
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=_work, args=(other_end, function, time_limit), daemon=True)
        self.process.start()
        other_end.close()  # so that the worker's death closes the pipe
        self.time_limit = time_limit
        self.is_alive, self.is_ready, self.has_item = True, False, False
        self.item: Any = None
        self.deadline = 0.0

    def give(self, item: Any) -> None:
        self.item, self.has_item = item, True
        self.deadline = time.monotonic() + self.time_limit
        with contextlib.suppress(OSError):  # it died since; collect() finds out
            self.connection.send(item)

    def collect(self) -> Any:
        """The result or WorkerFailure of the item, which is then over; None while there is neither."""
        try:
            if self.connection.poll():
                message = self.connection.recv()
                if not self.is_ready:
                    self.is_ready = True
                    return None
                self.has_item = False
                return message
        except (EOFError, OSError):
            self.process.join()
            self.is_alive = False
            if not self.is_ready:
                raise RuntimeError(
                    f"a worker process ended before its first file ({_ending(self.process.exitcode)}); what "
                    "it printed stands above"
                ) from None
            self.has_item = False
            detail = f"the process that read it died ({_ending(self.process.exitcode)})"
            return WorkerFailure("crashed", detail)
        if self.has_item and time.monotonic() > self.deadline:
            self.is_alive = self.has_item = False
            return WorkerFailure("timeout", f"not done after {self.time_limit:g} s; --time-limit allows more")
        return None

    def stop(self) -> None:
        self.is_alive = False
        self.process.kill()
        self.process.join()
        self.connection.close()


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            return f"signal {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"signal {-exit_code}"
    return f"exit code {exit_code}"


def _work(connection: Connection, function: Callable[[Any], Any], time_limit: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business, which then stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send("ready")
    while True:
        try:
            item = connection.recv()
        except EOFError:  # the parent is gone
            return
        if hasattr(signal, "setitimer"):
            # Should the parent be killed while a file holds up all our threads, nobody else would end us.
            signal.setitimer(signal.ITIMER_REAL, 2 * time_limit + 10)
        try:
            result = function(item)
        except Exception as error:
            result = WorkerFailure("error", " ".join(f"{type(error).__name__}: {error}".split()))
        connection.send(result)


def _end_with_parent() -> None:
    """However the parent ends: nobody wants the result, and the next run may be at the same file already."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
