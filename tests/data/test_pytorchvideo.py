"""Bridges to the installed pytorchvideo in both directions, with its own datasets and samplers."""

import pickle
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidformers
from tests.data.video_files import ROOT, reference_frames, write_video
from vidformers.compat import prepare_pytorchvideo
from vidformers.data import clip_sampling
from vidformers.data import pytorchvideo as bridge
from vidformers.data.datasets.clips import TestVideos as VideosDataset
from vidformers.data.datasets.clips import TrainClips
from vidformers.data.readers import open_video
from vidformers.data.records import Record
from vidformers.data.transforms import normalize_clips
from vidformers.data.views import gather_views

prepare_pytorchvideo()
theirs = pytest.importorskip("pytorchvideo.data")
from pytorchvideo.data.clip_sampling import ClipInfo, ClipSampler, make_clip_sampler  # noqa: E402
from pytorchvideo.data.labeled_video_dataset import LabeledVideoDataset  # noqa: E402
from pytorchvideo.transforms.functional import uniform_temporal_subsample  # noqa: E402


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames at 30 fps, 3.33 s, with reordered frames."""
    return write_video(
        tmp_path_factory.mktemp("ptv") / "clip.mp4",
        num_frames=100,
        fps=30,
        options={"bf": "2"},
        width=48,
        height=32,
    )


@pytest.fixture(scope="module")
def frames(video: Path) -> np.ndarray:
    return reference_frames(video)


def their_dataset(paths: list[Path], sampler: Any, **arguments: Any) -> LabeledVideoDataset:
    rows = [(str(path), {"label": number}) for number, path in enumerate(paths)]
    return LabeledVideoDataset(
        rows, sampler, video_sampler=torch.utils.data.SequentialSampler, decode_audio=False, **arguments
    )


def indices_of(clip: torch.Tensor, frames: np.ndarray) -> list[int]:
    """Which source frame each frame of a (C, T, H, W) clip is."""
    rows = clip.permute(1, 2, 3, 0).to(torch.uint8).numpy()  # (C, T, H, W) -> (T, H, W, C)
    return [int(np.flatnonzero((frames == row).all(axis=(1, 2, 3)))[0]) for row in rows]


# ---- our sampler in their dataset


def test_our_sampler_is_one_of_theirs_and_survives_pickling() -> None:
    sampler = bridge.ViewClipSampler(num_frames=16, sampling_rate=4, num_views=3)
    assert isinstance(sampler, ClipSampler)
    copy = pickle.loads(pickle.dumps(sampler))
    assert isinstance(sampler(0.0, 10.0, {}), ClipInfo)
    assert copy(0.0, 10.0, {}) == (0, Fraction(64, 30), 0, 0, False)


@pytest.mark.parametrize("use_offset", [True, False])
def test_our_sampler_in_their_dataset_gives_our_views(
    video: Path, frames: np.ndarray, use_offset: bool
) -> None:
    """Their dataset, their decoder, their temporal subsampling; our clips: within one frame of the slowfast
    rule, which cuts starts to whole frames."""
    arguments = {"num_frames": 8, "sampling_rate": 4, "target_fps": 30}
    sampler = bridge.ViewClipSampler(**arguments, num_views=3, use_offset=use_offset)
    clips = list(their_dataset([video], sampler))
    assert [clip["clip_index"] for clip in clips] == [0, 1, 2]
    expected = clip_sampling.slowfast_views(100, 30.0, **arguments, num_views=3, use_offset=use_offset)
    for clip, view in zip(clips, expected, strict=True):
        assert clip["video"].shape[1] == 32
        got = indices_of(uniform_temporal_subsample(clip["video"], 8), frames)
        assert np.abs(np.array(got) - view).max() <= 1
        assert not use_offset or np.array_equal(got, view), "these starts are whole frames"
    assert indices_of(clips[0]["video"], frames)[0] == 0


def test_our_sampler_repeats_clips_for_augmentation_and_starts_again_for_the_next_video(video: Path) -> None:
    sampler = bridge.ViewClipSampler(num_frames=8, sampling_rate=4, num_views=2, augs_per_clip=3)
    clips = list(their_dataset([video, video], sampler))
    one_video = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [(clip["clip_index"], clip["aug_index"]) for clip in clips] == one_video * 2
    assert torch.equal(clips[0]["video"], clips[2]["video"])
    assert not torch.equal(clips[0]["video"], clips[3]["video"])


def test_our_random_sampler(video: Path, frames: np.ndarray) -> None:
    def starts(seed: int) -> list[int]:
        torch.manual_seed(5)
        sampler = bridge.ViewClipSampler(num_frames=8, sampling_rate=4, seed=seed, augs_per_clip=2)
        clips = list(their_dataset([video] * 8, sampler))
        assert len(clips) == 16
        pairs = [(clips[2 * i]["video"], clips[2 * i + 1]["video"]) for i in range(8)]
        assert all(torch.equal(*pair) for pair in pairs), "copies of one clip must show the same frames"
        assert all(pair[0].shape[1] == 32 for pair in pairs)
        return [indices_of(pair[0][:, :1], frames)[0] for pair in pairs]

    assert starts(0) == starts(0) != starts(1)
    assert len(set(starts(0))) > 3 and max(starts(0)) <= 68


def test_segment_rule_is_the_whole_video(video: Path) -> None:
    sampler = bridge.ViewClipSampler(num_frames=8, sampling_rate=1, rule="segment")
    (clip,) = list(their_dataset([video], sampler))
    assert clip["video"].shape[1] == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "uniform"}, "only told seconds"),
        ({"rule": "segment", "num_views": 3}, "num_views=3"),
        ({"num_views": 0}, "num_views=0"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"target_fps": 0}, "fps=0"),
    ],
)
def test_our_sampler_names_wrong_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bridge.ViewClipSampler(**{"num_frames": 8, "sampling_rate": 4, **change})


def test_without_pytorchvideo_the_sampler_still_speaks_its_protocol() -> None:
    code = """
