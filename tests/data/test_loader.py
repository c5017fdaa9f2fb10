"""Order of the batches over epochs, processes and workers."""

import ctypes
import multiprocessing
import time
import warnings
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from tests.conftest import write_video
from vidformers.data.datasets import clips as clips_module
from vidformers.data.datasets.clips import TestVideos, TrainClips, collate_train, collate_videos
from vidformers.data.loader import EpochBatchSampler, EpochLoader, build_loader
from vidformers.data.readers import VideoReadError, open_video
from vidformers.data.records import Record
from vidformers.data.time_limit import within


def batches(length: int = 23, *, epoch: int = 0, **arguments: Any) -> list[list[int]]:
    settings = {"batch_size": 4, "shuffle": True, "seed": 0, "drop_last": True, **arguments}
    sampler = EpochBatchSampler(length, **settings)
    sampler.set_epoch(epoch, start_batch=settings.get("start_batch", 0))
    result = list(sampler)
    assert len(result) == len(sampler)
    return result


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    first = batches()
    assert len(first) == 5
    flat = [i for batch in first for i in batch]
    assert len(set(flat)) == 20
    assert flat != sorted(flat)
    assert batches() == first
    assert batches(epoch=1) != first
    assert batches(seed=1) != first


def test_without_shuffling_every_index_once_in_order() -> None:
    assert batches(10, shuffle=False, drop_last=False) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_processes_share_each_batch_of_training() -> None:
    alone = batches(batch_size=6)
    together = [batches(batch_size=3, rank=rank, world_size=2) for rank in range(2)]
    assert len(together[0]) == len(together[1]) == 3
    for whole, *parts in zip(alone, *together, strict=True):
        assert sorted(whole) == sorted(parts[0] + parts[1])


def test_evaluation_is_split_without_padding_or_loss() -> None:
    parts = [batches(23, shuffle=False, drop_last=False, rank=rank, world_size=4) for rank in range(4)]
    flat = [i for part in parts for batch in part for i in batch]
    assert sorted(flat) == list(range(23))


def test_evaluation_keeps_neighbours_in_one_process() -> None:
    settings = {"batch_size": 1, "shuffle": False, "drop_last": False, "world_size": 3, "group": 4}
    parts = [[i for (i,) in batches(23, rank=rank, **settings)] for rank in range(3)]
    assert parts == [
        [0, 1, 2, 3, 12, 13, 14, 15],
        [4, 5, 6, 7, 16, 17, 18, 19],
        [8, 9, 10, 11, 20, 21, 22],
    ]


def test_an_epoch_can_be_resumed_within() -> None:
    whole = batches(epoch=3)
    sampler = EpochBatchSampler(23, batch_size=4, shuffle=True, seed=0, drop_last=True)
    sampler.set_epoch(3, start_batch=2)
    assert list(sampler) == whole[2:]
    assert len(sampler) == 3
    sampler.set_epoch(4)
    assert list(sampler) == batches(epoch=4)
    with pytest.raises(ValueError, match="an epoch has 5 batches"):
        sampler.set_epoch(0, start_batch=6)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at most 3"):
        batches(3)
    with pytest.raises(ValueError, match="ranks count from 0"):
        batches(rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch_size=0"):
        batches(batch_size=0)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_video(root / f"{i}.mp4", i)
    good = [Record(str(root / f"{i}.mp4"), i % 2, str(i)) for i in range(5)]
    return [*good, Record("/nowhere/a.mp4", 0, "a"), Record("/nowhere/b.mp4", 1, "b")]


def train_epochs(records: list[Record], num_workers: int, epochs: list[int]) -> list[dict[str, Any]]:
    dataset = TrainClips(
        records,
        num_frames=4,
        sampling_rate=2,
        target_fps=12,
        crop_size=32,
        jitter_scales=(32, 40),
        rand_augment="rand-m7-n4-mstd0.5-inc1",
        erase_probability=0.5,
    )
    loader = build_loader(
        dataset,
        batch_size=3,
        shuffle=True,
        num_workers=num_workers,
        pin_memory=True,
        seed=0,
        drop_last=True,
        collate_fn=collate_train,
    )
    result = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        assert len(loader) == 2
        result += list(loader)
    return result


def test_training_batches_do_not_depend_on_workers_or_earlier_epochs(records: list[Record]) -> None:
    alone = train_epochs(records, 0, [0, 1])
    before = torch.get_rng_state()
    for other in (
        train_epochs(records, 2, [0, 1]),
        [*train_epochs(records, 1, [0]), *train_epochs(records, 2, [1])],
    ):
        for a, b in zip(alone, other, strict=True):
            assert a.keys() == b.keys()
            for key in a:
                if isinstance(a[key], torch.Tensor):
                    assert torch.equal(a[key], b[key])
            assert sorted(a["failures"]) == sorted(b["failures"])
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(len(batch["failures"]) for batch in alone) >= 2
    # the same video twice, in two epochs: another clip of it
    clips = [
        {int(i): c for b in part for i, c in zip(b["index"], b["clip"], strict=True)}
        for part in (alone[:2], alone[2:])
    ]
    both = clips[0].keys() & clips[1].keys()
    assert both
    assert not any(torch.equal(clips[0][i], clips[1][i]) for i in both)


def test_test_videos_do_not_depend_on_workers(records: list[Record]) -> None:
    def views(num_workers: int) -> list:
        dataset = TestVideos(
            records,
            num_frames=4,
            sampling_rate=2,
            target_fps=12,
            num_views=2,
            num_crops=3,
            short_side=32,
            crop_size=32,
        )
        loader = build_loader(
            dataset,
            batch_size=1,
            shuffle=False,
            num_workers=num_workers,
            pin_memory=False,
            seed=0,
            drop_last=False,
            collate_fn=collate_videos,
        )
        return [video for items in loader for video in items]

    alone, workers = views(0), views(2)
    assert [v.index for v in alone] == list(range(7))
    for a, b in zip(alone, workers, strict=True):
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.view_index, b.view_index)
        assert torch.equal(a.crops, b.crops)
        assert min(a.seconds) >= 0 < max(a.seconds)
        assert (a.video_id, a.label, a.index, a.failure) == (b.video_id, b.label, b.index, b.failure)
    assert [v.failure is None for v in alone] == [True] * 5 + [False] * 2


