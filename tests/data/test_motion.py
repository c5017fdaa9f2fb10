"""The generated dataset: its promises, checked on the parameters, and the files it writes."""

import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from vidformers.data import motion
from vidformers.data.motion import CLASSES, HEIGHT, NUM_FRAMES, WIDTH, MotionClip, Velocity, VelocityLaw

TEMPORAL = [i for i, c in enumerate(CLASSES) if c.group != "appearance"]
SMALL = {"train": 1, "val": 1, "test": 1}


def clips_of(label: int, number: int, seed: int = 0) -> list[MotionClip]:
    return [motion.clip_parameters(seed, "train", label + k * len(CLASSES)) for k in range(number)]


def density(law: VelocityLaw, v: Velocity) -> float:
    """Density of a velocity under a law, in its own coordinates (heading, speed, cycle)."""
    value = 1.0
    speed = math.hypot(v.x, v.y)
    if law.headings:
        turns = math.atan2(v.y, v.x) / (2 * math.pi)
        offsets = [abs((turns - h + 0.5) % 1 - 0.5) for h in law.headings]
        if min(offsets) > law.heading_spread or not law.speed[0] <= speed <= law.speed[1]:
            return 0.0
        value /= len(law.headings) * 2 * law.heading_spread * (law.speed[1] - law.speed[0])
    elif speed != 0:
        return 0.0
    low, high = law.cycle
    return value / ((high - low) or 1.0) if low <= v.cycle <= high else 0.0


def law_of(label: int) -> VelocityLaw:
    law = CLASSES[label].velocity
    assert law is not None
    return law


def state_at(clip: MotionClip, frame: int) -> np.ndarray:
    """State at a frame as fractions of its torus, (3,) in [0, 1)."""
    x, y, cycle = motion.state_at(clip, frame / motion.FPS)
    return np.array([x / WIDTH, y / HEIGHT, cycle])


def test_groups_and_partners() -> None:
    by_name = {c.name: c for c in CLASSES}
    assert len(by_name) == len(CLASSES)
    for c in CLASSES:
        partner = by_name[c.reversed_name]
        assert partner.reversed_name == c.name
        assert partner.group == c.group
        assert (partner is c) == (c.group in ("appearance", "speed"))
    sizes = {
        group: sum(c.group == group for c in CLASSES)
        for group in ("appearance", "direction", "order", "speed")
    }
    assert sizes == {"appearance": 2, "direction": 4, "order": 2, "speed": 2}


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_a_reversed_clip_is_a_draw_of_the_partner_with_equal_density(label: int) -> None:
    for clip in clips_of(label, 30):
        back = motion.reverse(clip)
        assert CLASSES[back.label].name == CLASSES[label].reversed_name
        assert back.background == CLASSES[back.label].background
        # Positions are uniform on the torus for every class, so the density of a clip is that of its
        # velocity.
        if label in TEMPORAL:
            assert density(law_of(label), clip.velocity) > 0
            assert density(law_of(back.label), back.velocity) == density(law_of(label), clip.velocity)
            for other in TEMPORAL:
                if other != back.label:
                    assert density(law_of(other), back.velocity) == 0
        else:
            forwards = sum(density(law_of(other), clip.velocity) for other in TEMPORAL)
            backwards = sum(density(law_of(other), back.velocity) for other in TEMPORAL)
            assert forwards == backwards > 0
        twice = motion.reverse(back)
        assert twice.label == label
        assert np.allclose(state_at(twice, 0), state_at(clip, 0))