import sys
sys.modules["pytorchvideo"] = None
from vidformers.data.pytorchvideo import ViewClipSampler, sampler_clips
sampler = ViewClipSampler(num_frames=16, sampling_rate=4, num_views=2)
(start, end, index, aug, last), second = sampler_clips(sampler, 10.0)
assert (start, index, aug, last) == (0, 0, 0, False) and second.is_last_clip
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- their samplers in our dataset


def sampler_cases() -> list[Any]:
    duration = Fraction(32, 30)
    return [
        pytest.param(lambda: make_clip_sampler("uniform", duration), id="uniform"),
        pytest.param(
            lambda: make_clip_sampler("uniform", duration, Fraction(16, 30), True), id="overlap, back-padded"
        ),
        pytest.param(lambda: make_clip_sampler("constant_clips_per_video", duration, 5), id="constant"),
        pytest.param(
            lambda: make_clip_sampler("constant_clips_per_video", duration, 2, 3), id="constant, 3 augs"
        ),
        pytest.param(lambda: bridge.ViewClipSampler(num_frames=8, sampling_rate=4, num_views=4), id="ours"),
    ]


@pytest.mark.parametrize("make_sampler", sampler_cases())
def test_their_sampler_in_our_test_dataset_shows_the_frames_their_dataset_shows(
    make_sampler: Any, video: Path, frames: np.ndarray
) -> None:
    expected = [
        indices_of(uniform_temporal_subsample(clip["video"], 8), frames)
        for clip in their_dataset([video], make_sampler())
        if clip["aug_index"] == 0
    ]
    dataset = VideosDataset(
        [Record(str(video), 0, "clip")],
        num_frames=8,
        sampling_rate=4,
        num_views=1,
        num_crops=1,
        short_side=32,
        crop_size=32,
        temporal_sampling=bridge.SamplerRule(make_sampler()),
    )
    item = dataset[0]
    assert item.failure is None
    shown = [indices_of(item.frames[view].permute(3, 0, 1, 2), frames) for view in item.view_index]
    assert len(expected) > 1 and shown == expected


