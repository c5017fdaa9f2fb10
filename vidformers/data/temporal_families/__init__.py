"""Families of tiny clips whose dependence on time is known exactly: ground truth for the temporal ablation.

A clip is a sequence of `num_frames / hold` steps; each has a state (a few whole numbers) and is shown for
`hold` frames, so that a model that merges `hold` frames into a tubelet still sees every state. A frame is a
function of its state and of the clip's look (background, hue, brightness). Looks do not depend on the class
but in `appearance` and `confounded`, where the hue does. Hence what is proven of the law of states holds of
the frames.

Of each family the docstring (`families.py`) gives the accuracy of the best possible observer (Bayes
accuracy), which knows the place of what it sees in the clip, for a single frame, for the bag (all frames,
their order unknown) and for the whole clip. Reversing a clip of class c gives a valid draw of class
`partners[c]`, with the same probability (`confounded` says where that fails). Classes are equally frequent:
label = index modulo the number of classes.

Sources: "Only Time Can Tell" (Sevilla-Lara et al. 2021) and Retro-Actions (Price and Damen 2019) for
reversal, "What Makes a Video a Video" (Huang et al. 2018) for why single frames and bags must be ruled out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidformers.data.temporal_families.base import Family, FamilyClip, Look
from vidformers.data.temporal_families.families import (
    Appearance,
    Clock,
    Confounded,
    Direction,
    Order,
    Position,
    Range,
    Speed,
)

__all__ = ["FAMILIES", "Family", "FamilyClip", "GeneratedClips", "Look", "generate", "make_family"]

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (Appearance, Direction, Clock, Order, Speed, Position, Range, Confounded)
}


def make_family(name: str, **settings: Any) -> Family:
    """The family of that name with its settings; ValueError for a name or a setting that there is not."""
    if name not in FAMILIES:
        raise ValueError(f"family {name!r}; wanted one of {', '.join(FAMILIES)}; try 'clock'")
    known = FAMILIES[name].__dataclass_fields__
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{name} has no setting {setting!r}; wanted some of {', '.join(known)}")
    return FAMILIES[name](**settings)


@dataclass(frozen=True)
class GeneratedClips:
    """Clips in memory: frames, N arrays uint8 (T, size, size, 3); labels int64 (N,); and per class its name
    and the label of its time-reversed class."""

    frames: list[np.ndarray]
    labels: np.ndarray
    class_names: list[str]
    class_partners: list[int]


def generate(
    name: str, *, num_videos: int, seed: int = 0, split: str = "test", **settings: Any
) -> GeneratedClips:
    """Clips 0 .. num_videos - 1 of a split; `settings` are the family's own (num_frames, size, hold, ...).

    Raises ValueError as `make_family`.
    """
    family = make_family(name, **settings)
    clips = [family.clip(seed=seed, index=index, split=split) for index in range(num_videos)]
    return GeneratedClips(
        frames=[frames for frames, _ in clips],
        labels=np.array([label for _, label in clips], dtype=np.int64),
        class_names=family.class_names,
        class_partners=family.partners,
    )
