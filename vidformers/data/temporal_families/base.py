"""What all families of clips share: steps that are held, looks, and drawing.

Legend: T frames of a clip, S = T / hold steps.
"""

from __future__ import annotations

import colorsys
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vidformers.data.motion import SPLITS

Coverage = np.ndarray  # float32 (size, size), 0 background to 1 object


@dataclass(frozen=True)
class Look:
    """What does not change within a clip: grey of the background, hue and value of what is drawn on it."""

    background: float
    hue: float
    value: float


@dataclass(frozen=True, eq=False)
class FamilyClip:
    """Everything that determines a clip's pixels. states: int64 (S, n), the n numbers of each step."""

    label: int
    states: np.ndarray
    look: Look


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A family of clips of T frames of size x size pixels, each step lasting `hold` frames.

    Raises ValueError for sizes that the family cannot have, naming ones that it can.
    """

    num_frames: int = 8
    size: int = 32
    hold: int = 1

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.hold < 1 or self.num_frames < 1 or self.num_frames % self.hold:
            raise ValueError(
                f"num_frames={self.num_frames} is not a whole number of steps of hold={self.hold} frames; "
                f"try num_frames={max(self.num_frames // max(self.hold, 1), 1) * max(self.hold, 1)}"
            )
        if self.size < 16:
            raise ValueError(f"size={self.size}; wanted 16 pixels or more to draw on; try size=32")
        self.check()

    def check(self) -> None:  # noqa: B027 - most families take what the base class takes
        """Raise ValueError for arguments that this family cannot have."""

    @property
    def steps(self) -> int:
        """S, the number of states of a clip."""
        return self.num_frames // self.hold

    @property
    @abstractmethod
    def class_names(self) -> list[str]: ...

    @property
    @abstractmethod
    def partners(self) -> list[int]:
        """Label of the class that a reversed clip of each class belongs to."""

    @abstractmethod
    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        """States of a random clip of the class, int64 (S, n)."""

    @abstractmethod
    def coverage(self, state: np.ndarray) -> Coverage:
        """Where a state's object is drawn."""

    def draw_hue(self, label: int, rng: np.random.Generator) -> float:
        """Hue in turns; any."""
        return rng.uniform()

    def hue(self, state: np.ndarray, look: Look) -> float:
        """Hue of the object in one state."""
        return look.hue

    def held_out(self) -> Family:
        """The family that the test clips are drawn from."""
        return self

    def draw(self, *, seed: int, index: int, split: str = "test") -> FamilyClip:
        """Clip `index` of a split: a pure function of the family's settings and (seed, split, index)."""
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        label = index % len(self.class_names)
        look = Look(rng.uniform(0.04, 0.16), self.draw_hue(label, rng) % 1.0, rng.uniform(0.85, 1.0))
        return FamilyClip(label, self.draw_states(label, rng), look)

    def reverse(self, clip: FamilyClip) -> FamilyClip:
        """The clip seen backwards."""
        return replace(clip, label=self.partners[clip.label], states=clip.states[::-1])

    def render(self, clip: FamilyClip) -> np.ndarray:
        """uint8 (T, size, size, 3), edges antialiased."""
        states, places = np.unique(clip.states, axis=0, return_inverse=True)
        pictures = np.stack([self._picture(state, clip.look) for state in states])
        return pictures[places.reshape(-1)].repeat(self.hold, axis=0)

    def clip(self, *, seed: int, index: int, split: str = "test") -> tuple[np.ndarray, int]:
        """-> frames uint8 (T, size, size, 3), label."""
        drawn = self.draw(seed=seed, index=index, split=split)
        return self.render(drawn), drawn.label

    def _picture(self, state: np.ndarray, look: Look) -> np.ndarray:
        colour = np.array(colorsys.hsv_to_rgb(self.hue(state, look) % 1.0, 0.8, look.value))
        picture = look.background + self.coverage(state)[..., None] * (colour - look.background)
        return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)

    def _disc(self, x: float, y: float, radius: float) -> Coverage:
        """A disc about (x, y), all in pixels; x counts to the right, y down."""
        centres = np.arange(self.size) + 0.5
        distance = np.hypot(centres[None] - x, centres[:, None] - y)
        return np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)

    def _on_ring(self, position: int, positions: int) -> Coverage:
        """A disc at one of `positions` places on a circle; places count clockwise from the right."""
        angle = 2 * math.pi * position / positions
        centre, radius = self.size / 2, self.size / 3
        return self._disc(
            centre + radius * math.cos(angle),
            centre + radius * math.sin(angle),
            max(self.size / max(positions, 8), 1.5),
        )

    def _check_ring(self, positions: int) -> None:
        if positions > self.size:
            raise ValueError(
                f"{positions} places on a circle cannot be told apart in {self.size} pixels; try "
                f"size={positions + positions % 2} or fewer frames"
            )