def test_their_random_sampler_in_our_training_dataset_depends_on_our_seed_only(video: Path) -> None:
    def clips(seed: int) -> list[torch.Tensor]:
        random.seed(int(torch.randint(1000, ())))  # the global state must not matter
        dataset = TrainClips(
            [Record(str(video), 0, "clip")] * 3,
            num_frames=4,
            sampling_rate=4,
            crop_size=32,
            jitter_scales=(32, 32),
            flip=False,
            seed=seed,
            temporal_sampling=bridge.SamplerRule(make_clip_sampler("random", Fraction(16, 30))),
        )
        return [dataset[index]["clip"] for index in range(3)]

    first, again, other = clips(0), clips(0), clips(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


def test_sampler_rule_puts_the_global_generator_back() -> None:
    rule = bridge.SamplerRule(make_clip_sampler("random", Fraction(16, 30)))
    random.seed(3)
    expected = random.random()
    random.seed(3)
    rule.train_clip(300, 30.0, num_frames=4, generator=np.random.default_rng(0))
    assert random.random() == expected


def test_multi_clip_sampler_gives_its_list() -> None:
    clips = bridge.sampler_clips(make_clip_sampler("random_multi", 0.5, 4), 10.0)
    assert len(clips) == 4 and len({clip.clip_start_sec for clip in clips}) == 4


def test_newer_protocol_starts_with_none() -> None:
    """pytorchvideo's development version renames the first argument and begins with None."""
    seen: list[Any] = []

    def sampler(
        last_clip_end_time: Any, video_duration: float, annotation: dict[str, Any]
    ) -> tuple[Any, ...]:
        seen.append(last_clip_end_time)
        start = last_clip_end_time or 0
        return start, start + 1, len(seen) - 1, 0, start + 2 > video_duration

    assert len(bridge.sampler_clips(sampler, 3.5)) == 3
    assert seen == [None, 1, 2]


def test_a_clip_of_64_thirtieths_has_64_frames_wherever_it_starts() -> None:
    for view in range(10):
        rule = bridge.SamplerRule(
            lambda *_, start=Fraction(236 * view, 300): (start, start + Fraction(64, 30), 0, 0, True)
        )
        indices = rule.test_views(300, 30.0, num_frames=64)[0]
        assert np.array_equal(np.diff(indices), np.ones(63)), view


def test_sampler_that_never_ends_and_clip_without_frames_are_errors() -> None:
    with pytest.raises(ValueError, match="without a last one"):
        bridge.sampler_clips(lambda last, duration, annotation: (0, 1, 0, 0, False), 10.0)
    rule = bridge.SamplerRule(
        lambda last, duration, annotation: (Fraction(1, 100), Fraction(2, 100), 0, 0, True)
    )
    with pytest.raises(ValueError, match="has none"):
        rule.test_views(100, 25.0, num_frames=4)


# ---- our reader in their dataset


@pytest.mark.parametrize("make_sampler", sampler_cases())
def test_our_reader_in_their_dataset_gives_what_their_reader_gives(make_sampler: Any, video: Path) -> None:
    plain = list(their_dataset([video], make_sampler()))
    dataset = their_dataset([video], make_sampler())
    dataset.video_path_handler = bridge.ReaderPathHandler()
    ours = list(dataset)
    assert len(ours) == len(plain) > 1
    for mine, their in zip(ours, plain, strict=True):
        assert mine.keys() == their.keys() and mine["video_name"] == "clip.mp4"
        assert mine["video"].dtype == torch.float32 and torch.equal(mine["video"], their["video"])


def test_our_reader_with_num_frames_equals_their_subsampling(video: Path) -> None:
    sampler = make_clip_sampler("constant_clips_per_video", Fraction(32, 30), 3)
    plain = [uniform_temporal_subsample(clip["video"], 8) for clip in their_dataset([video], sampler)]
    dataset = their_dataset([video], sampler)
    dataset.video_path_handler = bridge.ReaderPathHandler(num_frames=8)
    assert all(torch.equal(a["video"], b) for a, b in zip(dataset, plain, strict=True))


def test_our_reader_finds_frames_by_time_in_a_file_with_a_gap_and_a_late_start(tmp_path: Path) -> None:
    ticks = [100 + i if i < 10 else 130 + i for i in range(20)]  # at 10 fps: 0.0 to 0.9 s, then 4.0 to 4.9 s
    path = write_video(tmp_path / "gap.mkv", ticks=ticks, num_frames=20, fps=10)
    frames = reference_frames(path)
    video = bridge.ReaderVideo(open_video(path))
    clip = video.get_clip(Fraction(1, 2), Fraction(42, 10))["video"]
    assert clip is not None and indices_of(clip, frames) == [5, 6, 7, 8, 9, 10, 11]
    assert video.get_clip(1.5, 3.0) == {"video": None, "audio": None}
    clip = video.get_clip(4.5, float("inf"))["video"]
    assert clip is not None and indices_of(clip, frames) == [15, 16, 17, 18, 19]
    assert video.name == "gap.mkv" and video.duration == pytest.approx(5.0, abs=0.15)
    video.close()


def test_get_clip_gives_what_their_encoded_video_gives(video: Path) -> None:
    from pytorchvideo.data.encoded_video import EncodedVideo

    their = EncodedVideo.from_path(str(video), decode_audio=False)
    ours = bridge.ReaderVideo.from_path(video)
    assert ours.name == their.name and ours.duration == pytest.approx(float(their.duration), rel=1e-3)
    for start, end in ((0, 1), (Fraction(1, 3), 2), (1.5, 3.25), (3, 10), (2, float("inf"))):
        clip, expected = (each.get_clip(start, end)["video"] for each in (ours, their))
        assert clip is not None and torch.equal(clip, expected), (start, end)
    assert ours.get_clip(4, 5)["video"] is None
    ours.close()
    their.close()


@pytest.mark.parametrize("whose_reader", ["theirs", "ours"])
def test_their_dataset_feeds_our_model(video: Path, whose_reader: str) -> None:
    """Their dataset, sampler and transforms, torch's collate; the model sees what our test dataset shows."""
    from pytorchvideo.transforms import ApplyTransformToKey, ShortSideScale, UniformTemporalSubsample
    from torchvision.transforms import CenterCrop, Compose

    transform = ApplyTransformToKey(
        "video", Compose([UniformTemporalSubsample(4), ShortSideScale(32), CenterCrop(32)])
    )
    sampler = make_clip_sampler("constant_clips_per_video", Fraction(32, 30), 2)
    dataset = their_dataset([video, video], sampler, transform=transform)
    if whose_reader == "ours":
        dataset.video_path_handler = bridge.ReaderPathHandler()
    (batch,) = torch.utils.data.DataLoader(dataset, batch_size=4)
    assert batch["label"].tolist() == [0, 0, 1, 1] and batch["clip_index"].tolist() == [0, 1, 0, 1]
    clips = normalize_clips(batch["video"], (0.45,) * 3, (0.225,) * 3)
    model = vidformers.create_model("mvit_tiny", num_classes=2, num_frames=4, image_size=32).eval()
    with torch.inference_mode():
        logits = model(clips)
    assert logits.shape == (4, 2) and torch.equal(logits[:2], logits[2:])
    own = VideosDataset(
        [Record(str(video), 0, "clip")],
        num_frames=4,
        sampling_rate=8,
        num_views=1,
        num_crops=1,
        short_side=32,
        crop_size=32,
        temporal_sampling=bridge.SamplerRule(sampler),
        resize_mode="float",
    )
    views = gather_views(own[0], [0, 1], mean=(0.45,) * 3, std=(0.225,) * 3, device="cpu")
    assert torch.allclose(clips[:2], views, atol=1e-5)


def test_their_dataset_goes_on_after_a_video_that_ours_cannot_read(video: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("not a video")
    dataset = their_dataset([tmp_path / "bad.mp4", video], make_clip_sampler("uniform", 1))
    dataset.video_path_handler = bridge.ReaderPathHandler()
    assert {clip["video_index"] for clip in dataset} == {1}
