"""The ablation of models with known answers: exact values by enumeration, then through the pipeline.

A tolerance of 4 standard errors is exceeded by chance once in 16 000 times; the seeds are fixed.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.analysis.observers import (
    ColourAndMotion,
    DirectionOracle,
    FirstEvent,
    FixedStride,
    HashOfClip,
    IdealClock,
    LagObserver,
    MeanOfFrames,
    OrderOracle,
    PlaceInOneFrame,
    SpeedOracle,
    count_steps,
)
from vidformers.analysis.perturbations import draw_generator, parse_perturbation
from vidformers.analysis.temporal import temporal_dependence
from vidformers.analysis.temporal_summary import summarize_ablation
from vidformers.data.datasets.arrays import ArrayVideos
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.datasets.kinetics import read_list
from vidformers.data.temporal_families import Family, FamilyClip, make_family
from vidformers.data.temporal_families.families import coprime_steps
from vidformers.data.temporal_families.files import write_family
from vidformers.models import VisionTransformer

ORDER_ONLY = [
    "identity", "shuffle", "block_shuffle[2]", "block_shuffle[4]", "local_shuffle[2]", "local_shuffle[4]",
    "reverse", "swap_halves", "rotate[3]", "interleave",
]  # fmt: skip


def dataset_of(
    family: Family, clips: Iterable[FamilyClip], labels: Sequence[int] | None = None
) -> ArrayVideos:
    clips = list(clips)
    return ArrayVideos(
        [family.render(clip) for clip in clips],
        [clip.label for clip in clips] if labels is None else labels,
    )


def drawn(family: Family, num_videos: int, labels: Sequence[int] | None = None) -> ArrayVideos:
    return dataset_of(family, [family.draw(seed=0, index=i) for i in range(num_videos)], labels)


def every_clock(family: Family) -> list[FamilyClip]:
    """Each class from each place, once."""
    first = family.draw(seed=0, index=0)
    S = family.steps
    return [
        replace(first, label=label, states=((phase + step * np.arange(S)) % S)[:, None])
        for label, step in enumerate(coprime_steps(S))
        for phase in range(S)
    ]


def ablate(
    model: nn.Module, family: Family, dataset: ArrayVideos, perturbations: Sequence[str], **arguments
) -> dict:
    """The summary, its perturbations by name."""
    table = temporal_dependence(
        model,
        dataset,
        perturbations=perturbations,
        tubelet=arguments.pop("tubelet", 1),
        class_partners=family.partners if arguments.pop("partners", True) else None,
        **{"num_draws": 4, "batch_size": 64, **arguments},
    )
    summary = summarize_ablation(
        table, seed=0, num_resamples=200, seconds_per_frame=0.1, num_frames=dataset.num_frames
    )
    return {**summary, "perturbations": {one["name"]: one for one in summary["perturbations"]}}


def four_errors(share: float, number: int) -> float:
    """In percent, for a share of `number` independent answers."""
    return 400 * math.sqrt(share * (1 - share) / number)


# The clock of 8 places, exactly: every index map of a perturbation, every class. Where it starts makes no
# difference to a step.


def all_shuffles(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))))


def all_block_shuffles(n: int, size: int) -> np.ndarray:
    return (all_shuffles(n // size)[:, :, None] * size + np.arange(size)).reshape(-1, n)


def all_local_shuffles(n: int, window: int) -> np.ndarray:
    within = all_shuffles(window)
    parts = itertools.product(within, repeat=n // window)
    return np.array([np.concatenate([p + i * window for i, p in enumerate(some)]) for some in parts])


GOLDEN = {  # facts: accuracy of the clean-trained ideal observer, share of answers that are the partner
    "identity": ([np.arange(8)], 1.0, 0.0),
    "swap_halves": ([np.roll(np.arange(8), 4)], 1.0, 0.0),
    "block_shuffle[2]": (all_block_shuffles(8, 2), 1.0, 0.0),
    "block_shuffle[4]": (all_block_shuffles(8, 4), 1.0, 0.0),
    "reverse": ([np.arange(8)[::-1]], 0.0, 1.0),
    "shuffle": (all_shuffles(8), 0.25, 0.25),
    "local_shuffle[2]": (all_local_shuffles(8, 2), 0.594, 0.406),
    "local_shuffle[4]": (all_local_shuffles(8, 4), 0.410, 0.410),
}


def shares_of_answers(maps: np.ndarray, step: int, places: int) -> np.ndarray:
    """(K,) how often the ideal observer answers each class to a clock of that step; ties are shared."""
    counts = count_steps(torch.from_numpy(np.array(maps) * step % places), coprime_steps(places), places)
    best = (counts == counts.amax(dim=1, keepdim=True)).float()
    return (best / best.sum(dim=1, keepdim=True)).double().mean(dim=0).numpy()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_values_of_the_clock_by_enumeration(name):
    maps, accuracy, partner = GOLDEN[name]
    shares = np.stack([shares_of_answers(maps, step, 8) for step in coprime_steps(8)])
    partners = make_family("clock").partners
    assert np.diagonal(shares).mean() == pytest.approx(accuracy, abs=5e-4 if accuracy % 0.25 else 1e-9)
    assert shares[range(4), partners].mean() == pytest.approx(partner, abs=5e-4 if partner % 0.25 else 1e-9)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_maps_that_are_drawn_are_the_enumerated_ones(name):
    wanted = {tuple(m) for m in GOLDEN[name][0]}
    perturbation = parse_perturbation(name)
    got = {
        tuple(
            perturbation.index_map(
                num_frames=8, tubelet=1, generator=draw_generator(seed=0, video_id="v", view=0, draw=d)
            )
        )
        for d in range(300)
    }
    assert got <= wanted
    assert len(got) == len(wanted) if len(wanted) <= 24 else len(got) > 200


@pytest.mark.parametrize(
    ("name", "accuracy", "partner"),
    [
        ("shuffle", 0.125, 0.125),
        ("local_shuffle[2]", 0.636, None),
        ("local_shuffle[4]", 0.479, None),
        ("local_shuffle[8]", 0.278, None),
        ("block_shuffle[2]", 1.0, 0.0),
        ("block_shuffle[4]", 1.0, 0.0),
        ("block_shuffle[8]", 1.0, 0.0),
        ("reverse", 0.0, 1.0),
    ],
)
def test_the_clock_of_16_places(name, accuracy, partner):
    perturbation = parse_perturbation(name)
    maps = [
        perturbation.index_map(
            num_frames=16,
            tubelet=1,
            generator=draw_generator(seed=0, video_id="v", view=0, draw=draw),
        )
        for draw in range(1500)
    ]
    shares = np.stack([shares_of_answers(maps, step, 16) for step in coprime_steps(16)])
    # By 20 000 draws; 1500 have a standard error of 0.013 at most.
    assert np.diagonal(shares).mean() == pytest.approx(accuracy, abs=0.04 if accuracy % 1 else 1e-9)
    if partner is not None:
        partners = make_family("clock", num_frames=16).partners
        assert shares[range(8), partners].mean() == pytest.approx(partner, abs=0.04 if partner % 1 else 1e-9)


@pytest.mark.parametrize("name", GOLDEN)
def test_what_an_observer_trained_on_the_perturbed_clock_could_reach(name):
    # The best guess for each sequence of places, over every class, map and start: the Bayes accuracy.
    maps = np.array(GOLDEN[name][0])
    starts = np.arange(8)[:, None]
    # (maps, starts, 8) -> a number for each sequence, by class
    sequences = [((maps[:, None] * v + starts) % 8 @ 8 ** np.arange(8)).ravel() for v in coprime_steps(8)]
    distinct, places = np.unique(sequences, return_inverse=True)
    times = [np.bincount(row, minlength=len(distinct)) for row in places.reshape(4, -1)]
    ceiling = {"shuffle": 0.25, "local_shuffle[4]": 0.5}.get(name, 1.0)
    assert np.max(times, axis=0).sum() / places.size == pytest.approx(ceiling)


# Through the whole pipeline: pixels, views, index maps drawn by seed, scores, summary.


@pytest.fixture(scope="module")
def clock_summary() -> dict:
    family = make_family("clock", size=16)
    return ablate(
        IdealClock(family),
        family,
        drawn(family, 240),
        [*GOLDEN, "freeze[middle]", "subsample[3]"],
        num_draws=5,
    )


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_values_of_the_clock_through_the_pipeline(clock_summary, name):
    _, accuracy, partner = GOLDEN[name]
    got = clock_summary["perturbations"][name]
    if accuracy in (0, 1):
        assert (got["top1"], got["swap_rate"]) == (100 * accuracy, 100 * partner)
        assert got["flip_rate"] == 100 * (1 - accuracy)
    else:
        number = 240 * 5
        assert got["top1"] == pytest.approx(100 * accuracy, abs=four_errors(accuracy, number))
        assert got["swap_rate"] == pytest.approx(100 * partner, abs=four_errors(partner, number))
        score = got["order_score_chance"]
        assert score["value"] == pytest.approx((1 - accuracy) / 0.75, abs=four_errors(accuracy, number) / 75)
        assert score["interval"][0] < (1 - accuracy) / 0.75 < score["interval"][1]


def test_what_else_is_known_of_the_clock(clock_summary):
    assert clock_summary["clean"]["top1"] == 100
    assert clock_summary["chance"] == 25
    by_name = clock_summary["perturbations"]
    # Step 3 at a time: (t * 3) % 8 makes 1 to 3, 3 to 1, 5 to 7 and 7 to 5, none of which is a partner's.
    assert (by_name["subsample[3]"]["top1"], by_name["subsample[3]"]["swap_rate"]) == (0, 0)
    assert by_name["freeze[middle]"]["top1"] == pytest.approx(25, abs=four_errors(0.25, 240))
    assert by_name["reverse"]["order_score_chance"]["value"] == pytest.approx(4 / 3, abs=1e-4)
    assert by_name["reverse"]["displacement"] == 1
    # Blocks keep everything, windows do not: the two curves disagree as much as they can.
    curves = clock_summary["range_curves"]
    blocks = {p["size"]: p["score"] for p in curves["block_shuffle"]["points"]}
    windows = {p["size"]: p["score"] for p in curves["local_shuffle"]["points"]}
    assert (blocks[2], blocks[4]) == (0, 0)
    assert blocks[1] == windows[8] == by_name["shuffle"]["order_score_chance"]["value"]
    assert 0 < windows[2] < windows[4] < windows[8]


def test_tubelets_of_a_held_clock_are_its_steps():
    family = make_family("clock", num_frames=16, hold=2, size=16)
    names = [
        "local_shuffle[2]", "reverse@tubelet", "block_shuffle[2]@tubelet",
        "shuffle@tubelet", "block_shuffle[2]", "local_shuffle[2]@tubelet", "local_shuffle[4]@tubelet",
    ]  # fmt: skip
    got = ablate(IdealClock(family), family, drawn(family, 200), names, tubelet=2)["perturbations"]
    # Frames within a tubelet are equal, so that exchanging them changes nothing at all.
    assert (got["local_shuffle[2]"]["flip_rate"], got["local_shuffle[2]"]["jensen_shannon"]) == (0, 0)
    assert (got["reverse@tubelet"]["top1"], got["reverse@tubelet"]["swap_rate"]) == (0, 100)
    assert got["block_shuffle[2]@tubelet"]["top1"] == 100
    for name, accuracy in (
        ("shuffle@tubelet", 0.25),
        ("block_shuffle[2]", 0.25),
        ("local_shuffle[2]@tubelet", 0.594),
        ("local_shuffle[4]@tubelet", 0.410),
    ):
        assert got[name]["top1"] == pytest.approx(100 * accuracy, abs=four_errors(accuracy, 800)), name


def test_video_files_give_what_the_frames_in_memory_give(tmp_path):
    family = make_family("clock", num_frames=16, hold=2, size=32)
    folder = write_family(
        tmp_path / "clock", family, videos_per_class={"train": 1, "val": 1, "test": 4}, progress=False
    )
    records = read_list(str(folder / "test.csv"), path_prefix=str(folder))
    files = TestVideos(
        records, num_frames=16, sampling_rate=1, num_views=1, num_crops=1, short_side=32, crop_size=32
    )
    clips = [family.draw(seed=0, index=i) for i in range(16)]
    memory = ArrayVideos(
        [family.render(clip) for clip in clips],
        [clip.label for clip in clips],
        video_ids=[record.video_id for record in records],
    )
    names = ["reverse", "shuffle@tubelet", "local_shuffle[4]", "drop[0.25]"]
    from_files, from_memory = (
        temporal_dependence(IdealClock(family), videos, perturbations=names, num_draws=2, tubelet=2)
        for videos in (files, memory)
    )
    assert not from_files.failed
    assert np.array_equal(from_files.clean, from_memory.clean)
    for one, other in zip(from_files.perturbed, from_memory.perturbed, strict=True):
        assert np.array_equal(one.scores, other.scores), one.name


def random_vit(position_embedding: str, attention: str) -> nn.Module:
    """A ViT with temporal patch 1 whose random weights are large enough for its answers to differ."""
    torch.manual_seed(0)
    model = VisionTransformer(
        num_frames=8,
        image_size=16,
        num_classes=4,
        patch_kernel=(1, 8, 8),
        patch_stride=(1, 8, 8),
        embed_dim=24,
        depth=2,
        num_heads=2,
        attention=attention,
        position_embedding=position_embedding,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    return model


@pytest.mark.parametrize(
    ("model", "exact"),
    [
        (MeanOfFrames(3 * 16 * 16, 4), True),
        (random_vit("spatial", "space_only"), False),
        (random_vit("spatial", "joint"), False),
        (random_vit("none", "joint"), False),
    ],
    ids=["mean of frames", "frame-wise ViT", "joint ViT", "joint ViT without positions"],
)
def test_a_bag_of_frames_scores_nothing_on_order(model, exact):
    family = make_family("direction", others="jump", size=16)
    dataset = drawn(family, 32, labels=[i % 4 for i in range(32)])
    table = temporal_dependence(
        model, dataset, perturbations=[*ORDER_ONLY, "freeze[first]"], num_draws=2, tubelet=1
    )
    for one in table.perturbed[:-1]:
        assert np.array_equal(
            one.scores.argmax(axis=2), np.tile(table.clean.argmax(axis=1)[:, None], one.scores.shape[1])
        )
        if exact:
            assert (one.scores == table.clean[:, None]).all(), one.name
        else:  # sums of floats depend on their order in the last bits
            assert np.abs(one.scores - table.clean[:, None]).max() < 2e-5, one.name
    summary = summarize_ablation(table, seed=0, num_resamples=100, seconds_per_frame=None, num_frames=8)
    *order, frozen = summary["perturbations"]
    for one in order:
        assert (one["delta"], one["delta_interval"], one["flip_rate"]) == (0, [0, 0], 0), one["name"]
        assert (one["discordant"] or {"lost": 0, "gained": 0}) == {"lost": 0, "gained": 0}
        assert one["p_value"] == 1
        assert (one["jensen_shannon"], one["margin_shift"]) == (0, 0)
    # It does look at the frames, and says different things of different clips.
    assert frozen["flip_rate"] > 0
    assert len(set(table.clean.argmax(axis=1))) > 1


def test_a_temporal_position_is_what_makes_the_joint_vit_see_order():
    family = make_family("direction", size=16)
    got = ablate(
        random_vit("joint", "joint"), family, drawn(family, 32, labels=[0] * 32), ["shuffle"], partners=False
    )
    assert got["perturbations"]["shuffle"]["flip_rate"] > 0


def test_frame_differences_tell_directions():
    for others in ("jump", "still"):
        family = make_family("direction", others=others, size=32)
        got = ablate(
            DirectionOracle(family),
            family,
            drawn(family, 96),
            ["identity", "reverse", "swap_halves", "shuffle"],
        )
        by_name = got["perturbations"]
        assert got["clean"]["top1"] == by_name["identity"]["top1"] == by_name["swap_halves"]["top1"] == 100
        assert (by_name["reverse"]["top1"], by_name["reverse"]["swap_rate"]) == (0, 100)
        # A shuffled clip of things that jump is alike for all classes; of things at rest it shows the pair.
        level = {"jump": 1 / 8, "still": 1 / 2}[others]
        shuffled = by_name["shuffle"]
        assert shuffled["top1"] == pytest.approx(100 * level, abs=four_errors(level, 384))
        assert shuffled["swap_rate"] == pytest.approx(100 * level, abs=four_errors(level, 384))


def test_speed_is_blind_to_reversal_and_follows_the_rate():
    family = make_family("speed", size=16)
    model = SpeedOracle(family, family.ring)
    dataset = drawn(family, 48)
    got = ablate(model, family, dataset, ["reverse", "subsample[2]", "subsample[4]"])
    assert got["clean"]["top1"] == 100
    assert got["perturbations"]["reverse"]["flip_rate"] == 0
    table = temporal_dependence(model, dataset, perturbations=["subsample[2]", "subsample[4]"], tubelet=1)
    for one, doublings in zip(table.perturbed, (1, 2), strict=True):
        assert (one.scores[:, 0].argmax(axis=1) == (table.labels + doublings) % 3).all()


def test_event_order_is_lost_between_events_and_not_within():
    family = make_family("order", num_frames=9, size=16)
    names = ["local_shuffle[3]", "block_shuffle[3]", "reverse", "shuffle"]
    got = ablate(OrderOracle(family), family, drawn(family, 120), names, num_draws=5)
    by_name = got["perturbations"]
    assert got["clean"]["top1"] == 100
    assert (by_name["local_shuffle[3]"]["delta"], by_name["local_shuffle[3]"]["jensen_shannon"]) == (0, 0)
    assert (by_name["reverse"]["top1"], by_name["reverse"]["swap_rate"]) == (0, 100)
    for name in ("block_shuffle[3]", "shuffle"):
        assert by_name[name]["top1"] == pytest.approx(100 / 6, abs=four_errors(1 / 6, 600))


@pytest.mark.parametrize("num_frames", [8, 9])
def test_the_occlusion_curve_of_an_event(num_frames):
    family = make_family("position", num_frames=num_frames, size=16)
    look = family.draw(seed=0, index=0)
    parts = family.parts
    clips = []
    for label, part in enumerate(parts):
        for event in list(part) * (math.lcm(*map(len, parts)) // len(part)):  # classes of equal size
            states = (np.arange(num_frames) == event).astype(np.int64)[:, None]
            clips.append(replace(look, label=label, states=states))
    got = ablate(
        FirstEvent(family), family, dataset_of(family, clips), ["occlude", "reverse", "freeze[middle]"]
    )
    cost = 100 / (3 * len(parts[0]))
    wanted = [0.0 if t in parts[1] else -cost for t in range(num_frames)]
    assert [point["delta"] for point in got["occlusion_curve"]] == pytest.approx(wanted, abs=1e-4)
    assert got["clean"]["top1"] == 100
    reverse = got["perturbations"]["reverse"]
    assert (reverse["top1"], reverse["swap_rate"]) == (pytest.approx(100 / 3, abs=1e-4), 100)


def test_who_sees_the_last_or_the_first_frame_alone():
    family = make_family("clock", size=16)
    clips = every_clock(family)
    for at, first in ((-1, False), (0, True)):
        dataset = dataset_of(family, clips, labels=[int(clip.states[at, 0]) for clip in clips])
        names = ["occlude", "freeze[first]", "freeze[last]", "rotate[4]", "reverse", "local_shuffle[2]"]
        got = ablate(PlaceInOneFrame(family, at), family, dataset, names, partners=False)
        assert got["clean"]["top1"] == 100
        curve = [point["delta"] for point in got["occlusion_curve"]]
        assert curve == ([-100] + 7 * [0] if first else 7 * [0] + [-100])
        by_name = got["perturbations"]
        kept, lost = ("freeze[first]", "freeze[last]") if first else ("freeze[last]", "freeze[first]")
        assert (by_name[kept]["flip_rate"], by_name[kept]["jensen_shannon"]) == (0, 0)
        for name in (lost, "rotate[4]", "reverse"):
            assert (by_name[name]["top1"], by_name[name]["flip_rate"]) == (0, 100)
        # A window of two keeps its frames in place every other time.
        assert by_name["local_shuffle[2]"]["top1"] == pytest.approx(50, abs=four_errors(0.5, 128))


def test_a_shortcut_through_two_frames_is_found_by_occlusion():
    family = make_family("clock", size=16)
    names = [
        "occlude",
        "block_shuffle[2]",
        "swap_halves",
        "interleave",
        "local_shuffle[2]",
        "shuffle",
        "reverse",
    ]
    got = ablate(FixedStride(family), family, drawn(family, 160), names)
    by_name = got["perturbations"]
    assert (
        got["clean"]["top1"] == by_name["block_shuffle[2]"]["top1"] == by_name["swap_halves"]["top1"] == 100
    )
    assert (by_name["reverse"]["top1"], by_name["reverse"]["swap_rate"]) == (0, 100)
    curve = [point["delta"] for point in got["occlusion_curve"]]
    assert curve[2:] == [0] * 6
    assert curve[:2] == pytest.approx([-75, -75], abs=four_errors(0.25, 160))
    # Even steps are no class: a guess. Half the windows are kept, the others are turned round.
    assert by_name["interleave"]["top1"] == pytest.approx(25, abs=four_errors(0.25, 160))
    assert by_name["local_shuffle[2]"]["top1"] == pytest.approx(50, abs=four_errors(0.5, 640))
    assert by_name["local_shuffle[2]"]["swap_rate"] == pytest.approx(50, abs=four_errors(0.5, 640))
    assert by_name["shuffle"]["top1"] == pytest.approx(25, abs=four_errors(0.25, 640))


def range_accuracy(maps: np.ndarray, distance: int) -> float:
    """Of the lag observer on all clips of 8 steps, ties shared."""
    total = 0.0
    observer = LagObserver(distance)
    turn, place = np.divmod(np.arange(8), distance)
    for label, first in itertools.product((0, 1), itertools.product((0, 1), repeat=distance)):
        sides = (np.array(first)[place] + label * turn) % 2
        evidence = observer.evidence(torch.from_numpy(sides[np.array(maps)]))
        best = (evidence == evidence.amax(dim=1, keepdim=True)).double()
        total += float((best[:, label] / best.sum(dim=1)).mean())
    return total / 2 ** (distance + 1)


@pytest.mark.parametrize("distance", [2, 4])
def test_only_what_reaches_the_range_matters(distance):
    family = make_family("range", size=16, distance=distance)
    maps = {
        "swap_halves": [np.roll(np.arange(8), 4)],
        "block_shuffle[4]": all_block_shuffles(8, 4),
        "block_shuffle[2]": all_block_shuffles(8, 2),
        "shuffle": all_shuffles(8),
        "local_shuffle[2]": all_local_shuffles(8, 2),
        "local_shuffle[4]": all_local_shuffles(8, 4),
    }
    wanted = {name: range_accuracy(some, distance) for name, some in maps.items()}
    # Blocks of two periods hold every comparison within a half, or between the halves of 4.
    assert wanted["swap_halves"] == wanted["block_shuffle[4]"] == 1
    # Blocks of one period, a b a b, in any order: of the six arrangements two, a a b b and b b a a, have most
    # neighbours equal.
    assert wanted["block_shuffle[2]"] == pytest.approx(5 / 6) or distance == 4
    assert wanted["shuffle"] < 0.75
    got = ablate(LagObserver(distance), family, drawn(family, 300), [*maps, "reverse"], num_draws=5)
    assert got["clean"]["top1"] == got["perturbations"]["reverse"]["top1"] == 100
    for name, accuracy in wanted.items():
        top1 = got["perturbations"][name]["top1"]
        assert top1 == pytest.approx(
            100 * accuracy, abs=four_errors(accuracy, 300 * (1 if accuracy == 1 else 4))
        ), name


def test_the_order_score_falls_with_the_dose_of_the_shortcut():
    # Motion decides where it is clear, the hue (weight rho) where it is not. Shuffled clips with a lead
    # |m| < rho of one way over the other follow the hue, right for `agree` of the videos; the others follow
    # the motion, right half of the time.
    ways = count_steps(torch.from_numpy(all_shuffles(8)), [1, -1], 8)
    lead = ((ways[:, 0] - ways[:, 1]).abs() / 7).numpy()
    scores = []
    for rho in (0.0, 0.5, 0.9, 1.0):
        family = make_family("confounded", rho=rho, size=16)
        clips = [family.draw(seed=0, index=i) for i in range(150)]
        agree = np.mean([(clip.look.hue > 0.3) == clip.label for clip in clips])
        by_hue = float((lead < rho).mean())
        accuracy = by_hue * agree + (1 - by_hue) / 2
        got = ablate(ColourAndMotion(family, rho), family, dataset_of(family, clips), ["shuffle"])
        assert got["clean"]["top1"] == 100
        score = got["perturbations"]["shuffle"]["order_score_chance"]["value"]
        assert score == pytest.approx(2 - 2 * accuracy, abs=four_errors(accuracy, 600) / 50)
        scores.append(score)
    # 1, about 1 - rho, nothing.
    assert scores[0] > 0.9
    assert scores[0] > scores[1] + 0.2
    assert scores[1] > scores[2] + 0.2
    assert scores[2] > scores[3] >= 0
    assert scores[3] < 0.01


def test_where_the_hue_says_nothing_the_motion_shows():
    family = make_family("confounded", rho=0.9, size=16).held_out()
    got = ablate(ColourAndMotion(family, 0.9), family, drawn(family, 100), ["shuffle", "reverse"])
    assert got["clean"]["top1"] == got["perturbations"]["reverse"]["swap_rate"] == 100
    assert got["perturbations"]["shuffle"]["top1"] == pytest.approx(50, abs=four_errors(0.5, 100))


def test_a_random_classifier_shows_no_effect_but_by_chance():
    family = make_family("clock", num_frames=4, size=16)
    dataset = drawn(family, 40)
    covered = significant = 0
    for seed in range(10):
        got = ablate(HashOfClip(2, seed), family, dataset, ["shuffle", "reverse"], seed=seed)
        for row in got["perturbations"].values():
            assert row["flip_rate"] > 15  # the answers do change: about half of them
            covered += row["delta_interval"][0] <= 0 <= row["delta_interval"][1]
            significant += row["p_value"] < 0.05
    # Of 20 intervals of 95 % fewer than 16 cover once in 400 times, of 20 tests more than 4 reject as rarely.
    assert covered >= 16
    assert significant <= 4