class Threads(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return torch.get_num_threads()


def test_a_worker_uses_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loader = build_loader(
            Threads(),
            batch_size=1,
            shuffle=False,
            num_workers=1,
            pin_memory=False,
            seed=0,
            drop_last=False,
            collate_fn=list,
        )
        assert list(loader) == [[1], [1]]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- back-pressure


class Large(Dataset):
    """Items of 100 bytes by its own account; notes which are begun."""

    item_bytes = 100

    def __init__(self) -> None:
        self.begun = multiprocessing.Value("i", 0)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        with self.begun.get_lock():
            self.begun.value += 1
        return index


def large_loader(max_bytes: int, num_workers: int) -> tuple[Large, EpochLoader]:
    dataset = Large()
    loader = build_loader(
        dataset,
        batch_size=2,
        shuffle=False,
        num_workers=num_workers,
        pin_memory=False,
        seed=0,
        drop_last=False,
        collate_fn=list,
        max_bytes_ahead=max_bytes,
    )
    return dataset, loader


@pytest.mark.parametrize(
    ("max_bytes", "workers", "batches_ahead"),
    [(10_000, 2, 4), (900, 2, 4), (700, 2, 2), (400, 2, 2), (399, 1, 1), (10, 1, 1)],
)
def test_what_is_read_ahead_is_bounded_in_bytes(max_bytes: int, workers: int, batches_ahead: int) -> None:
    with warnings.catch_warnings(record=True) as said:
        dataset, loader = large_loader(max_bytes, 2)
    assert loader.num_workers == workers
    assert any("PREFETCH_MB" in str(warning.message) for warning in said) == (workers < 2)
    batches = iter(loader)
    assert next(batches) == [0, 1]
    deadline = time.monotonic() + 20
    while dataset.begun.value < 2 * (1 + batches_ahead) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # anything more would have been begun by now
    assert dataset.begun.value == 2 * (1 + batches_ahead)
    assert [index for batch in batches for index in batch] == list(range(2, 40))


def test_the_main_process_reads_nothing_ahead() -> None:
    dataset, loader = large_loader(10, 0)
    batches = iter(loader)
    next(batches)
    assert loader.num_workers == 0 and dataset.begun.value == 2


@pytest.mark.parametrize("resize_mode", ["uint8", "float"])
def test_the_bytes_that_datasets_announce_are_the_bytes_they_give(
    records: list[Record], resize_mode: str
) -> None:
    clips = TrainClips(
        records[:5], num_frames=4, sampling_rate=2, crop_size=32, jitter_scales=(32, 40), num_samples=3
    )
    assert clips.item_bytes == clips[0]["clip"].nbytes
    videos = TestVideos(
        records[:5],
        num_frames=4,
        sampling_rate=2,
        target_fps=12,
        num_views=2,
        num_crops=3,
        short_side=32,
        crop_size=32,
        resize_mode=resize_mode,
    )
    frames = videos[0].frames
    assert len(frames) == 8 and tuple(frames.shape[1:3]) == (32, 42)
    assert videos.item_bytes == frames.nbytes * 64 / 42


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_large_frames_are_resized_in_parts(
    records: list[Record], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of full size are never all there at once; which ones are together changes nothing."""

    def video(part_bytes: int) -> torch.Tensor:
        monkeypatch.setattr("vidformers.data.readers.pixels.WAITING_BYTES", part_bytes)  # PyAV's
        monkeypatch.setattr(clips_module, "PART_BYTES", part_bytes)  # the others'
        dataset = TestVideos(
            records[:1],
            num_frames=8,
            sampling_rate=2,
            target_fps=12,
            num_views=2,
            num_crops=1,
            short_side=32,
            crop_size=32,
            backend=backend,
        )
        return dataset[0].frames

    sizes: list[int] = []
    resize = clips_module.resize_frames

    def watched(frames: torch.Tensor, *arguments: Any, **settings: Any) -> torch.Tensor:
        sizes.append(len(frames))
        return resize(frames, *arguments, **settings)

    monkeypatch.setattr(clips_module, "resize_frames", watched)
    if backend == "decord":
        pytest.importorskip("decord")
    whole = video(1 << 26)
    assert len(whole) > 10 and max(sizes) == (1 if backend == "pyav" else len(whole))
    sizes.clear()
    in_parts = video(3 * 48 * 64 * 3)
    assert max(sizes) == (1 if backend == "pyav" else 3) and sum(sizes) == len(whole)
    assert torch.equal(in_parts, whole)


# ---- the time limit


def stuck_reader(path: str, *arguments: Any, **settings: Any) -> Any:
    """A decoder that hangs in code of its own, as no exception or signal can end it."""
    if "1.mp4" in path:
        ctypes.CDLL(None).sleep(ctypes.c_uint(30))
        # The thread that was left behind wakes up in the middle of another test, and must not disturb it.
        raise OSError("woke up")
    return open_video(path, *arguments, **settings)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidformers.data.time_limit._GRACE_SECONDS", 0.1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stuck_video_is_a_failure_and_not_the_end(
    records: list[Record], num_workers: int, monkeypatch: pytest.MonkeyPatch, no_grace: None
) -> None:
    monkeypatch.setattr(clips_module, "open_video", stuck_reader)
    started = time.perf_counter()
    sizes = {"num_frames": 2, "sampling_rate": 2, "crop_size": 32, "read_timeout": 0.5}
    test = TestVideos(records[:4], num_views=1, num_crops=1, short_side=32, **sizes)
    train = TrainClips(records[:4], jitter_scales=(32, 40), **sizes)
    settings = {"shuffle": False, "num_workers": num_workers, "pin_memory": False, "seed": 0}
    loader = build_loader(test, batch_size=1, drop_last=False, collate_fn=collate_videos, **settings)
    failures = [video.failure for items in loader for video in items]
    assert [failure is None for failure in failures] == [True, False, True, True]
    assert failures[1][0] == "timeout" and "DATA.READ_TIMEOUT" in failures[1][1]
    loader = build_loader(train, batch_size=2, drop_last=True, collate_fn=collate_train, **settings)
    batches = list(loader)
    assert len(batches) == 2 and all(len(batch["clip"]) == 2 for batch in batches)
    ((path, reason, _),) = {failure for batch in batches for failure in batch["failures"]}
    assert path.endswith("1.mp4") and reason == "timeout"
    assert time.perf_counter() - started < 25, "nobody waits for the stuck thread, not even the workers' end"


def test_a_slow_video_is_given_up_by_the_reader_itself(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV's reader stops between two packets, so that no thread is left behind."""
    moments = iter(range(1000))
    monkeypatch.setattr("vidformers.data.readers.decoding.time.monotonic", lambda: float(next(moments)))
    with pytest.raises(VideoReadError, match=r"not done after 30 s .DATA.READ_TIMEOUT.") as error:
        open_video(records[0].path, time_limit=30).get_frames([23])
    assert error.value.reason == "timeout"
    with pytest.raises(VideoReadError, match="not done after 5 s"):
        open_video(records[0].path, time_limit=5)


def test_within_passes_on_results_and_errors() -> None:
    def fail() -> None:
        raise KeyError("no")

    assert within(5, lambda: 3, path="a", backend="b") == within(0, lambda: 3, path="a", backend="b") == 3
    with pytest.raises(KeyError, match="no"):
        within(5, fail, path="a", backend="b")
