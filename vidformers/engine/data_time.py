"""How much of a run is spent waiting for videos, and what a clip costs before it reaches the model."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
_NONE_LEFT = object()


@dataclass
class DataTime:
    """Where the time goes between the disk and the model, from its making on. Seconds."""

    started: float = field(default_factory=time.perf_counter)
    waiting: float = 0.0
    decoding: float = 0.0
    transforming: float = 0.0
    num_clips: int = 0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, while the time that passes until each is there is taken."""
        iterator = iter(batches)
        while True:
            mark = time.perf_counter()
            batch = next(iterator, _NONE_LEFT)
            self.waiting += time.perf_counter() - mark
            if batch is _NONE_LEFT:
                return
            yield batch  # type: ignore[misc]

    def add(self, seconds: tuple[float, float], num_clips: int) -> None:
        """Seconds of (decoding, transforms) that `num_clips` clips took, in whatever process."""
        self.decoding += seconds[0]
        self.transforming += seconds[1]
        self.num_clips += num_clips

    def values(self) -> dict[str, float]:
        """For log.jsonl: the share of the time spent waiting, and what a clip takes of a worker's time."""
        clips = max(self.num_clips, 1)
        return {
            "waiting_for_data": self.waiting / max(time.perf_counter() - self.started, 1e-9),
            "decode_seconds_per_clip": self.decoding / clips,
            "transform_seconds_per_clip": self.transforming / clips,
        }
