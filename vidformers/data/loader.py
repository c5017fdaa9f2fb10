"""DataLoader with an order that depends on (seed, epoch) alone, for one process or several."""

from __future__ import annotations

import functools
import io
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torch.utils.data._utils import signal_handling


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of dataset indices for one process out of `world_size`.

    shuffle: a permutation drawn from (seed, epoch); else the list's order.
    drop_last True (training): every process gets the same number of full batches, so that none waits for
    another at the end. The k-th batches of all processes together are the k-th batch of a single process with
    batch_size * world_size. drop_last False (evaluation): every index exactly once over all processes, dealt
    out in groups of `group` neighbours, so that which of them are together does not depend on the number of
    processes; the processes' shares may differ by a group.
    start_batch: batches of the coming epoch to leave out, to resume within it.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        start_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        group: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; use 1 or more")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} of world_size={world_size}; ranks count from 0")
        if drop_last and length < batch_size * world_size:
            raise ValueError(
                f"{length} videos do not fill one batch of {batch_size} clips on each of {world_size} "
                f"processes; use a batch size of at most {max(1, length // world_size)}"
            )
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.group = group
        self.set_epoch(0, start_batch=start_batch)

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch, and how many of its batches are already done."""
        if not 0 <= start_batch <= self.batches_an_epoch:
            raise ValueError(f"start_batch={start_batch}, but an epoch has {self.batches_an_epoch} batches")
        self.epoch = epoch
        self.start_batch = start_batch

    @property
    def batches_an_epoch(self) -> int:
        """Batches of this process in a whole epoch."""
        if self.drop_last:
            return self.length // (self.batch_size * self.world_size)
        return -(-self.share_of(self.rank) // self.batch_size)

    def share_of(self, rank: int) -> int:
        """How many indices of an evaluation a process gets; no process gets more than the first."""
        return int(self._is_of(rank).sum())

    def _is_of(self, rank: int) -> np.ndarray:
        """(length,) whether a place of the epoch's order is this process's."""
        return np.arange(self.length) // self.group % self.world_size == rank

    def __len__(self) -> int:
        return self.batches_an_epoch - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        own = order[self._is_of(self.rank)]
        for batch in range(self.start_batch, self.batches_an_epoch):
            yield own[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


def _as_worker_death(error: RuntimeError) -> ChildProcessError | None:
    """What to do about the death of a DataLoader's worker, if that is what an error tells."""
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    told = error.__cause__ or error  # that which names the signal
    return ChildProcessError(
        f"a process that reads videos has died ({' '.join(str(told).split())[:200]}). Killed: most often "
        "the machine's memory ran out; lower DATA_LOADER.NUM_WORKERS or DATA_LOADER.PREFETCH_MB. Bus error: "
        "/dev/shm is too small. Aborted or a segmentation fault: a decoder broke at a video; use "
        "DATA.DECODING_BACKEND pyav, and find the video with data_prep/verify.py. The same command goes on "
        "from the newest checkpoint"
    )


