"""Pack a dataset into WebDataset shards, tar files of about a gigabyte in place of many small files:

    python data_prep/shards.py /data/k400_256/lists /data/k400_shards --dataset kinetics

Reads any dataset that TRAIN.DATASET knows, and writes train/shard-000000.tar, ..., the same for val and test
(not for test if its list is that of val), and index.json beside the shards. TRAIN.DATASET webdataset trains
and tests on them with the same clips as on the files. A sample is `key.mp4` (the file's bytes, as they are)
and `key.json`: label, video_id, and the position in the list. Their order is shuffled by --seed, for programs
that read shards from front to back.

A split is written to train.part/, a shard at a time; the folder gets its name when all is there. The same
command goes on where one was stopped. Videos that are not there are left out, named in missing.csv.
Shards from elsewhere are read too, and scanned at each start of a run; --index does that once and for all:

    python data_prep/shards.py /data/other_shards/train --index

Needs the extra `webdataset`. Exit code: 0 all is there, 1 videos are missing, 2 wrong usage.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidformers.data.datasets import DATASETS
from vidformers.data.datasets.webdataset import (
    INDEX_NAME,
    SHARD_SUFFIX,
    Sample,
    Shard,
    scan_shard,
    shard_files,
    write_index_text,
)
from vidformers.data.paths import path_manager
from vidformers.data.prepare.inputs import exit_with, positive_float, positive_int, script_parser
from vidformers.data.prepare.lists import SPLITS, load_splits
from vidformers.data.records import VIDEO_EXTENSIONS, Record, VideoList
from vidformers.files import json_text, write_text_atomically

SOURCES = sorted(set(DATASETS) - {"webdataset", "imagenet"})
# Whose classes a mirrored video may change; as engine/build.py does for them by name.
NEVER_FLIPPED = ("motion", "ssv2")


@dataclass(frozen=True)
class Item:
    """A video that is to be packed. label: the content of key.json."""

    path: str
    key: str
    extension: str
    num_bytes: int
    label: bytes

    @property
    def packed_bytes(self) -> int:
        """Two headers and two contents, each filled up to whole blocks."""
        block = tarfile.BLOCKSIZE
        return sum(block + -(-size // block) * block for size in (self.num_bytes, len(self.label)))


def make_item(record: Record, position: int) -> Item | None:
    """None if the video is not there. ValueError if it is no video file."""
    extension = os.path.splitext(record.path)[1].lower()
    if extension not in VIDEO_EXTENSIONS:
        raise ValueError(
            f"'{record.path}' is no video file by its name, and cannot go into a shard; wanted "
            f"{', '.join(VIDEO_EXTENSIONS[:5])}, ..."
        )
    try:
        local = path_manager().get_local_path(record.path)
        num_bytes = os.path.getsize(local)
    except OSError:
        return None
    stem = os.path.splitext(os.path.basename(record.path))[0]
    # No dot: readers split names at the first one.
    key = f"{position:09d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:60]}"
    label: dict[str, Any] = {"label": record.label}
    if record.labels is not None:
        label = {"labels": list(record.labels)}
    if record.actions:
        label["actions"] = [list(action) for action in record.actions]
    text = json_text(label | {"video_id": record.video_id, "position": position})
    return Item(local, key, extension, num_bytes, text.encode())


def plan_shards(items: Sequence[Item], *, max_bytes: float, seed: int) -> list[list[Item]]:
    """What goes into each shard: shuffled, up to `max_bytes` each (one video, if that is larger)."""
    shards: list[list[Item]] = []
    filled = 0
    for place in np.random.default_rng(seed).permutation(len(items)).tolist():
        item = items[place]
        if not shards or filled + item.packed_bytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(item)
        filled += item.packed_bytes
    return shards


def write_shard(path: Path, items: Sequence[Item], bar: Any) -> None:
    """Writes a tar file through the webdataset package, atomically."""
    try:
        from webdataset import TarWriter
    except ImportError as error:
        raise ImportError(
            f"shards are written by the webdataset package ({error}): pip install 'vidformers[webdataset]'; "
            "reading them takes nothing more"
        ) from error

    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as file:
        # Nothing of the time or the user: the same videos give the same bytes. A time that is no whole number
        # would put an extended header before each member.
        with TarWriter(file, encoder=False, mtime=0, user="", group="") as writer:
            for item in items:
                with open(item.path, "rb") as video:
                    data = video.read()
                if len(data) != item.num_bytes:
                    raise ValueError(
                        f"'{item.path}' has changed since this began; run the same command again"
                    )
                writer.write({"__key__": item.key, "json": item.label, item.extension[1:]: data})
                bar.update(item.packed_bytes)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def holds(shard: Shard, items: Sequence[Item]) -> bool:
    """Whether a shard has just these samples."""
    return [(s.member, s.size, _label(s)) for s in shard.samples] == [
        (item.key + item.extension, item.num_bytes, json.loads(item.label)) for item in items
    ]


def _label(sample: Sample) -> dict[str, Any]:
    label: dict[str, Any] = {"label": sample.label}
    if sample.labels is not None:
        label = {"labels": list(sample.labels)}
    if sample.actions:
        label["actions"] = [list(action) for action in sample.actions]
    return label | {"video_id": sample.video_id, "position": sample.position}


def write_split(videos: VideoList, plan: Sequence[Sequence[Item]], folder: Path) -> None:
    """Writes the shards of a split that are not there yet, and the index."""
    from tqdm import tqdm

    part = folder.with_name(f"{folder.name}.part")
    place = folder if folder.exists() else part
    names = [f"shard-{number:06d}{SHARD_SUFFIX}" for number in range(len(plan))]
    there = {}
    for name in shard_files(str(place)):
        there[name] = scan_shard(str(place / name))
        if name not in names or not holds(there[name], plan[names.index(name)]):
            raise ValueError(
                f"'{place / name}' holds other videos than it would now: the list, the files, --seed or "
                "--shard-mb have changed; give another folder, or delete it"
            )
    if place == folder and len(there) < len(names):
        raise ValueError(f"'{folder}' is there and has {len(there)} of {len(names)} shards; delete it")
    to_write = sum(
        item.packed_bytes
        for name, items in zip(names, plan, strict=True)
        if name not in there
        for item in items
    )
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if to_write > free:
        raise OSError(
            f"'{place}' has {free / 1e9:.1f} GB left, and {to_write / 1e9:.1f} GB are to be written"
        )
    total = sum(item.packed_bytes for items in plan for item in items)
    with tqdm(total=total, initial=total - to_write, unit="B", unit_scale=True, desc=folder.name) as bar:
        for name, items in zip(names, plan, strict=True):
            if name in there:
                continue
            write_shard(place / name, items, bar)
            there[name] = scan_shard(str(place / name))
            if not holds(there[name], items):
                raise OSError(f"'{place / name}' does not read back as it was written; is the disk sound?")
    shards = [there[name] for name in names]
    write_text_atomically(place / INDEX_NAME, write_index_text(shards, videos.classes, videos.source))
    if place == part:
        os.replace(part, folder)


def index_folder(folder: Path, *, dry_run: bool) -> int:
    """Writes the index.json of shards that came without one; says how many videos they hold."""
    from tqdm import tqdm

    files = shard_files(str(folder))
    if not files:
        raise FileNotFoundError(f"there is no *{SHARD_SUFFIX} in '{folder}'")
    if (folder / INDEX_NAME).exists():
        raise ValueError(
            f"'{folder / INDEX_NAME}' is there; move it away to have another (without class names)"
        )
    shards = [scan_shard(str(folder / file)) for file in tqdm(files, unit="shard")]
    if not dry_run:
        write_text_atomically(folder / INDEX_NAME, write_index_text(shards, None, str(folder)))
    print(f"{folder / INDEX_NAME}: {sum(len(s.samples) for s in shards)} videos in {len(shards)} shards")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("root", help="folder of the dataset (DATA.PATH_TO_DATA_DIR); with --index of shards")
    parser.add_argument("out", type=Path, nargs="?", help="folder for train/, val/, test/")
    parser.add_argument("--dataset", choices=SOURCES, default="kinetics", help="format (%(default)s: lists)")
    parser.add_argument("--parts", choices=SPLITS, nargs="+", default=SPLITS, help="lists to pack (all)")
    parser.add_argument("--videos", default="", metavar="DIR", help="folder of the videos (DATA.PATH_PREFIX)")
    parser.add_argument("--separator", default=" ", help="between path and label in lists (a space)")
    parser.add_argument("--split", type=positive_int, default=1, help="of ucf101 and hmdb51 (%(default)s)")
    parser.add_argument("--shard-mb", type=positive_float, default=1000, help="largest shard (%(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of the order in the shards (%(default)s)")
    parser.add_argument("--index", action="store_true", help="write the index.json of shards in ROOT")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written and write nothing")
    chosen = parser.parse_args(arguments)
    if chosen.index:
        return index_folder(Path(chosen.root), dry_run=chosen.dry_run)
    if chosen.out is None:
        raise ValueError("got no folder for the shards; wanted ROOT OUT, or ROOT --index")
    splits = _load(chosen)
    if len(splits) == 3 and splits["val"].records == splits["test"].records:
        print("test is val again: one set of shards serves both")
        del splits["test"]
    missing: list[tuple[str, Record]] = []
    plans = {}
    for split, videos in splits.items():
        items = [make_item(record, position) for position, record in enumerate(videos.records)]
        gone = [(split, record) for record, item in zip(videos.records, items, strict=True) if item is None]
        found = [item for item in items if item is not None]
        if not found:
            raise FileNotFoundError(
                f"none of the {len(items)} videos of {videos.source} is there, the first of them being "
                f"'{videos.records[0].path}'; give the folder of the videos with --videos"
            )
        plans[split] = plan_shards(found, max_bytes=chosen.shard_mb * 1e6, seed=chosen.seed)
        missing += gone
        size = sum(item.packed_bytes for item in found) / 1e6
        said = f", {len(gone)} missing" if gone else ""
        print(f"{split}: {len(found)} videos, {size:.1f} MB in {len(plans[split])} shards{said}")
    if chosen.dry_run:
        print(f"nothing is written to {chosen.out}")
        return 1 if missing else 0
    for split, plan in plans.items():
        write_split(splits[split], plan, chosen.out / split)
    if missing:
        with open(
            chosen.out / "missing.csv", "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            rows = [(split, record.video_id, record.path) for split, record in missing]
            csv.writer(file, lineterminator="\n").writerows([("split", "video", "path"), *rows])
        print(f"the missing ones are named in {chosen.out / 'missing.csv'}")
    else:
        (chosen.out / "missing.csv").unlink(missing_ok=True)
    print(f"add to a run: {_settings(chosen, splits)}")
    return 1 if missing else 0


def _load(chosen: Any) -> dict[str, VideoList]:
    load = DATASETS[chosen.dataset]
    settings = {
        "path_prefix": chosen.videos,
        "separator": chosen.separator,
        "split_number": chosen.split,
        "backend": "pyav",
        "split_file": chosen.out / "folder_split.json",
        "new_split": True,
        "seed": chosen.seed,
    }
    asked = {key: settings[key] for key in inspect.signature(load).parameters if key in settings}
    if chosen.videos and "path_prefix" not in asked:
        raise ValueError(
            f"got --videos {chosen.videos}, but the videos of {chosen.dataset} lie in ROOT; leave it out"
        )
    splits = load_splits(lambda split: load(chosen.root, split, **asked), chosen.parts)
    for note in dict.fromkeys(note for videos in splits.values() for note in videos.notes):
        print(note)
    return splits


def _settings(chosen: Any, splits: dict[str, VideoList]) -> str:
    videos = next(iter(splits.values()))
    labels = [label for v in splits.values() for r in v.records for label in (r.label, *(r.labels or ()))]
    num_classes = len(videos.class_names) if videos.class_names else max(labels) + 1
    return (
        "TRAIN.DATASET webdataset TEST.DATASET webdataset DATA.PATH_TO_DATA_DIR "
        f"{shlex.quote(str(chosen.out))} MODEL.NUM_CLASSES {num_classes}"
        f"{' MODEL.LOSS_FUNC bce_logit' if videos.is_multi_label else ''}"
        f"{' DATA.RANDOM_FLIP False' if chosen.dataset in NEVER_FLIPPED else ''}"
    )


if __name__ == "__main__":
    exit_with(main)
