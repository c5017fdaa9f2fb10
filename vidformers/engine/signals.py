"""Signals by which schedulers announce that they take the machine away."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vidformers.engine.distributed import largest


class StopSignals:
    """Notes SIGTERM and SIGUSR1, so that a run can stop where it can be continued."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Note the signals while the block runs, in place of what they do by themselves."""

        def note(number: int, frame: object) -> None:
            self.number = number

        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread of a program may listen to signals
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self) -> int:
        """The number of a signal that any process got, or 0: the same in all, which must all ask."""
        return largest(self.number)
