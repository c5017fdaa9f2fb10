"""A time limit for reading a video, whatever its decoder is stuck in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from vidformers.data.readers.base import VideoReadError

__all__ = ["within"]

T = TypeVar("T")
# The reader's own limit, where it has one, comes first: it stops the work instead of leaving it behind.
_GRACE_SECONDS = 2.0


def within(seconds: float, read: Callable[[], T], *, path: str, backend: str) -> T:
    """What ``read()`` returns, or VideoReadError with reason ``timeout`` if it is not done in time.

    seconds: 0 = no limit. The work is done in a thread, because decoders wait in code that no Python
    exception and no signal reaches (a network file system that does not answer, decord's endless loops); all
    of them let other threads run meanwhile. A thread that is stuck is left behind, and ends with its process.
    """
    if not seconds:
        return read()
    outcome: list[tuple[T | None, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((read(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work, name=f"read {path}", daemon=True)
    thread.start()
    thread.join(seconds + _GRACE_SECONDS)
    if not outcome:
        raise VideoReadError(
            path,
            "timeout",
            f"reading hangs: no end after {seconds:g} s (DATA.READ_TIMEOUT); is its disk or network there?",
            backend,
        )
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
