"""Temporal perturbations as index maps: which frame of a clip is shown at each of its positions.

A perturbation is named by a text such as "shuffle", "block_shuffle[4]" or "freeze[middle]". With "@tubelet"
behind it, it moves whole tubelets (the frames that the model's patch embedding merges) and leaves the frames
within one in order; without, it moves frames. `index_map` is pure arithmetic on positions 0..T-1: the
decoder, the views and the transforms never see it. Names of the field: "What Makes a Video a Video" (Huang et
al. 2018), "Only Time Can Tell" (Sevilla-Lara et al. 2021), MViT (Fan et al. 2021, Table 9).

Legend: T frames of a clip, n units (frames, or tubelets) of a clip.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Argument = int | float | str


@dataclass(frozen=True)
class Kind:
    """What a name means. build(n, *arguments, generator) -> int64 (n,), positions of the units shown.

    check(n, *arguments) returns why the perturbation is meaningless for n units, or "".
    """

    usage: str
    meaning: str
    parameters: tuple[type, ...]
    build: Callable[..., np.ndarray]
    check: Callable[..., str]
    is_random: bool = False
    moves_units: bool = True  # False: it acts on pixels or source frames, so "@tubelet" means nothing


def _identity(n: int, *_: Argument, generator: np.random.Generator) -> np.ndarray:
    return np.arange(n)


def _shuffle(n: int, *, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(n)


def _block_shuffle(n: int, size: int, *, generator: np.random.Generator) -> np.ndarray:
    blocks = np.split(np.arange(n), range(size, n, size))
    return np.concatenate([blocks[i] for i in generator.permutation(len(blocks))])


def _local_shuffle(n: int, window: int, *, generator: np.random.Generator) -> np.ndarray:
    return np.concatenate(
        [generator.permutation(w) for w in np.split(np.arange(n), range(window, n, window))]
    )


def _interleave(n: int, *, generator: np.random.Generator) -> np.ndarray:
    return np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)])


def _freeze_position(n: int, where: Argument) -> int:
    return {"first": 0, "middle": n // 2, "last": n - 1}[where] if isinstance(where, str) else int(where)


def _freeze(n: int, where: Argument, *, generator: np.random.Generator) -> np.ndarray:
    return np.full(n, _freeze_position(n, where))


def _drop(n: int, share: float, *, generator: np.random.Generator) -> np.ndarray:
    kept = np.sort(generator.permutation(n)[round(share * n) :])
    # A dropped unit shows the last kept one before it (the first kept one at the start).
    return kept[np.maximum(np.searchsorted(kept, np.arange(n), side="right") - 1, 0)]


def _crop(n: int, start: int, length: int, *, generator: np.random.Generator) -> np.ndarray:
    return np.clip(np.arange(n), start, start + length - 1)


def _occlude(n: int, position: int, *, generator: np.random.Generator) -> np.ndarray:
    units = np.arange(n)
    units[position] = position - 1 if position else 1
    return units


def _palindrome(n: int, *, generator: np.random.Generator) -> np.ndarray:
    return np.minimum(np.arange(n), np.arange(n)[::-1])


def _at_least(smallest: int) -> Callable[..., str]:
    return lambda n, *_: "" if n >= smallest else f"it needs at least {smallest}"


def _between(low: int, high: Callable[[int], int], what: str) -> Callable[..., str]:
    """A whole number between `low` and high(n), called `what` in the message."""

    def check(n: int, value: int) -> str:
        if low <= value <= high(n):
            return ""
        if high(n) < low:
            return f"no {what} makes sense for so few"
        return f"the {what} must be {low} to {high(n)}"

    return check


def _check_freeze(n: int, where: Argument) -> str:
    if n < 2:
        return "it needs at least 2"
    if isinstance(where, str):
        return "" if where in FREEZE_PLACES else f"the frame must be {', '.join(FREEZE_PLACES)} or a number"
    return "" if 0 <= where < n else f"the position must be 0 to {n - 1}"


def _check_crop(n: int, start: int, length: int) -> str:
    if start >= 0 and 1 <= length < n and start + length <= n:
        return ""
    return f"start >= 0, 1 <= length < {n} and start + length <= {n} must hold"


def _check_share(n: int, share: float) -> str:
    if 0 < share < 1 and 1 <= round(share * n) < n:
        return ""
    return "the share must be between 0 and 1, and leave out at least one and keep at least one"


def _check_splice(n: int, share: float, donor: str) -> str:
    if donor not in ("same", "other"):
        return "the donor must be of the 'same' class or of an 'other' one"
    return _check_share(n, share)


def _check_speed(n: int, factor: float) -> str:
    if not (math.isfinite(factor) and factor > 0 and factor != 1):
        return "the factor must be positive and not 1"
    return "" if n >= 2 else "it needs at least 2"


FREEZE_PLACES = ("first", "middle", "last", "best", "worst")

KINDS: dict[str, Kind] = {
    "identity": Kind("identity", "control: nothing changes", (), _identity, lambda n: "", moves_units=False),
    "shuffle": Kind("shuffle", "all orders alike", (), _shuffle, _at_least(2), is_random=True),
    "block_shuffle": Kind(
        "block_shuffle[k]",
        "blocks of k in random order, order within a block kept: long range destroyed",
        (int,),
        _block_shuffle,
        _between(1, lambda n: n - 1, "block size"),
        is_random=True,
    ),
    "local_shuffle": Kind(
        "local_shuffle[w]",
        "random order within windows of w, windows kept in place: short range destroyed",
        (int,),
        _local_shuffle,
        _between(2, lambda n: n, "window"),
        is_random=True,
    ),
    "reverse": Kind("reverse", "backwards", (), lambda n, generator: np.arange(n)[::-1], _at_least(2)),
    "swap_halves": Kind(
        "swap_halves",
        "second half first",
        (),
        lambda n, generator: np.roll(np.arange(n), -(n // 2)),
        _at_least(2),
    ),
    "rotate": Kind(
        "rotate[r]",
        "cyclic shift: starts at position r",
        (int,),
        lambda n, by, generator: np.roll(np.arange(n), -by),
        _between(1, lambda n: n - 1, "shift"),
    ),
    "interleave": Kind(
        "interleave", "positions 0, 2, 4, ..., then 1, 3, 5, ...", (), _interleave, _at_least(3)
    ),
    "freeze": Kind(
        "freeze[first|middle|last|position|best|worst]",
        "one frame throughout; best and worst: by the probability of the true class, an oracle",
        (str,),
        _freeze,
        _check_freeze,
    ),
    "repeat": Kind(
        "repeat[k]",
        "sample and hold: every k-th, shown k times",
        (int,),
        lambda n, k, generator: np.arange(n) // k * k,
        _between(2, lambda n: n, "hold"),
    ),
    "subsample": Kind(
        "subsample[s]",
        "every s-th, starting over at the end of the clip",
        (int,),
        lambda n, step, generator: np.arange(n) * step % n,
        _between(2, lambda n: n - 1, "step"),
    ),
    "speed": Kind(
        "speed[x]",
        "x times as fast about the clip's middle: other frames of the video, held at its ends",
        (float,),
        _identity,
        _check_speed,
        moves_units=False,
    ),
    "drop": Kind(
        "drop[share]",
        "a random share lost, the last one before it shown instead",
        (float,),
        _drop,
        _check_share,
        is_random=True,
    ),
    "crop": Kind(
        "crop[start,length]",
        "nothing but positions start to start + length - 1: the first and last of them held outside",
        (int, int),
        _crop,
        _check_crop,
    ),
    "occlude": Kind(
        "occlude[position]",
        "one position shows its neighbour; 'occlude' alone stands for every position in turn",
        (int,),
        _occlude,
        lambda n, at: "it needs at least 2" if n < 2 else _between(0, lambda n: n - 1, "position")(n, at),
    ),
    "palindrome": Kind(
        "palindrome", "the first half forwards, then backwards", (), _palindrome, _at_least(3)
    ),
    "splice": Kind(
        "splice[share,same|other]",
        "from that share of the clip on, another video of the same or of another class",
        (float, str),
        _identity,
        _check_splice,
    ),
    "hflip": Kind("hflip", "control: mirrored", (), _identity, lambda n: "", moves_units=False),
    "noise": Kind(
        "noise[perturbation]",
        "control: white noise of the pixel distance (root mean square) that the named perturbation causes",
        (str,),
        _identity,
        lambda n, name: "",
        is_random=True,
        moves_units=False,
    ),
}

_SYNTAX = re.compile(r"(?P<kind>\w+)(?:\[(?P<arguments>.*)\])?(?P<unit>@tubelet)?")


@dataclass(frozen=True)
class Perturbation:
    """One perturbation; make it with `parse_perturbation`. `name` is its canonical text."""

    kind: str
    arguments: tuple[Argument, ...] = ()
    by_tubelet: bool = False

    @property
    def name(self) -> str:
        inner = ",".join(f"{a:g}" if isinstance(a, float) else str(a) for a in self.arguments)
        return self.kind + (f"[{inner}]" if inner else "") + ("@tubelet" if self.by_tubelet else "")

    @property
    def is_random(self) -> bool:
        """Whether it is drawn anew for each (video, view, draw)."""
        return KINDS[self.kind].is_random

    @property
    def is_oracle(self) -> bool:
        """freeze[best] and freeze[worst]: chosen among all frozen clips once they are scored."""
        return self.kind == "freeze" and self.arguments[0] in ("best", "worst")

    def check(self, *, num_frames: int, tubelet: int) -> None:
        """Raise ValueError when the perturbation is meaningless for clips of `num_frames` frames, of which
        the model merges `tubelet` at a time."""
        n, unit = num_frames, "frames"
        if self.by_tubelet:
            if tubelet < 2:
                raise ValueError(
                    f"{self.name}: this model merges no frames (temporal patch stride {tubelet}), so that "
                    f"tubelets are frames; use {self.name.removesuffix('@tubelet')}"
                )
            if num_frames % tubelet:
                raise ValueError(
                    f"{self.name}: a clip of {num_frames} frames is not a whole number of tubelets of "
                    f"{tubelet}; use {num_frames // tubelet * tubelet} frames, or "
                    f"{self.name.removesuffix('@tubelet')}"
                )
            n, unit = num_frames // tubelet, f"tubelets of {tubelet} frames"
        if self.kind == "noise":
            parse_perturbation(str(self.arguments[0])).check(num_frames=num_frames, tubelet=tubelet)
        if reason := KINDS[self.kind].check(n, *self.arguments):
            raise ValueError(
                f"{self.name} means nothing for a clip of {n} {unit}: {reason}. Leave it out of the "
                "perturbations, or use longer clips."
            )

    def index_map(self, *, num_frames: int, tubelet: int, generator: np.random.Generator) -> np.ndarray:
        """Position of the clip shown at each position, int64 (T,). Raises ValueError as `check`.

        The kinds that do not move positions (identity, speed, splice, hflip, noise) give 0..T-1; an oracle
        has no map of its own (ValueError).
        """
        self.check(num_frames=num_frames, tubelet=tubelet)
        if self.is_oracle:
            raise ValueError(f"{self.name} is chosen among the positions by their scores; it has no map")
        build = KINDS[self.kind].build
        size = tubelet if self.by_tubelet else 1
        units = build(num_frames // size, *self.arguments, generator=generator)
        # (n,) -> (n, size) -> (T,)
        return (units[:, None] * size + np.arange(size)).reshape(-1).astype(np.int64)

    def donor_start(self, *, num_frames: int, tubelet: int) -> int:
        """First position that a splice takes from the donor video; T for every other kind."""
        if self.kind != "splice":
            return num_frames
        size = tubelet if self.by_tubelet else 1
        return round(float(self.arguments[0]) * (num_frames // size)) * size


def parse_perturbation(text: str) -> Perturbation:
    """The perturbation that a text names. Raises ValueError that lists the known ones."""
    match = _SYNTAX.fullmatch(text.strip())
    kind = match["kind"] if match else text
    if match is None or kind not in KINDS:
        known = "; ".join(f"{k.usage} ({k.meaning})" for k in KINDS.values())
        guess = difflib.get_close_matches(kind.partition("[")[0], KINDS, n=1)
        hint = f" (did you mean {KINDS[guess[0]].usage}?)" if guess else ""
        raise ValueError(
            f"unknown perturbation {text!r}{hint}. Known: {known}; 'name@tubelet' moves whole tubelets."
        )
    rule = KINDS[kind]
    given = [a.strip() for a in (match["arguments"] or "").split(",")] if match["arguments"] else []
    if kind == "noise" and match["arguments"]:
        given = [match["arguments"]]  # its argument is a perturbation, which may have arguments of its own
    if len(given) != len(rule.parameters):
        raise ValueError(f"{text!r} has {len(given)} arguments; write it as {rule.usage}")
    if match["unit"] and not rule.moves_units:
        raise ValueError(f"{text!r}: {kind} does not move positions, so that @tubelet has no meaning")
    try:
        arguments = tuple(
            int(a) if kind == "freeze" and a.lstrip("-").isdigit() else to(a)
            for a, to in zip(given, rule.parameters, strict=True)
        )
    except ValueError:
        raise ValueError(f"{text!r} has an argument of the wrong kind; write it as {rule.usage}") from None
    if kind == "noise":
        matched = parse_perturbation(str(arguments[0]))
        if matched.kind in ("identity", "hflip", "noise", "splice", "speed") or matched.is_oracle:
            raise ValueError(
                f"{text!r}: noise can match a perturbation that moves positions, as noise[shuffle]"
            )
        arguments = (matched.name,)
    return Perturbation(kind, arguments, by_tubelet=bool(match["unit"]))


def parse_perturbations(texts: Sequence[str], *, num_frames: int, tubelet: int) -> list[Perturbation]:
    """All perturbations that the texts name, each checked and once, "occlude" spread over its positions."""
    parsed: list[Perturbation] = []
    for text in texts:
        kind, _, unit = text.strip().partition("@")
        if kind == "occlude":
            # A clip that is no whole number of tubelets still gets one entry, which `check` refuses.
            size = tubelet if unit else 1
            names = [
                f"occlude[{i}]{'@' + unit if unit else ''}" for i in range(max(num_frames // max(size, 1), 1))
            ]
        else:
            names = [text]
        parsed += [parse_perturbation(name) for name in names]
    for perturbation in parsed:
        perturbation.check(num_frames=num_frames, tubelet=tubelet)
    return list(dict.fromkeys(parsed))


def draw_generator(*, seed: int, video_id: str, view: int, draw: int) -> np.random.Generator:
    """The randomness of one draw: the same whatever the batch, the order and the number of processes."""
    digest = hashlib.sha256(f"{seed}\0{video_id}\0{view}\0{draw}".encode()).digest()
    return np.random.default_rng(list(np.frombuffer(digest, dtype=np.uint32)))


def displacement(index_map: np.ndarray) -> float:
    """Kendall tau distance to the clip's own order: the share of pairs of positions shown the wrong way
    round.

    0 for an order that is kept (frozen and held clips included), 1 for the reverse, 1/2 for a shuffle on
    average.
    """
    n = len(index_map)
    earlier, later = np.triu_indices(n, k=1)
    return float((index_map[earlier] > index_map[later]).mean()) if n > 1 else 0.0


def donors(labels: np.ndarray, donor: str, *, seed: int) -> np.ndarray:
    """(N,) index of the video that each splice takes its second part from, drawn once for all videos.

    donor "same": another video of the class; "other": a video of another class. No video is its own donor and
    none is donor twice, so that donors are as balanced as the list. Raises ValueError when the labels do not
    allow that.
    """
    rng = np.random.default_rng([seed, 0 if donor == "same" else 1])
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]  # classes in blocks, random within
    counts = np.unique(labels, return_counts=True)[1]
    chosen = np.empty(len(labels), dtype=np.int64)
    if donor == "same":
        if counts.min() < 2:
            raise ValueError("splice[..,same] needs two videos of every class; a class has only one")
        for block in np.split(by_class, np.cumsum(counts)[:-1]):
            chosen[block] = np.roll(block, -1)
    else:
        if 2 * counts.max() > len(labels):
            raise ValueError("splice[..,other]: more than half of the videos are of one class")
        # A shift by the largest class leads every video out of its own block.
        chosen[by_class] = np.roll(by_class, -counts.max())
    return chosen
