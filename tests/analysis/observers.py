"""Models whose answers are known beforehand, clips (B, 3, T, H, W) -> logits (B, K).

They read the states of a temporal family off the pixels, by its own templates, and answer by a rule. Where a
rule leaves several classes equal, one of them is taken by a hash of what was read: the same for the same
clip, and as often the one as the other.
"""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vidformers.data.temporal_families import Family
from vidformers.data.temporal_families.families import Direction, coprime_steps


def match(pictures: Tensor, templates: Tensor) -> Tensor:
    """(B, 3, T, h, w), (P, h, w) -> number of the template most like each frame's brightness, (B, T)."""
    seen = pictures.amax(dim=1).flatten(2)
    seen = seen - seen.mean(dim=2, keepdim=True)
    wanted = templates.flatten(1)
    wanted = wanted - wanted.mean(dim=1, keepdim=True)
    return torch.einsum("btn,pn->btp", seen, wanted / wanted.norm(dim=1, keepdim=True)).argmax(dim=2)


def templates_of(family: Family, states: Sequence[Sequence[int]]) -> Tensor:
    return torch.from_numpy(np.stack([family.coverage(np.array(state)) for state in states]))


def settle_ties(evidence: Tensor, read: Tensor) -> Tensor:
    """Evidence (B, K) in steps of 0.01 or more, plus up to 0.001 by the hash of what was read, (B, ...)."""
    noise = []
    for row in read:
        digest = hashlib.sha256(row.contiguous().numpy().tobytes()).digest()
        noise.append(np.random.default_rng(list(digest)).random(evidence.shape[1]))
    return evidence + 0.001 * torch.from_numpy(np.stack(noise)).to(evidence.dtype)


def count_steps(positions: Tensor, steps: Sequence[int], places: int) -> Tensor:
    """(B, T) places on a ring -> how often each of `steps` leads from one to the next, (B, len(steps))."""
    moves = positions.diff(dim=1) % places
    return torch.stack([(moves == step % places).sum(dim=1) for step in steps], dim=1).float()


class RingObserver(nn.Module):
    """Reads the place of the disc on a ring at every step of the clip; subclasses say what follows."""

    def __init__(self, family: Family, places: int):
        super().__init__()
        self.places = places
        self.hold = family.hold
        self.templates = templates_of(family, [[place] for place in range(places)])

    def forward(self, clip: Tensor) -> Tensor:
        positions = match(clip[:, :, :: self.hold], self.templates)
        return settle_ties(self.evidence(clip, positions), positions)

    def evidence(self, clip: Tensor, positions: Tensor) -> Tensor:
        raise NotImplementedError


class IdealClock(RingObserver):
    """The most frequent step between neighbours: the best there is for the clean `clock`."""

    def __init__(self, family: Family):
        super().__init__(family, family.steps)

    def evidence(self, clip: Tensor, positions: Tensor) -> Tensor:
        return count_steps(positions, coprime_steps(self.places), self.places)