@pytest.mark.parametrize("frame", [0, 17, NUM_FRAMES - 1])
def test_any_frame_of_a_temporal_class_is_a_frame_of_every_other(frame: int) -> None:
    # Give a clip another class's velocity and move its start back along it: the states at `frame` agree. The
    # map shifts a uniform distribution on a torus, so it carries one class's distribution of single frames
    # onto the other's.
    rng = np.random.default_rng(0)
    for label in TEMPORAL:
        clip = replace(clips_of(label, 1)[0], noise_std=0.0)
        wanted = motion.render(clip)[frame]
        other = int(rng.choice([i for i in TEMPORAL if i != label]))
        velocity = clips_of(other, 1)[0].velocity
        seconds = frame / motion.FPS
        x, y, cycle = motion.state_at(clip, seconds)
        twin = replace(
            clip,
            label=other,
            x=x - velocity.x * seconds,
            y=y - velocity.y * seconds,
            cycle=cycle - velocity.cycle * seconds,
            velocity=velocity,
        )
        got = motion.render(twin)[frame]
        assert np.abs(got.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("frame", [0, 17, NUM_FRAMES - 1])
@pytest.mark.parametrize("label", TEMPORAL)
def test_the_state_at_any_frame_is_uniform_in_every_class(label: int, frame: int) -> None:
    number = 500
    states = np.sort(np.stack([state_at(clip, frame) for clip in clips_of(label, number)]), axis=0)
    steps = (np.arange(number) + 0.5)[:, None] / number
    # Kolmogorov's distance; 0.0874 is passed by chance once in 1000 tests of 500 draws.
    assert (np.abs(states - steps).max(axis=0) < 0.0874).all()


def test_what_else_a_frame_shows_does_not_depend_on_the_label() -> None:
    def nuisances(label: int) -> np.ndarray:
        rows = [
            [
                c.radius,
                c.background_contrast,
                c.noise_std,
                *np.ravel(c.palette),
                *(value for shape in c.shapes for value in (shape.x, shape.y, shape.turn)),
            ]
            for c in clips_of(label, 300)
        ]
        return np.array(rows)

    assert {CLASSES[label].background for label in TEMPORAL} == {"plain"}
    groups = np.stack([nuisances(label) for label in range(len(CLASSES))])
    means = groups.mean(axis=1)
    error = groups.std(axis=(0, 1)) / math.sqrt(groups.shape[1])
    assert (np.abs(means - means.mean(axis=0)) < 4.5 * error).all()


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_reversed_frames_are_the_frames_of_the_reversed_parameters(label: int) -> None:
    clip = replace(clips_of(label, 1, seed=3)[0], noise_std=0.0)
    forwards, backwards = motion.render(clip), motion.render(motion.reverse(clip))
    assert np.abs(forwards[::-1].astype(int) - backwards).max() <= 1
    assert np.abs(forwards.astype(int) - backwards).max() > 20  # and the clip does move


def test_headings_and_turns_are_what_the_names_say() -> None:
    number = {c.name: i for i, c in enumerate(CLASSES)}
    velocity = {name: clips_of(label, 1)[0].velocity for name, label in number.items()}
    assert velocity["right"].x > 0 > velocity["left"].x
    assert velocity["down"].y > 0 > velocity["up"].y  # image rows count downwards
    assert (
        velocity["slow"].x ** 2 + velocity["slow"].y ** 2 < velocity["fast"].x ** 2 + velocity["fast"].y ** 2
    )

    # What is drawn goes where the velocity says, and appears on the other side.
    still = replace(
        clips_of(number["right"], 1)[0],
        shapes=(motion.Shape(0, 0, 0),),
        x=70,
        y=20,
        noise_std=0,
        background_contrast=0,
    )
    empty = motion.render(replace(still, shapes=()))[0].astype(int)
    moving = motion.render(replace(still, velocity=Velocity(12.0, 6.0, 0.0)))
    for frame, (x, y) in ((0, (70, 20)), (12, (2, 26)), (24, (14, 32))):
        ys, xs = np.nonzero(np.abs(moving[frame] - empty).sum(-1) > 60)
        offsets = (xs + 0.5 - x + WIDTH / 2) % WIDTH - WIDTH / 2
        assert abs(ys.mean() + 0.5 - y) < 0.7
        assert still.radius * 0.1 < offsets.mean() < still.radius * 0.7  # the half that lies to the right

    # The order class shows the colour of largest share in the order of its name.
    for name, order in (("red_green_blue", [0, 1, 2]), ("red_blue_green", [0, 2, 1])):
        clip = clips_of(number[name], 1)[0]
        cycle = clip.cycle + clip.velocity.cycle * np.arange(0, 1.7, 1 / motion.FPS)
        colours = motion._colours(np.asarray(clip.palette), cycle).argmax(axis=1)
        changes = [int(c) for i, c in enumerate(colours) if i == 0 or c != colours[i - 1]]
        start = order.index(changes[0])
        assert changes[:4] == [order[(start + k) % 3] for k in range(4)]


def test_a_second_shows_the_class() -> None:
    for label in TEMPORAL:
        for clip in clips_of(label, 50):
            v = clip.velocity
            # half a radius, or one change of colour
            assert math.hypot(v.x, v.y) / 5 + abs(v.cycle) * 2 >= 1.0
            # Eight frames in two seconds are dense enough: less than half a period lies between two, in
            # space that of the grid.
            step = 64 / 30 / 7
            assert abs(v.x) * step < WIDTH / 3 / 2
            assert abs(v.y) * step < HEIGHT / 2 / 2
            assert abs(v.cycle) * step < 1 / 3


def test_backgrounds_tell_the_appearance_classes() -> None:
    def edges(label: int) -> tuple[float, float]:
        clip = replace(clips_of(label, 1)[0], shapes=(), noise_std=0.0, background_contrast=0.0)
        frame = motion.render(clip)[0].astype(float)
        return float(np.abs(np.diff(frame, axis=0)).mean()), float(np.abs(np.diff(frame, axis=1)).mean())

    number = {c.name: i for i, c in enumerate(CLASSES)}
    down, across = edges(number["stripes"])
    assert down > 5
    assert across == 0
    assert min(edges(number["checks"])) > 5
    assert edges(number["left"]) == (0.0, 0.0)


def test_parameters_and_frames_are_functions_of_seed_split_and_index() -> None:
    first, again = motion.clip_parameters(1, "val", 5), motion.clip_parameters(1, "val", 5)
    assert first == again
    assert np.array_equal(motion.render(first), motion.render(again))
    others = [motion.clip_parameters(*key) for key in ((2, "val", 5), (1, "test", 5), (1, "val", 17))]
    assert len({first, *others}) == 4
    frames = motion.render(first)
    assert frames.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8


@pytest.fixture(scope="module")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion")
    return motion.ensure_motion_dataset(root, videos_per_class=SMALL, progress=False)


def test_files_lists_and_class_names(small_dataset: Path) -> None:
    from vidformers.data.datasets.kinetics import read_list
    from vidformers.data.records import check_labels, read_classes

    seen = set()
    for split in motion.SPLITS:
        records = read_list(str(small_dataset / f"{split}.csv"), path_prefix=str(small_dataset))
        assert [record.label for record in records] == list(range(len(CLASSES)))
        check_labels(records, len(CLASSES))
        seen.update(record.path for record in records)
    assert len(seen) == 3 * len(CLASSES)
    assert all(Path(path).is_file() for path in seen)
    assert read_classes(str(small_dataset)).names == [c.name for c in CLASSES]
    entries = json.loads((small_dataset / "classes.json").read_text())["classes"]
    assert {"label": 3, "name": "left", "group": "direction", "reversed": "right"} in entries

    with av.open(str(small_dataset / "videos/test/00002.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == motion.FPS
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    drawn = motion.render(motion.clip_parameters(0, "test", 2))
    assert decoded.shape == drawn.shape
    assert np.abs(decoded.astype(int) - drawn).mean() < 8


def test_first_use_makes_it_and_later_uses_keep_it(
    small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(motion, "write_video", fail)
    root = small_dataset.parent
    assert motion.ensure_motion_dataset(root, videos_per_class=SMALL, progress=False) == small_dataset
    with pytest.raises(AssertionError, match="rendered again"):
        motion.ensure_motion_dataset(root, seed=1, videos_per_class=SMALL, progress=False)


def test_an_interrupted_generation_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video, written = motion.write_video, []

    def interrupted(path: Path, frames: np.ndarray) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_video(path, frames)

    monkeypatch.setattr(motion, "write_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        motion.ensure_motion_dataset(tmp_path, videos_per_class=SMALL, progress=False)
    assert not list(tmp_path.glob("*/complete.json"))
    assert written[0].exists()

    written.clear()
    monkeypatch.setattr(motion, "write_video", lambda path, frames: written.append(path) or path.touch())
    directory = motion.ensure_motion_dataset(tmp_path, videos_per_class=SMALL, progress=False)
    assert len(written) == 3 * len(CLASSES)
    assert len(list(directory.glob("videos/*/*.mp4"))) == 3 * len(CLASSES)
    assert not list(tmp_path.glob("*.partial"))
    # A finished directory whose marker is gone does not count as finished.
    (directory / "complete.json").unlink()
    written.clear()
    assert motion.ensure_motion_dataset(tmp_path, videos_per_class=SMALL, progress=False) == directory
    assert len(written) == 3 * len(CLASSES)


def _make(root: str, done: "multiprocessing.Queue[str]") -> None:
    rendered = []
    motion.write_video = lambda path, frames: rendered.append(path) or path.touch()
    directory = motion.ensure_motion_dataset(root, videos_per_class=SMALL, progress=False)
    done.put(f"{directory} {len(rendered)}")


def test_two_processes_at_once_render_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    done: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_make, args=(str(tmp_path), done)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [done.get(timeout=60).rsplit(" ", 1) for _ in processes]
    for process in processes:
        process.join()
    assert answers[0][0] == answers[1][0]
    assert sorted(int(number) for _, number in answers) == [0, 3 * len(CLASSES)]


def test_the_default_place_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "write_video", lambda path, frames: path.touch())
    monkeypatch.setenv("VIDFORMERS_CACHE", str(tmp_path / "cache with space"))
    directory = motion.ensure_motion_dataset(videos_per_class=SMALL, progress=False)
    assert directory.parent == tmp_path / "cache with space" / "motion"


def test_sizes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number >= 1 for each of train, val, test"):
        motion.ensure_motion_dataset(tmp_path, videos_per_class={"train": 3}, progress=False)
