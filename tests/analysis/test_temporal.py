"""temporal_dependence: what the model is shown, that nothing else changes, that each video is read once."""

import numpy as np
import pytest
import torch
from torch import nn

from vidformers.analysis.perturbations import parse_perturbation
from vidformers.analysis.temporal import (
    PerturbedVideos,
    example_clips,
    make_plan,
    temporal_dependence,
    temporal_patch_stride,
)
from vidformers.data.datasets.arrays import ArrayVideos
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.readers import VideoReadError
from vidformers.data.records import NO_LABEL, Record
from vidformers.models import create_model

T = 8


class ShownFrames(nn.Module):
    """Reads the number of the frame off each frame; remembers the clips it was given."""

    def __init__(self):
        super().__init__()
        self.clips = []

    def forward(self, clip):
        self.clips.append(clip)
        return clip.mean(dim=(1, 3, 4))[:, :4]


def numbered(num_videos=4, num_frames=T):
    """Frame t of video i has the grey value 20 * i + t; columns grow by one to tell left from right."""
    ramp = np.arange(8, dtype=np.uint8)[None, None, :, None]
    return [
        np.broadcast_to(
            np.arange(20 * i, 20 * i + num_frames, dtype=np.uint8)[:, None, None, None] + ramp,
            (num_frames, 8, 8, 3),
        ).copy()
        for i in range(num_videos)
    ]


def shown(perturbations, videos=None, **arguments):
    """Frame numbers that the model was shown, by (video, row): the plan's rows in order, view by view."""
    dataset = arguments.pop("dataset", None) or ArrayVideos(videos or numbered(), [0, 0, 1, 1])
    model = ShownFrames()
    table = temporal_dependence(
        model,
        dataset,
        perturbations=perturbations,
        tubelet=arguments.pop("tubelet", 2),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        **arguments,
    )
    left_column = torch.cat(model.clips)[:, 0, :, 0, 0] * 255
    return table, left_column.round().int().reshape(len(dataset), -1, dataset.num_frames).numpy()


def test_only_the_order_of_the_frames_changes():
    names = ["reverse", "swap_halves", "freeze[last]", "reverse@tubelet"]
    table, frames = shown(names)
    expected = [
        range(T),
        [7, 6, 5, 4, 3, 2, 1, 0],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [7] * 8,
        [6, 7, 4, 5, 2, 3, 0, 1],
    ]
    for video in range(4):
        assert (frames[video] == 20 * video + np.array(expected)).all()
    assert [p.name for p in table.perturbed] == names
    assert [p.displacement[0, 0] for p in table.perturbed][:3] == [1.0, 16 / 28, 0.0]


def test_draws_differ_by_video_view_and_draw_and_by_nothing_else():
    long = numbered(num_frames=16)
    arguments = {"num_frames": T, "num_views": 2, "use_offset": True}
    table, frames = shown(["shuffle"], dataset=ArrayVideos(long, [0, 0, 1, 1], **arguments), num_draws=3)
    rows = frames - 20 * np.arange(4)[:, None, None]  # (video, entry * view, T)
    assert (rows[:, 0] == np.arange(8)).all() and (rows[:, 1] == np.arange(8, 16)).all()
    orders = (rows[:, 2:] % 8).reshape(4, 3, 2, T)
    assert (np.sort(orders, axis=-1) == np.arange(T)).all()
    assert len({tuple(o) for o in orders.reshape(-1, T)}) == 4 * 3 * 2
    # Another batch size, another list of videos, another set of perturbations: the same draws.
    few = ArrayVideos(long[2:], [1, 1], video_ids=["2", "3"], **arguments)
    other, again = shown(["reverse", "shuffle"], dataset=few, num_draws=3, batch_size=3)
    assert (again[:, 4:] == frames[2:, 2:]).all()
    assert (other.perturbed[1].scores == table.perturbed[0].scores[2:]).all()
    # Another seed: others.
    _, reseeded = shown(
        ["shuffle"], dataset=ArrayVideos(long, [0, 0, 1, 1], **arguments), num_draws=3, seed=1
    )
    assert (reseeded[:, 2:] != frames[:, 2:]).any(axis=-1).all()


def test_speed_takes_other_frames_of_the_video():
    dataset = ArrayVideos(numbered(1, 40), [0], num_frames=T, sampling_rate=2, use_offset=True)
    _, frames = shown(["speed[2]", "speed[0.5]", "speed[4]"], dataset=dataset)
    clean, fast, slow, fastest = frames[0]
    assert clean[0] == 12 and clean[-1] == 27
    assert fast[0] == 4 and fast[-1] == 34 and (np.diff(fast) >= 4).all()
    assert slow[0] == 15 and slow[-1] == 23 and (np.diff(slow) <= 2).all()
    assert fastest[0] == 0 and fastest[-1] == 39 and (np.diff(fastest) >= 0).all()


