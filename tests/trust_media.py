"""What the readers make of damaged files: each is read as a test item with all its views.

`decoded`: clips of the right length and no sign of damage. `repaired`: clips of the right length, and the
file is named as damaged. `failed`: counted and named with a reason. Anything else is broken: another
exception, a crash, a hang, clips of another length.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.mutants import Mutant

NUM_VIEWS, NUM_FRAMES, SHORT_SIDE = 2, 8, 64
# Mean difference of a frame, in grey levels, from which it is another than the sound file's.
OTHER = 4.0
SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """outcome: "decoded", "repaired", "failed" or "broken"; reason: what was said of it. megabytes: peak
    above what the process held before. is_other: whether frames differ from the sound file's at the same
    places. is_found: whether data_prep/verify.py then finds the damage."""

    outcome: str
    reason: str
    seconds: float
    megabytes: float
    is_other: bool = False
    is_found: bool = False


def examine(mutant: Mutant, *, backend: str) -> Outcome:
    """Read one file, as testing does."""
    before = _reset_peak()
    started = time.perf_counter()
    clip: np.ndarray | None = None
    try:
        outcome, reason, clip = _read(mutant.path, backend)
    except BaseException as error:
        outcome, reason = "broken", " ".join(f"{type(error).__name__}: {error}".split())[:300]
    seconds, peak = time.perf_counter() - started, _peak() - before
    is_other = False
    if clip is not None and mutant.base:
        clean = _clean_clip(mutant.base, backend)
        is_other = clean is not None and _differs(clip, clean)
    is_found = is_other and outcome == "decoded" and _verify(mutant.path) != "ok"
    return Outcome(outcome, reason, seconds, peak / 1e6, is_other, is_found)


def _verify(path: str) -> str:
    from data_prep.verify import check_video

    return check_video(path, min_frames=2, min_seconds=0.0)["status"]


def _read(path: str, backend: str) -> tuple[str, str, np.ndarray | None]:
    from vidformers.data.datasets.clips import TestVideos
    from vidformers.data.records import Record

    videos = TestVideos(
        [Record(path, 0, path)],
        num_frames=NUM_FRAMES,
        sampling_rate=4,
        num_views=NUM_VIEWS,
        num_crops=1,
        short_side=SHORT_SIDE,
        crop_size=SHORT_SIDE,
        backend=backend,
        read_timeout=SECONDS,
    )
    item = videos[0]
    if item.failure is not None:
        return "failed", item.failure[0], None
    if item.view_index.shape != (NUM_VIEWS, NUM_FRAMES) or not len(item.frames):
        return "broken", f"wrong length {tuple(item.view_index.shape)}, {len(item.frames)} frames", None
    if not (item.view_index.min() >= 0 and item.view_index.max() < len(item.frames)):
        return "broken", "indices outside the clip", None
    if min(item.frames.shape[1:3]) != SHORT_SIDE or item.frames.shape[3] != 3:
        return "broken", f"frames of {tuple(item.frames.shape)}", None
    clip = item.frames[item.view_index].numpy()
    return ("repaired", item.damage, clip) if item.damage else ("decoded", "", clip)


@functools.cache
def _clean_clip(base: str, backend: str) -> np.ndarray | None:
    return _read(base, backend)[2]


def _differs(clip: np.ndarray, clean: np.ndarray) -> bool:
    if clip.shape != clean.shape:
        return True
    difference = np.abs(clip.astype(np.int16) - clean.astype(np.int16))
    return bool(difference.mean(axis=(2, 3, 4)).max() > OTHER)


def _status(name: str) -> int:
    """Bytes of this process by /proc; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return 1024 * int(Path("/proc/self/status").read_text().partition(name)[2].split()[0])


def _reset_peak() -> int:
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # see proc_pid_clear_refs(5)
    return _status("VmRSS:")


def _peak() -> int:
    return _status("VmHWM:")


def examine_all(
    mutants: Iterable[Mutant], *, backend: str, num_workers: int, show_progress: bool
) -> list[tuple[Mutant, Outcome]]:
    """All of them, whatever they do to the processes that read them."""
    from tqdm import tqdm

    from vidformers.data.prepare.isolated import WorkerFailure, run_isolated

    mutants = list(mutants)
    results = []
    with tqdm(total=len(mutants), desc=backend, unit="file", disable=not show_progress) as bar:
        for mutant, outcome in run_isolated(
            functools.partial(examine, backend=backend),
            mutants,
            num_workers=num_workers,
            time_limit=2 * SECONDS,
        ):
            if isinstance(outcome, WorkerFailure):  # "crashed", "timeout"
                outcome = Outcome("broken", f"{outcome.reason}: {outcome.detail}", 2 * SECONDS, 0.0)
            results.append((mutant, outcome))
            bar.update()
    return results


def table(backend: str, results: Sequence[tuple[Mutant, Outcome]]) -> dict[str, object]:
    """A backend's figures."""
    outcomes = [outcome for _, outcome in results]
    count = Counter(outcome.outcome for outcome in outcomes)
    slowest, largest = max(o.seconds for o in outcomes), max(o.megabytes for o in outcomes)
    return {
        "backend": backend,
        "files": len(outcomes),
        "decoded": count["decoded"],
        "decoded_other": sum(o.is_other for o in outcomes if o.outcome == "decoded"),
        "decoded_other_found": sum(o.is_found for o in outcomes),
        "repaired": count["repaired"],
        "failed": count["failed"],
        "reasons": dict(Counter(o.reason for o in outcomes if o.outcome == "failed").most_common()),
        "broken": [
            {**asdict(mutant), "reason": outcome.reason}
            for mutant, outcome in results
            if outcome.outcome == "broken"
        ],
        "slowest_seconds": round(slowest, 2),
        "largest_megabytes": round(largest, 1),
        "kinds": {
            kind: dict(Counter(o.outcome for m, o in results if _group(m) == kind))
            for kind in dict.fromkeys(_group(mutant) for mutant, _ in results)
        },
    }


def _group(mutant: Mutant) -> str:
    return mutant.kind if mutant.base else "no video at all: text, sound, a directory, ..."
