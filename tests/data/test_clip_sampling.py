"""Frame indices: equal to the reference's tables, and inside the video whatever is asked."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden_json import load_json
from vidformers.data import clip_sampling

SLOWFAST = {"num_frames": 16, "sampling_rate": 4, "target_fps": 30}


def test_docstring_examples() -> None:
    result = doctest.testmod(clip_sampling)
    assert result.attempted >= 8 and result.failed == 0


def test_slowfast_views_equal_every_reference_case() -> None:
    cases = load_json("slowfast_data/temporal_test.json")["cases"]
    assert len(cases) == 540
    worst_selective = 0
    for case in cases:
        arguments = {k: case[k] for k in ("num_frames", "sampling_rate", "target_fps")}
        length, fps = case["num_video_frames"], case["fps"]
        assert clip_sampling.slowfast_clip_span(length, fps, **arguments) == pytest.approx(
            case["clip_size"], rel=1e-12
        )
        views = clip_sampling.slowfast_views(
            length, fps, **arguments, num_views=case["num_views"], use_offset=case["use_offset"]
        )
        assert views.shape == (case["num_views"], case["num_frames"]) and views.dtype == np.int64
        assert views[case["view"]].tolist() == case["indices_full_decode"], case
        if case["indices_selective_emulated"] is not None:
            difference = np.abs(views[case["view"]] - case["indices_selective_emulated"]).max()
            worst_selective = max(worst_selective, int(difference))
    assert worst_selective == 1, "the documented distance from PySlowFast's selective decoding"


def test_segment_views_equal_every_reference_case() -> None:
    cases = load_json("slowfast_data/ssv2_test.json")["cases"]
    assert len(cases) == 28
    for case in cases:
        indices = clip_sampling.segment_views(case["video_len"], num_frames=case["num_frames"])
        assert indices.shape == (1, case["num_frames"]) and indices.dtype == np.int64
        assert indices[0].tolist() == case["indices"], case


@pytest.mark.parametrize(
    ("num_views", "use_offset", "starts", "ends"),
    [
        (5, True, [0, 59, 118, 177, 236], [63, 122, 181, 240, 299]),
        (10, True, [0, 26, 52, 78, 104, 130, 156, 182, 208, 234], None),
        (1, True, [118], [181]),
        (5, False, [0, 47, 94, 141, 188], None),
        (1, False, [0], [63]),
    ],
)
def test_slowfast_worked_examples(
    num_views: int, use_offset: bool, starts: list[int], ends: list[int] | None
) -> None:
    """300 frames at 30 fps, 16x4: facts/data.md 2.6, by the whole-video rule."""
    views = clip_sampling.slowfast_views(300, 30.0, **SLOWFAST, num_views=num_views, use_offset=use_offset)
    assert views[:, 0].tolist() == starts
    if ends is not None:
        assert views[:, -1].tolist() == ends
    assert (views[0] - views[0, 0]).tolist() == [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]


def test_slowfast_follows_the_frame_rate_and_repeats_the_end_of_short_videos() -> None:
    one = {"num_views": 1, "use_offset": False}
    assert clip_sampling.slowfast_views(280, 28.0, **SLOWFAST, **one)[0, [0, 1, 2, 3, -1]].tolist() == [
        0,
        3,
        7,
        11,
        58,
    ]
    assert clip_sampling.slowfast_views(40, 30.0, **SLOWFAST, **one)[0, 9:13].tolist() == [37, 39, 39, 39]


@pytest.mark.parametrize(
    ("num_views", "starts"),
    [
        (5, [0, 60, 120, 179, 239]),
        (10, [0, 27, 53, 80, 106, 133, 159, 186, 212, 239]),
        (1, [119]),
    ],
)
def test_uniform_views_are_mmaction2s(num_views: int, starts: list[int]) -> None:
    views = clip_sampling.uniform_views(300, num_frames=16, sampling_rate=4, num_views=num_views)
    assert views[:, 0].tolist() == starts
    assert (np.diff(views, axis=1) == 4).all()
    short = clip_sampling.uniform_views(40, num_frames=16, sampling_rate=4, num_views=2)
    assert short[0, 8:12].tolist() == [32, 36, 0, 4]


def test_center_clip_is_the_single_offset_view() -> None:
    view = clip_sampling.slowfast_views(301, 24.0, **SLOWFAST, num_views=1, use_offset=True)[0]
    assert np.array_equal(clip_sampling.center_clip(301, 24.0, **SLOWFAST), view)


def test_random_clip_covers_all_starts_with_fractions() -> None:
    generator = np.random.default_rng(1)
    arguments = {**SLOWFAST, "generator": generator}
    clips = np.stack([clip_sampling.random_clip(70, 30.0, **arguments) for _ in range(400)])
    assert set(clips[:, 0]) == set(range(6)), "starts lie in [0, 70 - 64)"
    assert clips.max() == 68
    # A whole start would always give the differences of 0 4 8 12 16 21 ...; fractions shift where the extra
    # frame falls.
    assert len({tuple(np.diff(clip)) for clip in clips}) > 1


def test_random_clip_depends_on_the_generator_only() -> None:
    draw = [
        clip_sampling.random_clip(300, 30.0, **SLOWFAST, generator=np.random.default_rng([3, 1, 4]))
        for _ in range(2)
    ]
    other = clip_sampling.random_clip(300, 30.0, **SLOWFAST, generator=np.random.default_rng([3, 1, 5]))
    assert np.array_equal(*draw) and not np.array_equal(draw[0], other)


def test_random_segment_clip_stays_in_its_segments_and_reaches_both_ends() -> None:
    generator = np.random.default_rng(0)
    clips = np.stack(
        [clip_sampling.random_segment_clip(45, num_frames=4, generator=generator) for _ in range(500)]
    )
    assert clips.min(0).tolist() == [0, 11, 22, 33] and clips.max(0).tolist() == [11, 22, 33, 44]
    assert clips.dtype == np.int64


def test_random_uniform_clip_reaches_first_and_last_start() -> None:
    generator = np.random.default_rng(0)
    clips = np.stack(
        [
            clip_sampling.random_uniform_clip(64, num_frames=16, sampling_rate=4, generator=generator)
            for _ in range(100)
        ]
    )
    assert set(clips[:, 0]) == {0, 1, 2, 3} and clips.max() == 63


def test_segment_views_differ_between_views() -> None:
    views = clip_sampling.segment_views(96, num_frames=8, num_views=3)
    assert (np.diff(views, axis=0) > 0).all()
    assert np.array_equal(views[1], clip_sampling.segment_views(96, num_frames=8)[0]), (
        "the middle one of 3 is the one"
    )


@settings(max_examples=300, deadline=None)
@given(
    rule=st.sampled_from(clip_sampling.RULES),
    length=st.integers(1, 2000),
    fps=st.floats(1, 240),
    num_frames=st.integers(1, 40),
    sampling_rate=st.integers(1, 16),
    num_views=st.integers(1, 12),
    use_offset=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_holds_for_every_video(
    rule: str,
    length: int,
    fps: float,
    num_frames: int,
    sampling_rate: int,
    num_views: int,
    use_offset: bool,
    seed: int,
) -> None:
    clip = {"num_frames": num_frames, "sampling_rate": sampling_rate, "target_fps": 30.0}
    views = clip_sampling.test_views(rule, length, fps, **clip, num_views=num_views, use_offset=use_offset)
    drawn = clip_sampling.train_clip(rule, length, fps, **clip, generator=np.random.default_rng(seed))
    assert views.shape == (num_views, num_frames) and drawn.shape == (num_frames,)
    assert views.dtype == drawn.dtype == np.int64
    assert min(views.min(), drawn.min()) >= 0 and max(views.max(), drawn.max()) < length
    assert (np.diff(views[:, 0]) >= 0).all(), "views in the order of time"
    span = (num_frames - 1) * sampling_rate + 1
    if rule == "slowfast":
        span = clip_sampling.slowfast_clip_span(length, fps, **clip)
    if rule != "uniform" or length >= span:
        assert (np.diff(views, axis=1) >= 0).all() and (np.diff(drawn) >= 0).all()
    if rule == "uniform":
        assert ((np.diff(views, axis=1) - sampling_rate) % length == 0).all()
        assert length < span or num_views == 1 or (views[0, 0], views[-1, -1]) == (0, length - 1)
    if rule == "slowfast" and use_offset and num_views > 1 and span <= length and num_frames > 1:
        assert views[0, 0] == 0 and views[-1, -1] >= length - 1 - num_views, "the whole video is seen"


def test_dispatchers_call_the_rule_they_name() -> None:
    arguments = {**SLOWFAST, "num_views": 3}
    views = {
        rule: clip_sampling.test_views(rule, 300, 25.0, **arguments, use_offset=True)
        for rule in clip_sampling.RULES
    }
    expected = clip_sampling.slowfast_views(300, 25.0, **arguments, use_offset=True)
    assert np.array_equal(views["slowfast"], expected)
    expected = clip_sampling.uniform_views(300, num_frames=16, sampling_rate=4, num_views=3)
    assert np.array_equal(views["uniform"], expected)
    assert np.array_equal(views["segment"], clip_sampling.segment_views(300, num_frames=16, num_views=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_video_frames": 0}, "num_video_frames=0"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"sampling_rate": 0}, "sampling_rate=0"),
        ({"num_views": 0}, "num_views=0"),
        ({"fps": 0.0}, "fps=0.0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"rule": "dense"}, "unknown temporal sampling rule 'dense'.*slowfast, uniform, segment"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments = {
        "rule": "slowfast",
        "num_video_frames": 300,
        "fps": 30.0,
        **SLOWFAST,
        "num_views": 5,
        "use_offset": True,
    }
    with pytest.raises(ValueError, match=message):
        clip_sampling.test_views(**{**arguments, **change})
    if "num_views" not in change:
        del arguments["num_views"], arguments["use_offset"]
        with pytest.raises(ValueError, match=message):
            clip_sampling.train_clip(**{**arguments, **change}, generator=np.random.default_rng(0))
