"""Order of the batches over epochs, processes and workers."""

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from tests.conftest import write_video
from vidformers.data.datasets.clips import TestVideos, TrainClips, collate_train, collate_videos
from vidformers.data.loader import EpochBatchSampler, build_loader
from vidformers.data.records import Record


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
                assert torch.equal(a[key], b[key]) if key != "failures" else sorted(a[key]) == sorted(b[key])
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