def test_splice_shows_the_donor_from_its_share_on():
    for donor, is_donor in (
        ("same", lambda i, j: i // 2 == j // 2),
        ("other", lambda i, j: i // 2 != j // 2),
    ):
        _, frames = shown([f"splice[0.5,{donor}]"])
        for video in range(4):
            spliced = frames[video, 1]
            assert (spliced[:4] == frames[video, 0, :4]).all()
            other = spliced[4] // 20
            assert is_donor(video, other) and other != video
            assert (spliced[4:] == 20 * other + np.arange(4, 8)).all()


def test_controls_mirror_and_match_the_distance():
    model = ShownFrames()
    dataset = ArrayVideos(numbered(1), [0])
    temporal_dependence(
        model, dataset, perturbations=["hflip", "reverse", "noise[reverse]"], tubelet=2, num_draws=2
    )
    clean, flipped, reversed_, noise, noise_again = torch.cat(model.clips)
    assert (flipped == clean.flip(-1)).all()
    wanted = (reversed_ - clean).square().mean(dim=(1, 2, 3)).sqrt()
    for one in (noise, noise_again):
        torch.testing.assert_close(
            (one - clean).square().mean(dim=(1, 2, 3)).sqrt(), wanted, rtol=0.1, atol=0
        )
    assert not torch.equal(noise, noise_again)


def test_best_and_worst_frame_are_an_oracle_over_all_positions():
    class LikesLateFrames(nn.Module):
        def forward(self, clip):
            late = clip.mean(dim=(1, 2, 3, 4))
            return torch.stack([late, -late], dim=1)

    names = ["freeze[best]", "freeze[worst]", "freeze[first]", "freeze[last]"]
    table = temporal_dependence(
        LikesLateFrames(), ArrayVideos(numbered(2), [0, 1]), perturbations=names, tubelet=2
    )
    best, worst, first, last = (p.scores[:, 0] for p in table.perturbed)
    assert (best[0] == last[0]).all() and (worst[0] == first[0]).all()  # class 0: late frames speak for it
    assert (best[1] == first[1]).all() and (worst[1] == last[1]).all()


def test_a_video_is_opened_once_for_everything(monkeypatch):
    opened = []
    real = ArrayVideos.open

    def counting(self, record):
        opened.append(record.video_id)
        return real(self, record)

    monkeypatch.setattr(ArrayVideos, "open", counting)
    shown(["shuffle", "reverse", "speed[2]", "noise[shuffle]", "freeze[best]", "occlude"], num_draws=5)
    assert sorted(opened) == ["0", "1", "2", "3"]


def test_unreadable_videos_are_named_and_left_out(monkeypatch):
    real = ArrayVideos.open

    def broken(self, record):
        if record.video_id == "1":
            raise VideoReadError(record.path, "not a video", "it is a text", "memory")
        return real(self, record)

    monkeypatch.setattr(ArrayVideos, "open", broken)
    model = ShownFrames()
    table = temporal_dependence(
        model, ArrayVideos(numbered(), [0, 0, 1, 1]), perturbations=["reverse"], tubelet=2
    )
    assert table.video_ids == ["0", "2", "3"] and table.labels.tolist() == [0, 1, 1]
    assert [(path, reason) for path, reason, _ in table.failed] == [("1", "not a video")]
    # A splice cannot be made without its donor: the video is left out everywhere, and said to be.
    table = temporal_dependence(
        model, ArrayVideos(numbered(), [0, 0, 1, 1]), perturbations=["splice[0.5,same]"], tubelet=2
    )
    assert table.video_ids == ["2", "3"]
    assert [(path, reason) for path, reason, _ in table.failed] == [
        ("0", "donor unreadable"),
        ("1", "not a video"),
    ]
    monkeypatch.setattr(ArrayVideos, "open", lambda self, record: broken(self, self.records[1]))
    with pytest.raises(
        ValueError, match=r"not one of the 4 videos can be read; the first: 0: .*it is a text"
    ):
        temporal_dependence(
            model, ArrayVideos(numbered(), [0, 0, 1, 1]), perturbations=["reverse"], tubelet=2
        )


def test_real_files_in_workers_give_the_same_as_in_memory(tmp_path):
    from vidformers.data.motion import write_video
    from vidformers.data.readers import open_video
    from vidformers.data.records import Record

    rng = np.random.default_rng(0)
    records, decoded = [], []
    for i in range(3):
        path = tmp_path / f"{i}.mp4"
        write_video(path, rng.integers(0, 255, (T, 32, 32, 3), dtype=np.uint8))
        records.append(Record(str(path), i % 2, str(i)))
        with open_video(path) as video:
            decoded.append(video.get_frames(range(T)).numpy())
    files = TestVideos(
        records,
        num_frames=T,
        sampling_rate=1,
        num_views=1,
        num_crops=1,
        short_side=32,
        crop_size=32,
        target_fps=12,
    )
    model = create_model("mvit_tiny", num_classes=2, num_frames=T, image_size=32).eval()
    arguments = {"perturbations": ["shuffle", "shuffle@tubelet"], "num_draws": 2}
    table = temporal_dependence(model, files, num_workers=2, **arguments)
    memory = temporal_dependence(model, ArrayVideos(decoded, [0, 1, 0]), **arguments)
    for one, other in zip(table.perturbed, memory.perturbed, strict=True):
        assert (one.scores == other.scores).all() and (one.displacement == other.displacement).all()
    assert (table.clean == memory.clean).all()


def test_the_model_keeps_its_mode_and_is_evaluated_in_eval_mode():
    class Mode(ShownFrames):
        def forward(self, clip):
            assert not self.training
            return super().forward(clip)

    model = Mode().train()
    temporal_dependence(model, ArrayVideos(numbered(1), [0]), perturbations=["reverse"], tubelet=2)
    assert model.training


def test_what_cannot_be_done_is_refused():
    dataset = ArrayVideos(numbered(), [0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"block_shuffle.*means nothing for a clip of 8 frames"):
        temporal_dependence(ShownFrames(), dataset, perturbations=["block_shuffle[8]"], tubelet=2)
    with pytest.raises(ValueError, match="num_draws=0"):
        temporal_dependence(ShownFrames(), dataset, perturbations=["shuffle"], num_draws=0, tubelet=2)
    with pytest.raises(ValueError, match="no perturbation is named"):
        temporal_dependence(ShownFrames(), dataset, perturbations=[], tubelet=2)
    with pytest.raises(ValueError, match=r"no 3D convolution.*tubelet="):
        temporal_dependence(ShownFrames(), dataset, perturbations=["shuffle"])
    with pytest.raises(ValueError, match=r"splice.*only one"):
        temporal_dependence(
            ShownFrames(), ArrayVideos(numbered(2), [0, 1]), perturbations=["splice[0.5,same]"], tubelet=2
        )


def test_array_videos_are_checked():
    with pytest.raises(ValueError, match="got 4 videos, 1 labels"):
        ArrayVideos(numbered(), [0])
    with pytest.raises(ValueError, match=r"video 0 is float64 \(8, 8, 8, 3\); wanted uint8"):
        ArrayVideos([numbered()[0].astype(float)], [0])


def test_temporal_patch_stride_is_read_off_the_model():
    assert temporal_patch_stride(create_model("mvit_tiny")) == 2
    assert temporal_patch_stride(nn.Sequential(nn.Conv3d(3, 4, (3, 4, 4), stride=(1, 4, 4)))) == 1


def test_example_clips_are_what_the_model_is_shown():
    videos = numbered()
    dataset = ArrayVideos(videos, [0, 0, 1, 1])
    clips = example_clips(dataset, ["reverse", "freeze[best]", "hflip"], index=2, seed=0, tubelet=2)
    assert list(clips) == ["clean", "reverse", "hflip"]  # an oracle has no clip of its own
    assert (clips["clean"] == videos[2]).all()
    assert (clips["reverse"] == videos[2][::-1]).all()
    assert (clips["hflip"] == videos[2][:, :, ::-1]).all()


@pytest.mark.parametrize("num_named", [2, 4, 6])
def test_a_model_may_have_more_or_fewer_classes_than_are_named(num_named):
    groups = ["a", "b", "c", "d", "e", "f"][:num_named]
    partners = [1, 0, 5, 3, 4, 2][:num_named]
    table, _ = shown(["reverse"], class_names=groups, class_groups=groups, class_partners=partners)
    assert table.class_names == [*groups, "2", "3"][:4] if num_named < 4 else groups[:4]
    assert table.class_groups == [*groups, "unnamed", "unnamed"][:4] if num_named < 4 else groups[:4]
    assert table.class_partners == [1, 0, -1, 3 if num_named > 2 else -1]


def test_sets_of_labels_are_refused():
    dataset = ArrayVideos(numbered(), [0, 0, 1, 1])
    dataset.records[1] = Record("1", NO_LABEL, "1", labels=(0, 2))
    with pytest.raises(ValueError, match="sets of labels, such as 1; wanted one label a video"):
        shown(["reverse"], dataset=dataset)


def test_what_the_workers_read_ahead_is_bounded_in_bytes():
    videos = [np.repeat(video, 2, axis=2) for video in numbered(num_frames=40)]  # twice as wide as high
    dataset = ArrayVideos(videos, [0, 0, 1, 1], num_frames=T, num_views=2)
    names = ["shuffle", "speed[2]", "speed[0.5]", "splice[0.5,same]"]
    plan = make_plan([parse_perturbation(name) for name in names], num_draws=3, num_units=dataset.num_frames)
    perturbed = PerturbedVideos(dataset, plan, seed=0, tubelet=2)
    for index in range(4):
        item = perturbed[index]
        frames = [item.views.frames, *(donor.frames for donor in item.donors.values())]
        assert perturbed.item_bytes // 2 < sum(part.numel() for part in frames) <= perturbed.item_bytes
    with pytest.warns(UserWarning, match="1 workers read videos in place of 2"):
        shown(names, dataset=dataset, num_workers=2, max_bytes_ahead=perturbed.item_bytes)