class _Deaths:
    """Raises the death of a worker where a batch is waited for, and nowhere else.

    torch's signal handler raises it in whatever the main process is doing: writing a checkpoint, which then
    "could not be written", or the destructor of an object, where Python drops it.
    """

    def __init__(self) -> None:
        self.raise_it: Callable[..., Any] | None = None  # torch's handler
        self.is_waiting = False
        self.has_come = False  # a signal, while nobody waited

    def take_over(self) -> None:
        """Put ours in place of torch's handler, which it sets when it first starts workers."""
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
            return
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and getattr(handler, "__module__", "") == signal_handling.__name__:
            self.raise_it = handler
            signal.signal(signal.SIGCHLD, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        assert self.raise_it
        if self.is_waiting:
            self.raise_it(number, frame)
        else:
            self.has_come = True

    @contextmanager
    def raised(self) -> Iterator[None]:
        """In the block a death is raised; first of all one that has happened since the last block."""
        self.is_waiting = True
        try:
            if self.has_come and self.raise_it:
                self.has_come = False
                self.raise_it(signal.SIGCHLD, None)
            yield
        finally:
            self.is_waiting = False


_deaths = _Deaths()
_NONE_LEFT = object()


class _Sharing(pickle.Pickler):
    """Walks through all that pickles, and moves its tensors into shared memory."""

    def persistent_id(self, value: object) -> str | None:
        if not isinstance(value, torch.Tensor):
            return None
        if value.numel():
            value.share_memory_()
        return "shared"


def _collated(collate_fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """A batch that a worker can hand over.

    torch would share its tensors in a thread of the queue, which prints an error and drops the batch: the
    main process would wait for it for ever.
    """
    batch = collate_fn(items)
    if get_worker_info() is None:
        return batch
    try:
        _Sharing(io.BytesIO()).dump(batch)
    except (RuntimeError, OSError) as error:
        raise OSError(
            f"a batch could not be put into memory shared with the main process ({error}); make /dev/shm "
            "larger, raise the limits on files (ulimit -f, ulimit -n), lower DATA_LOADER.PREFETCH_MB, or set "
            "DATA_LOADER.NUM_WORKERS 0. The same command goes on from the newest checkpoint"
        ) from error
    return batch


class EpochLoader(DataLoader):
    """DataLoader whose `set_epoch` reaches the order and, where it has one, the dataset.

    A ValueError or OSError in a worker arrives as it was raised, without the worker's traceback in its text.
    The death of a worker is a ChildProcessError (an OSError) that says what to do.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            batches = super().__iter__()
            _deaths.take_over()
            while True:
                with _deaths.raised():
                    batch = next(batches, _NONE_LEFT)
                if batch is _NONE_LEFT:
                    return
                yield batch
        except (ValueError, OSError) as error:
            _, found, message = str(error).rpartition(f"\n{type(error).__name__}: ")
            if not found:
                raise
            raise type(error)(message.strip()) from error
        except RuntimeError as error:
            raise _as_worker_death(error) or error from error

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch that the next iteration gives, from batch `start_batch` on."""
        self.batch_sampler.set_epoch(epoch, start_batch=start_batch)  # type: ignore[union-attr]
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


def workers_and_batches_ahead(num_workers: int, batch_bytes: int, max_bytes: int) -> tuple[int, int]:
    """-> (workers, batches that each has read or is reading), at most (num_workers, 2).

    A worker has one batch at hand at least, so there are fewer workers where max_bytes does not hold a batch
    for each; one is left whatever its batch takes.

    >>> workers_and_batches_ahead(4, 100, 1000), workers_and_batches_ahead(4, 100, 500)
    ((4, 2), (4, 1))
    >>> workers_and_batches_ahead(4, 100, 250), workers_and_batches_ahead(4, 100, 50)
    ((2, 1), (1, 1))
    """
    if num_workers == 0:
        return 0, 1
    workers = min(num_workers, max(1, max_bytes // batch_bytes))
    return workers, min(2, max(1, max_bytes // (workers * batch_bytes)))


def build_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    shuffle: bool,
    num_workers: int,
    pin_memory: bool,
    seed: int,
    drop_last: bool,
    collate_fn: Callable[[list[Any]], Any],
    max_bytes_ahead: int | None = None,
    start_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    group: int = 1,
) -> EpochLoader:
    """Loader over a map-style dataset; see `EpochBatchSampler` for the order. Batches do not depend on
    num_workers.

    Workers start anew each epoch: they are copies of the dataset, and `set_epoch` must reach them. Each uses
    one thread, as torch's workers do. max_bytes_ahead bounds the batches that all workers together have read
    or are reading, by the dataset's `item_bytes` (`workers_and_batches_ahead`).
    """
    batches_ahead = 2
    if max_bytes_ahead is not None:
        batch_bytes = batch_size * dataset.item_bytes  # type: ignore[attr-defined]
        asked = num_workers
        num_workers, batches_ahead = workers_and_batches_ahead(asked, batch_bytes, max_bytes_ahead)
        if num_workers < asked:
            warnings.warn(
                f"{num_workers} workers read videos in place of {asked}: a batch takes up to "
                f"{batch_bytes / 1e6:.0f} MB, and together they may hold {max_bytes_ahead / 1e6:.0f} MB "
                "(DATA_LOADER.PREFETCH_MB)",
                stacklevel=2,
            )
    sampler = EpochBatchSampler(
        len(dataset),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        start_batch=start_batch,
        rank=rank,
        world_size=world_size,
        group=group,
    )
    return EpochLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        prefetch_factor=batches_ahead if num_workers else None,
        pin_memory=pin_memory and torch.cuda.is_available(),
        collate_fn=functools.partial(_collated, collate_fn),
        # Otherwise starting workers would draw from torch's global generator.
        generator=torch.Generator().manual_seed(seed),
    )
