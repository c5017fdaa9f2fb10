"""The eight families of clips with a known dependence on time, A to H.

Legend: T frames of a clip, S = T / hold steps, K classes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vidformers.data.temporal_families.base import Coverage, Family, Look


def _itself(family: Family) -> list[int]:
    return list(range(len(family.class_names)))


def coprime_steps(positions: int) -> list[int]:
    """The steps that visit every place of a ring before the first one again."""
    return [step for step in range(1, positions) if math.gcd(step, positions) == 1]


@dataclass(frozen=True, kw_only=True)
class Appearance(Family):
    """A: the hue is the class; the motion is that of any clock. Reversal keeps the class.

    Bayes: single frame 1, bag 1, clip 1. No perturbation of the order changes anything.
    """

    name: ClassVar[str] = "appearance"
    HUES: ClassVar[dict[str, float]] = {"red": 0.0, "yellow": 1 / 6, "green": 1 / 3, "blue": 2 / 3}

    def check(self) -> None:
        _check_clock(self)

    @property
    def class_names(self) -> list[str]:
        return list(self.HUES)

    @property
    def partners(self) -> list[int]:
        return _itself(self)

    def draw_hue(self, label: int, rng: np.random.Generator) -> float:
        return list(self.HUES.values())[label] + rng.uniform(-0.03, 0.03)

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        return _turn(self.steps, int(rng.choice(coprime_steps(self.steps))), rng)

    def coverage(self, state: np.ndarray) -> Coverage:
        return self._on_ring(state[0], self.steps)


def _check_clock(family: Family) -> None:
    if family.steps < 3:
        raise ValueError(
            f"{family.name}: {family.steps} steps have fewer than two step sizes coprime to them; wanted 3 "
            f"steps or more; try num_frames={3 * family.hold}"
        )
    family._check_ring(family.steps)


def _turn(positions: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """One turn of a ring from any place, int64 (positions, 1)."""
    return ((rng.integers(positions) + step * np.arange(positions)) % positions)[:, None]


@dataclass(frozen=True, kw_only=True)
class Clock(Family):
    """C: a disc on a ring of S places; the class is its step v, coprime to S; it starts anywhere.

    Every clip visits every place exactly once. Bayes: single frame 1/K, bag 1/K, clip 1, two neighbouring
    steps 1. Reversal takes v to S - v. An observer that answers the most frequent step between neighbours
    (ties shared) is right, and answers S - v, with these shares of the clips of S = 8 (K = 4):

    identity, swap_halves, block_shuffle[2], block_shuffle[4]  1.000, 0.000
    reverse           0.000, 1.000
    shuffle           0.250, 0.250
    local_shuffle[2]  0.594, 0.406
    local_shuffle[4]  0.410, 0.410
    """

    name: ClassVar[str] = "clock"

    def check(self) -> None:
        _check_clock(self)

    @property
    def class_names(self) -> list[str]:
        return [f"step_{step}" for step in coprime_steps(self.steps)]

    @property
    def partners(self) -> list[int]:
        return _itself(self)[::-1]

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        return _turn(self.steps, coprime_steps(self.steps)[label], rng)

    def coverage(self, state: np.ndarray) -> Coverage:
        return self._on_ring(state[0], self.steps)


@dataclass(frozen=True, kw_only=True)
class Direction(Family):
    """B: four things to move on tori of S places: a disc to the side and up or down, a dial, ripples.

    The class is which one turns steadily, one place a step, and which way. Of the others

    `others` "jump": each visits every place once, in an order that is steady neither in time nor relative to
        another one. Reordering the frames turns a draw of any class into an equally likely one of any other.
        Bayes: single frame 1/8, bag 1/8, clip 1.
    `others` "still": they rest where they are. Bayes: single frame 1/8, bag 1/2 (the pair without the
        direction), clip 1.

    The place of each at any step is uniform and independent of the others. Reversal exchanges the two classes
    of a pair.
    """

    name: ClassVar[str] = "direction"
    others: str = "jump"

    def check(self) -> None:
        if self.others not in ("jump", "still"):
            raise ValueError(f"others={self.others!r}; wanted 'jump' or 'still'; try others='jump'")
        # Four orders of which no two are turns or mirror images of each other: there are (S - 1)! / 2.
        smallest = 5 if self.others == "jump" else 3
        if self.steps < smallest:
            raise ValueError(
                f"direction: {self.steps} steps are too few for others={self.others!r}; wanted {smallest} or "
                f"more; try num_frames={smallest * self.hold}"
            )
        if self.steps > self.size // 2:
            raise ValueError(
                f"direction: {self.steps} places cannot be told apart in half of {self.size} pixels; try "
                f"size={2 * self.steps}"
            )

    @property
    def class_names(self) -> list[str]:
        return ["right", "left", "down", "up", "clockwise", "counterclockwise", "expand", "contract"]

    @property
    def partners(self) -> list[int]:
        return [1, 0, 3, 2, 5, 4, 7, 6]

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        S = self.steps
        steady = (np.arange(S) if label % 2 == 0 else -np.arange(S)) % S
        orders = [steady]
        while len(orders) < 4:
            order = np.zeros(S, dtype=np.int64) if self.others == "still" else rng.permutation(S)
            if self.others == "still" or not any(is_steady(order, other) for other in orders):
                orders.append(order)
        states = np.stack([orders[1], orders[2], orders[3]], axis=1)
        states = np.insert(states, label // 2, steady, axis=1)
        return (states + rng.integers(S, size=4)) % S

    def coverage(self, state: np.ndarray) -> Coverage:
        S, quarter = self.steps, self.size / 4
        x, y = (state[0] + 0.5) * self.size / S, (state[1] + 0.5) * 2 * quarter / S
        cover = np.zeros((self.size, self.size), dtype=np.float32)
        # The disc moves in the upper half; what leaves it on one side enters on the other.
        for dx, dy in itertools.product((-self.size, 0, self.size), (-2 * quarter, 0, 2 * quarter)):
            cover = np.maximum(cover, self._disc(x + dx, y + dy, quarter / 2))
        cover[self.size // 2 :] = 0
        angle = 2 * math.pi * state[2] / S
        dial = self._disc(
            quarter + quarter / 2 * math.cos(angle),
            3 * quarter + quarter / 2 * math.sin(angle),
            quarter * 0.35,
        )
        ripples = self._ripples(3 * quarter, 3 * quarter, radius=0.9 * quarter, phase=state[3] / S)
        return np.maximum(cover, np.maximum(dial, ripples))

    def _ripples(self, x: float, y: float, *, radius: float, phase: float) -> Coverage:
        """Rings about (x, y), 3/4 of the radius apart, that move outwards as the phase grows from 0 to 1."""
        centres = np.arange(self.size) + 0.5
        distance = np.hypot(centres[None] - x, centres[:, None] - y)
        wave = 0.5 + 0.5 * np.cos(2 * math.pi * (distance / (0.75 * radius) - phase))
        return (wave * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.float32)


def is_steady(order: np.ndarray, other: np.ndarray) -> bool:
    """Whether one order of the S places goes round as the other does, forwards or backwards."""
    S = len(order)
    along = order[np.argsort(other)]
    change = (np.roll(along, -1) - along) % S
    return bool((change == 1).all() or (change == S - 1).all())


@dataclass(frozen=True, kw_only=True)
class Order(Family):
    """D: three events (the disc red, green, blue), each of equal length; the class is their order, K = 6.

    Events last the same number of steps L, the largest for which what is left over can be blank at both ends
    alike (S = 8: 1 + 2 + 2 + 2 + 1; none for a multiple of 3). Bayes: single frame 1/2 (its place tells which
    event it is of, its hue leaves two orders; 1/6 where it is blank), bag 1/6, clip 1. Reversal reverses the
    order. Without blank steps, block_shuffle[L hold] leaves 1/6 to every observer, and local_shuffle[L hold]
    changes no frame.
    """

    name: ClassVar[str] = "order"
    EVENTS: ClassVar[tuple[str, ...]] = ("red", "green", "blue")

    def check(self) -> None:
        if self.steps < 3:
            raise ValueError(
                f"order: {self.steps} steps do not hold three events; wanted 3 or more; try "
                f"num_frames={3 * self.hold}"
            )
        if self.steps == 4:
            raise ValueError(
                "order: 4 steps are three events and one blank, which reversal would move; try "
                f"num_frames={3 * self.hold} or num_frames={5 * self.hold}"
            )

    @property
    def orders(self) -> list[tuple[int, ...]]:
        return list(itertools.permutations(range(3)))

    @property
    def event_steps(self) -> int:
        """L, steps that an event lasts."""
        longest = self.steps // 3
        return longest - (self.steps - 3 * longest) % 2

    @property
    def class_names(self) -> list[str]:
        return ["_".join(self.EVENTS[e] for e in order) for order in self.orders]

    @property
    def partners(self) -> list[int]:
        return [self.orders.index(order[::-1]) for order in self.orders]

    def draw_hue(self, label: int, rng: np.random.Generator) -> float:
        return rng.uniform(-0.04, 0.04)

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        blank = np.full((self.steps - 3 * self.event_steps) // 2, 3)
        events = np.repeat(self.orders[label], self.event_steps)
        return np.concatenate([blank, events, blank])[:, None]

    def hue(self, state: np.ndarray, look: Look) -> float:
        return look.hue + state[0] / 3

    def coverage(self, state: np.ndarray) -> Coverage:
        shown = float(state[0] < 3)
        return self._disc(self.size / 2, self.size / 2, self.size / 3) * np.float32(shown)


@dataclass(frozen=True, kw_only=True)
class Speed(Family):
    """E: a disc goes round a ring of 7 or 9 places by 1, 2 or 4 places a step, either way, from any place.

    8 is -1 modulo 9 and 1 modulo 7: doubling the rate takes slow to medium, medium to fast and fast to slow,
    halving the other way round. S is such that the ring is covered a whole number of times but for at most
    one place, so that the bag shows one place more or less often than the others and nothing else. Bayes:
    single frame 1/3, bag 1/3, clip 1, two neighbouring steps 1. Reversal keeps the class.
    """

    name: ClassVar[str] = "speed"

    def check(self) -> None:
        if not self._rings(self.steps):
            near = sorted(range(self.steps + 20), key=lambda steps: abs(steps - self.steps))
            fit = [steps for steps in near if self._rings(steps)]
            raise ValueError(
                f"speed: on a ring of 7 or 9 places the bag of {self.steps} steps tells the speed; wanted a "
                f"number that is 0, 1 or -1 modulo 7 or 9; try num_frames={fit[0] * self.hold} or "
                f"{fit[1] * self.hold}"
            )

    @staticmethod
    def _rings(steps: int) -> list[int]:
        return [ring for ring in (7, 9) if steps >= ring - 1 and steps % ring in (0, 1, ring - 1)]

    @property
    def ring(self) -> int:
        """Number of places."""
        return self._rings(self.steps)[0]

    @property
    def class_names(self) -> list[str]:
        return ["slow", "medium", "fast"]

    @property
    def partners(self) -> list[int]:
        return _itself(self)

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        step = int(rng.choice([-1, 1])) * 2**label
        return ((rng.integers(self.ring) + step * np.arange(self.steps)) % self.ring)[:, None]

    def coverage(self, state: np.ndarray) -> Coverage:
        return self._on_ring(state[0], self.ring)


@dataclass(frozen=True, kw_only=True)
class Position(Family):
    """F: an event, one step long, in the early, middle or late part of the clip, at any step of it.

    Early and late are the first and the last S // 3 steps, middle is what lies between. Bayes: single frame
    1/3 + 1/(3 n) for a part of n steps (a clip where the event is not seen is another part's), bag 1/3, clip
    1. Reversal exchanges early and late. To an observer that takes the first event it sees, and answers
    "middle" when it sees none, occluding a step of the early or the late part costs 1/(3 (S // 3)) of the
    accuracy, and any other nothing (S >= 6): a known occlusion curve.
    """

    name: ClassVar[str] = "position"

    def check(self) -> None:
        if self.steps < 3:
            raise ValueError(
                f"position: {self.steps} steps have no early, middle and late part; wanted 3 or more; try "
                f"num_frames={3 * self.hold}"
            )

    @property
    def class_names(self) -> list[str]:
        return ["early", "middle", "late"]

    @property
    def partners(self) -> list[int]:
        return [2, 1, 0]

    @property
    def parts(self) -> list[range]:
        """Steps of the early, the middle and the late part."""
        third = self.steps // 3
        return [range(third), range(third, self.steps - third), range(self.steps - third, self.steps)]

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        states = np.zeros((self.steps, 1), dtype=np.int64)
        states[rng.choice(self.parts[label])] = 1
        return states

    def coverage(self, state: np.ndarray) -> Coverage:
        return self._disc(self.size / 2, self.size / 2, self.size / 3) * np.float32(state[0])


@dataclass(frozen=True, kw_only=True)
class Range(Family):
    """G: a disc on the left or on the right; steps t and t + `distance` are equal throughout, or different.

    The first `distance` steps are fair coins, and so are any steps of which no two lie an odd multiple of
    `distance` apart: they tell nothing, in whatever order. Bayes: single frame 1/2, `distance` steps in a row
    1/2, clip 1. The bag does tell something, by how often each side occurs: for S = 2 distance,
    1 - C(distance, distance / 2) / 2^(distance + 1) if the distance is even, and 1 if it is odd. Reversal
    keeps the class.
    """

    name: ClassVar[str] = "range"
    distance: int = 4

    def check(self) -> None:
        if not 1 <= self.distance < self.steps:
            raise ValueError(
                f"range: distance={self.distance} does not fit into {self.steps} steps; wanted 1 to "
                f"{self.steps - 1}; try distance={max(self.steps // 2, 1)}"
                + (f" with num_frames={2 * self.hold}" if self.steps < 2 else "")
            )

    @property
    def class_names(self) -> list[str]:
        return ["same", "different"]

    @property
    def partners(self) -> list[int]:
        return _itself(self)

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        first = rng.integers(2, size=self.distance)
        turn, place = np.divmod(np.arange(self.steps), self.distance)
        return ((first[place] + label * turn) % 2)[:, None]

    def coverage(self, state: np.ndarray) -> Coverage:
        return self._disc((0.25 + 0.5 * state[0]) * self.size, self.size / 2, self.size / 6)


@dataclass(frozen=True, kw_only=True)
class Confounded(Family):
    """H: a disc goes round a ring of S places, one a step; the class is which way, and a hue betrays it.

    The hue is that of the class with probability (1 + rho) / 2, so that rho is their correlation. Test clips
    (`held_out`) have rho 0. Bayes: single frame and bag (1 + rho) / 2, clip 1. Reversal exchanges the classes
    and keeps the hue, so that a reversed clip is as likely a draw of the partner only if rho is 0.
    """

    name: ClassVar[str] = "confounded"
    HUES: ClassVar[tuple[float, float]] = (0.08, 0.6)  # orange goes clockwise, blue counterclockwise
    rho: float = 0.9

    def check(self) -> None:
        if not 0 <= self.rho <= 1:
            raise ValueError(f"confounded: rho={self.rho}; wanted a correlation of 0 to 1; try rho=0.9")
        _check_clock(self)

    @property
    def class_names(self) -> list[str]:
        return ["clockwise", "counterclockwise"]

    @property
    def partners(self) -> list[int]:
        return [1, 0]

    def held_out(self) -> Confounded:
        return replace(self, rho=0.0)

    def draw_hue(self, label: int, rng: np.random.Generator) -> float:
        agrees = rng.uniform() < (1 + self.rho) / 2
        return self.HUES[label if agrees else 1 - label] + rng.uniform(-0.03, 0.03)

    def draw_states(self, label: int, rng: np.random.Generator) -> np.ndarray:
        return _turn(self.steps, 1 if label == 0 else -1, rng)

    def coverage(self, state: np.ndarray) -> Coverage:
        return self._on_ring(state[0], self.steps)
