"""A family of clips as real video files: a folder that the kinetics format reads, with classes.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from vidformers.data.motion import SPLITS, write_video
from vidformers.data.temporal_families.base import Family

FPS = 30  # DATA.TARGET_FPS by default: at sampling rate 1 a model gets every frame
# Every frame is coded by itself and with the same quantiser, so that a decoded frame too is a function of its
# step's state and the clip's look alone: nothing of its neighbours, and so nothing of the order, leaks in.
X264_OPTIONS = {"qp": "10", "g": "1", "preset": "veryfast"}


def write_family(
    directory: str | os.PathLike[str],
    family: Family,
    *,
    videos_per_class: Mapping[str, int],
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write train, val and test videos of a family to a new folder, and return its absolute path.

    It holds {train,val,test}.csv (`path label`, paths relative to it), classes.json (label, name, group,
    reversed), family.json (all settings) and videos/<split>/*.mp4, and appears under its name only when it is
    complete. Test clips are drawn from `family.held_out()`.

    Raises FileExistsError for a folder that is there already, ValueError for a size that H.264 cannot have or
    a number of videos below 1.
    """
    from tqdm import tqdm

    final = Path(directory).absolute()
    if final.exists():
        raise FileExistsError(f"{final} exists; wanted a new folder; try another name, or remove it first")
    if family.size % 2:
        raise ValueError(
            f"size={family.size} is odd; wanted an even one, as H.264 stores colour for 2 x 2 pixels; try "
            f"size={family.size + 1}"
        )
    counts = {split: videos_per_class.get(split, 0) for split in SPLITS}
    if min(counts.values()) < 1 or set(videos_per_class) - set(SPLITS):
        raise ValueError(
            f"videos_per_class={dict(videos_per_class)}; wanted a number >= 1 for each of "
            f"{', '.join(SPLITS)}; try 10"
        )
    partial = final.with_name(f"{final.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    names = family.class_names
    with tqdm(
        total=len(names) * sum(counts.values()), desc=family.name, unit="video", disable=not progress
    ) as bar:
        for split in SPLITS:
            drawn_from = family.held_out() if split == "test" else family
            (partial / "videos" / split).mkdir(parents=True)
            rows = []
            for index in range(counts[split] * len(names)):
                frames, label = drawn_from.clip(seed=seed, index=index, split=split)
                path = f"videos/{split}/{index:05d}.mp4"
                write_video(partial / path, frames, fps=FPS, x264_options=X264_OPTIONS)
                rows.append(f"{path} {label}\n")
                bar.update()
            (partial / f"{split}.csv").write_text("".join(rows))
    entries = [
        {"label": label, "name": name, "group": family.name, "reversed": names[partner]}
        for label, (name, partner) in enumerate(zip(names, family.partners, strict=True))
    ]
    settings = {"family": family.name, **asdict(family), "seed": seed, "videos_per_class": counts, "fps": FPS}
    (partial / "classes.json").write_text(json.dumps({"classes": entries}, indent=1) + "\n")
    (partial / "family.json").write_text(json.dumps(settings, indent=1) + "\n")
    partial.rename(final)
    return final