class FixedStride(IdealClock):
    """A shortcut: the step between the first two frames, the rest unseen."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip[:, :, :2])


class PlaceInOneFrame(RingObserver):
    """The class is the place of the disc in one frame: `at` 0 is the first, -1 the last."""

    def __init__(self, family: Family, at: int):
        super().__init__(family, family.steps)
        self.at = at

    def forward(self, clip: Tensor) -> Tensor:
        return nn.functional.one_hot(match(clip, self.templates)[:, self.at], self.places).float()


class SpeedOracle(RingObserver):
    """The most frequent step of `speed`, whichever way."""

    def evidence(self, clip: Tensor, positions: Tensor) -> Tensor:
        ways = count_steps(positions, [1, 2, 4, -1, -2, -4], self.places)
        return ways[:, :3] + ways[:, 3:]


class ColourAndMotion(RingObserver):
    """`confounded`: the share of steps forwards less that backwards, and the hue with a weight."""

    def __init__(self, family: Family, weight: float):
        super().__init__(family, family.steps)
        self.weight = weight

    def evidence(self, clip: Tensor, positions: Tensor) -> Tensor:
        forwards, backwards = count_steps(positions, [1, -1], self.places).unbind(dim=1)
        red, _, blue = clip.amax(dim=(2, 3, 4)).unbind(dim=1)
        lead = (forwards - backwards) / (positions.shape[1] - 1) + self.weight * (red - blue).sign()
        return torch.stack([lead, -lead], dim=1)


class DirectionOracle(nn.Module):
    """Frame differences of each thing of `direction`: which of the eight turns by one place most often."""

    def __init__(self, family: Direction):
        super().__init__()
        self.places = S = family.steps
        self.half = family.size // 2
        disc = templates_of(family, [[x, y, 0, 0] for x, y in itertools.product(range(S), repeat=2)])
        self.disc = disc[:, : self.half]
        self.dial = templates_of(family, [[0, 0, a, 0] for a in range(S)])[:, self.half :, : self.half]
        self.ripples = templates_of(family, [[0, 0, 0, r] for r in range(S)])[:, self.half :, self.half :]

    def forward(self, clip: Tensor) -> Tensor:
        upper, lower = clip.split(self.half, dim=3)
        disc = match(upper, self.disc)
        read = torch.stack(
            [
                disc // self.places,
                disc % self.places,
                match(lower[..., : self.half], self.dial),
                match(lower[..., self.half :], self.ripples),
            ],
            dim=1,
        )  # (B, 4, T)
        evidence = torch.cat([count_steps(read[:, i], [1, -1], self.places) for i in range(4)], dim=1)
        return settle_ties(evidence, read)


class OrderOracle(nn.Module):
    """The most frequent hue of each third of `order`, and the orders that agree with the most of them."""

    def __init__(self, family: Family):
        super().__init__()
        self.orders = torch.tensor(list(itertools.permutations(range(3))))

    def forward(self, clip: Tensor) -> Tensor:
        hues = clip.amax(dim=(3, 4)).argmax(dim=1)  # (B, T)
        thirds = torch.stack([part.mode(dim=1).values for part in hues.chunk(3, dim=1)], dim=1)
        return settle_ties((thirds[:, None] == self.orders).sum(dim=2).float(), hues)


class FirstEvent(nn.Module):
    """`position`: the part of the clip where something is first seen; the middle if nothing ever is."""

    def __init__(self, family: Family):
        super().__init__()
        third = family.steps // 3
        self.part = torch.tensor([0] * third + [1] * (family.steps - 2 * third) + [2] * third + [1])

    def forward(self, clip: Tensor) -> Tensor:
        seen = clip.amax(dim=(1, 3, 4)) - clip.amin(dim=(1, 3, 4)) > 1  # (B, T)
        first = torch.where(seen.any(dim=1), seen.int().argmax(dim=1), len(self.part) - 1)
        return nn.functional.one_hot(self.part[first], 3).float()


class LagObserver(nn.Module):
    """`range`: whether most pairs of frames `distance` apart show the same side."""

    def __init__(self, distance: int):
        super().__init__()
        self.distance = distance

    def forward(self, clip: Tensor) -> Tensor:
        bright = clip.amax(dim=(1, 3))  # (B, T, W)
        sides = (bright.argmax(dim=2) >= bright.shape[2] // 2).long()
        return settle_ties(self.evidence(sides), sides)

    def evidence(self, sides: Tensor) -> Tensor:
        same = (sides[:, self.distance :] == sides[:, : -self.distance]).float().mean(dim=1)
        return torch.stack([same, 1 - same], dim=1)


class MeanOfFrames(nn.Module):
    """A random function of each frame alone, averaged: a bag of frames.

    A frame's values are whole numbers over 1024, so that their sum is exact in whatever order.
    """

    def __init__(self, num_pixels: int, num_classes: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(num_pixels, 32, generator=generator) / num_pixels**0.5
        self.second = torch.randn(32, num_classes, generator=generator)

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.transpose(1, 2).flatten(2).double()  # (B, T, 3*H*W)
        logits = (frames @ self.first.double()).sin() @ self.second.double()
        return (logits * 1024).round().mean(dim=1).float() / 1024


class HashOfClip(nn.Module):
    """Answers at random, the same to the same clip."""

    def __init__(self, num_classes: int, seed: int):
        super().__init__()
        self.num_classes = num_classes
        self.seed = seed

    def forward(self, clip: Tensor) -> Tensor:
        key = torch.cat([clip.flatten(1), torch.full((len(clip), 1), float(self.seed))], dim=1)
        return 1000 * settle_ties(torch.zeros(len(clip), self.num_classes), key)
