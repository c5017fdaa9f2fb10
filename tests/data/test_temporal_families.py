"""The families of clips with a known dependence on time: their docstrings, by enumeration and by draws."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vidformers as vf
from vidformers.data.datasets.kinetics import read_list
from vidformers.data.motion import write_video
from vidformers.data.records import read_classes
from vidformers.data.temporal_families import FAMILIES, Family, generate, make_family
from vidformers.data.temporal_families.families import is_steady
from vidformers.data.temporal_families.files import X264_OPTIONS, write_family

States = tuple[tuple[int, ...], ...]  # of a clip: S steps of n numbers
SMALL = {"train": 1, "val": 1, "test": 2}


def as_states(values: Iterable[Iterable[int]]) -> States:
    return tuple(tuple(int(v) for v in row) for row in values)


def ring(places: int, steps: int, move: int) -> list[States]:
    return [as_states([(p + move * t) % places] for t in range(steps)) for p in range(places)]


def support(family: Family, label: int) -> list[States]:
    """Every sequence of states of a class, all equally likely: written from the docstrings, not the code."""
    S = family.steps
    if family.name == "clock":
        return ring(S, S, [v for v in range(S) if math.gcd(v, S) == 1][label])
    if family.name == "confounded":
        return ring(S, S, 1 - 2 * label)
    if family.name == "appearance":
        return [s for v in range(S) if math.gcd(v, S) == 1 for s in ring(S, S, v)]
    if family.name == "speed":
        return [s for sign in (-1, 1) for s in ring(family.ring, S, sign * 2**label)]
    if family.name == "order":
        colours = [["red", "green", "blue"].index(name) for name in family.class_names[label].split("_")]
        blank = {8: 1, 9: 0, 16: 2}[S]
        each = (S - 2 * blank) // 3
        return [as_states([e] for e in [3] * blank + sorted(colours * each, key=colours.index) + [3] * blank)]
    if family.name == "position":
        third = S // 3
        at = [range(third), range(third, S - third), range(S - third, S)][label]
        return [as_states([t == event] for t in range(S)) for event in at]
    if family.name == "range":
        sequences = itertools.product((0, 1), repeat=S)
        d = family.distance
        return [
            as_states([x] for x in sequence)
            for sequence in sequences
            if all((a != b) == bool(label) for a, b in zip(sequence, sequence[d:], strict=False))
        ]
    assert family.name == "direction" and family.others == "still"
    axis, sign = label // 2, 1 - 2 * (label % 2)
    return [
        as_states(
            [(p + sign * t) % S if place == axis else p for place, p in enumerate(start)] for t in range(S)
        )
        for start in itertools.product(range(S), repeat=4)
    ]


def bayes(family: Family, seen: Callable[[States], object]) -> float:
    """Accuracy of the best observer that is told `seen` of the states: the sum of the largest joint
    probabilities."""
    best: Counter[object] = Counter()
    K = len(family.class_names)
    for label in range(K):
        sequences = support(family, label)
        for what, times in Counter(map(seen, sequences)).items():
            best[what] = max(best[what], times / len(sequences) / K)
    return sum(best.values())


ENUMERATED = [
    make_family("clock"),
    make_family("clock", num_frames=9),
    make_family("speed"),
    make_family("speed", num_frames=10),
    make_family("order"),
    make_family("order", num_frames=9),
    make_family("order", num_frames=16),
    make_family("position"),
    make_family("position", num_frames=9),
    make_family("range"),
    make_family("range", num_frames=7, distance=5),
    make_family("direction", num_frames=5, others="still"),
]
ALL = [
    *ENUMERATED,
    make_family("appearance"),
    make_family("direction"),
    make_family("confounded", rho=0.0),
    make_family("clock", num_frames=16, hold=2),
]


def name_of(family: Family) -> str:
    return f"{family.name}-{family.num_frames}-{family.hold}"


@pytest.mark.parametrize("family", ENUMERATED, ids=name_of)
def test_draws_are_the_proven_ones_and_all_of_them(family):
    for label in range(len(family.class_names)):
        wanted = support(family, label)
        assert len(set(wanted)) == len(wanted)
        rng = np.random.default_rng(label)
        number = 20 * len(wanted) if len(wanted) < 100 else 100
        drawn = Counter(as_states(family.draw_states(label, rng)) for _ in range(number))
        assert set(drawn) <= set(wanted)
        if len(wanted) < 100:  # each comes up 20 times on average; 3 to 50 fails once in 10^6 families
            assert all(3 <= drawn[states] <= 50 for states in wanted) or len(wanted) == 1


@pytest.mark.parametrize("family", ENUMERATED, ids=name_of)
def test_bayes_accuracies(family):
    S, K = family.steps, len(family.class_names)
    single = [bayes(family, lambda states, t=t: states[t]) for t in range(S)]
    bag = bayes(family, lambda states: tuple(sorted(states)))
    clip = bayes(family, lambda states: states)
    assert clip == pytest.approx(1)
    if family.name in ("clock", "speed"):
        assert single == pytest.approx([1 / K] * S)
        assert bag == pytest.approx(1 / K)
        assert [bayes(family, lambda s, t=t: s[t : t + 2]) for t in range(S - 1)] == pytest.approx(
            [1] * (S - 1)
        )
    elif family.name == "direction":
        assert single == pytest.approx([1 / 8] * S)
        assert bag == pytest.approx(1 / 2)
    elif family.name == "order":
        blank = {8: 1, 9: 0, 16: 2}[S]
        assert single == pytest.approx([1 / 6] * blank + [1 / 2] * (S - 2 * blank) + [1 / 6] * blank)
        assert bag == pytest.approx(1 / 6)
    elif family.name == "position":
        sizes = [S // 3] * (S // 3) + [S - 2 * (S // 3)] * (S - 2 * (S // 3)) + [S // 3] * (S // 3)
        assert single == pytest.approx([1 / 3 + 1 / (3 * n) for n in sizes])
        assert bag == pytest.approx(1 / 3)
    elif family.name == "range":
        d = family.distance
        rows = [bayes(family, lambda s, t=t: s[t : t + d]) for t in range(S - d + 1)]
        assert single == pytest.approx([1 / 2] * S)
        assert rows == pytest.approx([1 / 2] * len(rows))
        assert bayes(family, lambda s: (s[0], s[d])) == pytest.approx(1)
        if 2 * d == S:
            assert bag == pytest.approx(1 - math.comb(d, d // 2) / 2 ** (d + 1))


def test_the_bag_of_an_odd_range_tells_all():
    assert bayes(make_family("range", num_frames=6, distance=3), lambda s: sum(v[0] for v in s)) == 1


def test_every_bag_of_steps_that_the_range_does_not_reach_tells_nothing():
    family = make_family("range", num_frames=8, distance=3)
    for kept in itertools.chain.from_iterable(itertools.combinations(range(8), n) for n in range(1, 9)):
        reaches = any((b - a) % 3 == 0 and (b - a) // 3 % 2 for a, b in itertools.combinations(kept, 2))
        accuracy = bayes(family, lambda states, kept=kept: tuple(states[t] for t in kept))
        assert accuracy == pytest.approx(1.0 if reaches else 0.5)


def test_the_clock_visits_every_place_once():
    for num_frames in (3, 8, 16, 31):
        family = make_family("clock", num_frames=num_frames, size=32)
        for index in range(len(family.class_names)):
            states = family.draw(seed=0, index=index).states[:, 0]
            assert sorted(states) == list(range(num_frames))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_the_hue_agrees_with_the_class_as_rho_says_and_in_the_test_by_chance(rho):
    def agreement(family: Family, split: str) -> float:
        clips = [family.draw(seed=1, index=i, split=split) for i in range(2000)]
        return float(np.mean([(c.look.hue > 0.3) == (c.label == 1) for c in clips]))

    family = make_family("confounded", rho=rho)
    assert agreement(family, "train") == pytest.approx((1 + rho) / 2, abs=0.04)  # 0.0112 is a standard error
    assert agreement(family.held_out(), "test") == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("appearance", "confounded")])
def test_looks_do_not_tell_the_class(name):
    family = make_family(name, size=16)
    K = len(family.class_names)
    clips = [family.draw(seed=0, index=i) for i in range(300 * K)]
    looks = np.array(
        [[c.look.background, c.look.hue * 0 if name == "order" else c.look.hue, c.look.value] for c in clips]
    )
    means = looks.reshape(-1, K, 3).mean(axis=0)
    assert (np.abs(means - means.mean(axis=0)) < 4.5 * looks.std(axis=0) / 300**0.5 + 1e-12).all()


@pytest.mark.parametrize("family", ALL, ids=name_of)
def test_a_reversed_clip_is_a_draw_of_the_partner(family):
    K = len(family.class_names)
    assert [family.partners[p] for p in family.partners] == list(range(K))
    for index in range(2 * K):
        clip = family.draw(seed=0, index=index)
        back = family.reverse(clip)
        assert clip.label == index % K
        assert back.label == family.partners[clip.label]
        assert np.array_equal(family.render(clip)[::-1], family.render(back))
        if family.name == "direction" and family.others == "jump":
            assert direction_label(back.states) == back.label
        else:
            assert as_states(back.states) in support(family, back.label)


@pytest.mark.parametrize("family", [f for f in ENUMERATED if f.name != "direction"], ids=name_of)
def test_reversal_keeps_the_probabilities(family):
    for label, partner in enumerate(family.partners):
        assert {states[::-1] for states in support(family, label)} == set(support(family, partner))


def direction_label(states: np.ndarray) -> int:
    """The class of a clip of `direction`, others "jump", if it is a draw of one; else fails."""
    S = len(states)
    assert all(sorted(column) == list(range(S)) for column in states.T)
    for a, b in itertools.combinations(states.T, 2):
        assert not is_steady(a, b)
    changes = np.diff(states, axis=0) % S  # (S - 1, 4)
    labels = [
        2 * axis + way for axis in range(4) for way in (0, 1) if (changes[:, axis] == (1, S - 1)[way]).all()
    ]
    assert len(labels) == 1
    return labels[0]


@pytest.mark.parametrize("num_frames", [5, 8])
def test_directions_differ_in_the_order_of_their_frames_alone(num_frames):
    # Sorting the frames of any clip by another thing's place, forwards or backwards from any start, gives a
    # draw of that thing's class; the way back is the same, so each bag is equally likely in every class.
    family = make_family("direction", num_frames=num_frames)
    for index in range(8):
        states = family.draw(seed=0, index=index).states
        assert direction_label(states) == index
        for axis, way, start in itertools.product(range(4), (0, 1), range(num_frames)):
            order = np.roll(np.argsort(states[:, axis])[:: 1 - 2 * way], start)
            assert direction_label(states[order]) == 2 * axis + way


def test_any_place_of_each_thing_is_as_likely_at_every_step():
    family = make_family("direction")
    states = np.stack([family.draw(seed=0, index=3 + 8 * i).states for i in range(800)])
    counts = np.stack(
        [(states == place).sum(axis=0) for place in range(8)]
    )  # 100 expected, 9.4 standard error
    assert (np.abs(counts - 100) < 47).all()


def test_things_move_as_the_names_say():
    def centre(picture: np.ndarray) -> tuple[float, float]:
        ys, xs = np.nonzero(picture > picture.max() / 2)
        return xs.mean(), ys.mean()

    family = make_family("direction", size=64)
    frame = {place: family.coverage(np.array(place)) for place in itertools.product((0, 2, 3), repeat=4)}
    base = frame[2, 2, 0, 0]
    assert centre(frame[3, 2, 0, 0][:32])[0] > centre(base[:32])[0] + 5
    assert centre(frame[2, 3, 0, 0][:32])[1] > centre(base[:32])[1] + 2
    # From the right (place 0) a dial that goes clockwise comes to the bottom (place 2 of 8): rows count down.
    assert centre(frame[2, 2, 2, 0][32:, :32])[1] > centre(base[32:, :32])[1] + 5
    # The bright ring at the centre at phase 0 is further out at 2/8, and further at 3/8.
    across = [frame[2, 2, 0, phase][48, 48:56] for phase in (0, 2, 3)]
    assert [int(row.argmax()) for row in across] == sorted({int(row.argmax()) for row in across})
    clock = make_family("clock")
    places = [centre(clock.coverage(np.array([p]))) for p in (0, 2)]
    assert places[0][0] > places[1][0] and places[0][1] < places[1][1]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_frames_are_functions_of_seed_split_and_index(name):
    family = make_family(name, num_frames=8)
    frames, label = family.clip(seed=1, index=5, split="val")
    again, _ = family.clip(seed=1, index=5, split="val")
    assert frames.shape == (8, 32, 32, 3) and frames.dtype == np.uint8
    assert label == 5 % len(family.class_names)
    assert np.array_equal(frames, again)
    for other in (
        {"seed": 2, "index": 5},
        {"seed": 1, "index": 5 + 24},
        {"seed": 1, "index": 5, "split": "train"},
    ):
        assert not np.array_equal(family.clip(**{"split": "val", **other})[0], frames)

    made = generate(name, num_videos=13, num_frames=8, size=20, seed=1, split="val")
    assert len(made.frames) == 13 and made.frames[5].shape == (8, 20, 20, 3)
    assert made.labels.tolist() == [i % len(made.class_names) for i in range(13)]
    assert (made.class_names, made.class_partners) == (family.class_names, family.partners)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_steps_are_held(name):
    family = make_family(name, num_frames=24, hold=3)
    frames, _ = family.clip(seed=0, index=1)
    short, _ = make_family(name, num_frames=8).clip(seed=0, index=1)
    assert np.array_equal(frames, short.repeat(3, axis=0))


@pytest.mark.parametrize("name", ["clock", "direction", "speed", "range"])
def test_states_can_be_told_apart(name):
    # The smallest difference that a change of one number makes, out of 1 a pixel.
    family = make_family(name, num_frames=16 if name != "speed" else 15, size=32)
    clip = family.draw(seed=0, index=0)
    pictures = np.stack([family.coverage(state) for state in np.unique(clip.states, axis=0)])
    apart = np.abs(pictures[:, None] - pictures[None]).sum(axis=(2, 3)) + 100 * np.eye(len(pictures))
    assert apart.min() > 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("clock", {"num_frames": 2}, "fewer than two step sizes coprime.*try num_frames=3"),
        ("clock", {"num_frames": 4, "hold": 2}, "try num_frames=6"),
        ("clock", {"num_frames": 10, "hold": 4}, "not a whole number of steps.*try num_frames=8"),
        ("clock", {"num_frames": 64, "size": 32}, "cannot be told apart in 32 pixels; try size=64"),
        ("clock", {"hold": 0}, "hold=0"),
        ("clock", {"size": 8}, "16 pixels or more"),
        ("range", {"distance": 8}, "wanted 1 to 7; try distance=4"),
        ("range", {"distance": 0}, "wanted 1 to 7"),
        ("range", {"num_frames": 8, "hold": 2}, "distance=4 does not fit into 4 steps"),
        ("order", {"num_frames": 4}, "try num_frames=3 or num_frames=5"),
        ("order", {"num_frames": 2}, "three events"),
        ("position", {"num_frames": 2}, "early, middle and late"),
        ("speed", {"num_frames": 16}, "try num_frames=15 or 17"),
        ("speed", {"num_frames": 3}, "try num_frames=6 or 7"),
        ("direction", {"num_frames": 4}, "wanted 5 or more"),
        ("direction", {"num_frames": 2, "others": "still"}, "wanted 3 or more"),
        ("direction", {"num_frames": 32, "size": 32}, "try size=64"),
        ("direction", {"others": "gone"}, "'jump' or 'still'"),
        ("confounded", {"rho": 1.5}, "0 to 1"),
        ("clock", {"rho": 0.5}, "clock has no setting 'rho'"),
        ("clocks", {}, "wanted one of appearance"),
    ],
)
def test_impossible_settings_say_what_would_do(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_family(name, **settings)


@pytest.fixture(scope="module")
def clock_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    family = make_family("clock", num_frames=16, size=64, hold=2)
    folder = tmp_path_factory.mktemp("families") / "clock"
    return family, write_family(folder, family, videos_per_class=SMALL, progress=False)


def test_files_are_a_list_dataset_with_groups_and_partners(clock_files):
    family, folder = clock_files
    for split, number in SMALL.items():
        records = read_list(str(folder / f"{split}.csv"), path_prefix=str(folder))
        assert [record.label for record in records] == list(range(4)) * number
        assert all(Path(record.path).is_file() for record in records)
    classes = read_classes(str(folder))
    assert classes is not None
    assert (classes.names, classes.partners) == (family.class_names, family.partners)
    assert classes.groups == ["clock"] * 4
    entries = json.loads((folder / "classes.json").read_text())["classes"]
    assert entries[0] == {"label": 0, "name": "step_1", "group": "clock", "reversed": "step_7"}
    settings = json.loads((folder / "family.json").read_text())
    assert (
        make_family(settings["family"], **{k: settings[k] for k in ("num_frames", "size", "hold")}) == family
    )


def test_the_clock_survives_the_encoding(clock_files):
    family, folder = clock_files
    pictures = np.stack([family.coverage(np.array([place])) for place in range(8)])
    for index in range(8):
        drawn = family.draw(seed=0, index=index)
        video = vf.open_video(folder / f"videos/test/{index:05d}.mp4")
        assert (video.num_frames, video.fps) == (16, 30)
        frames = video.get_frames(np.arange(16)).numpy().astype(np.float32)
        assert np.abs(frames - family.render(drawn)).mean() < 4
        bright = frames.max(axis=-1)
        bright = bright - bright.mean(axis=(1, 2), keepdims=True)
        read = np.einsum("thw,phw->tp", bright, pictures).argmax(axis=1)
        assert read.tolist() == drawn.states[:, 0].repeat(2).tolist()


def test_a_decoded_frame_shows_its_state_and_nothing_of_its_neighbours(tmp_path):
    # Two clips of one look, the same states in other orders: equal states decode to equal pixels.
    family = make_family("clock", size=64)
    clip = family.draw(seed=0, index=0)
    order = np.random.default_rng(0).permutation(8)
    decoded = []
    for name, states in (("a", clip.states), ("b", clip.states[order])):
        path = tmp_path / f"{name}.mp4"
        write_video(path, family.render(replace(clip, states=states)), x264_options=X264_OPTIONS)
        decoded.append(vf.open_video(path).get_frames(np.arange(8)).numpy())
    assert np.array_equal(decoded[0][order], decoded[1])


def test_test_files_of_the_confounded_family_are_not(tmp_path):
    family = make_family("confounded", rho=1.0)
    folder = write_family(
        tmp_path / "h", family, videos_per_class={"train": 4, "val": 1, "test": 8}, progress=False
    )

    def agreement(split: str) -> list[bool]:
        agrees = []
        for record in read_list(str(folder / f"{split}.csv"), path_prefix=str(folder)):
            red, _, blue = vf.open_video(record.path).get_frames(np.array([0])).numpy().max(axis=(0, 1, 2))
            agrees.append(bool(blue > red) == bool(record.label))
        return agrees

    assert all(agreement("train"))
    assert 0 < sum(agreement("test")) < 16


def test_writing_says_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"size=33 is odd.*try size=34"):
        write_family(tmp_path / "a", make_family("clock", size=33), videos_per_class=SMALL, progress=False)
    with pytest.raises(ValueError, match=">= 1 for each of train, val, test"):
        write_family(tmp_path / "a", make_family("clock"), videos_per_class={"train": 2}, progress=False)
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError, match="b exists; wanted a new folder"):
        write_family(tmp_path / "b", make_family("clock"), videos_per_class=SMALL, progress=False)

    # What an interrupted run leaves is not taken for a dataset, and does not hinder the next run.
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vidformers.data.temporal_families.files.write_video", interrupted)
        write_family(tmp_path / "c", make_family("range"), videos_per_class=SMALL, progress=False)
    assert not (tmp_path / "c").exists()
    write_family(tmp_path / "c", make_family("range"), videos_per_class=SMALL, progress=False)
    assert len(list((tmp_path / "c").glob("videos/*/*.mp4"))) == 8
    assert not (tmp_path / "c.partial").exists()
