"""From the config object to lists of videos, loaders and devices: the seam between `config/` and `data/`.

Below this file nothing sees the config; models are built by `engine/model.py`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch.utils.data import DataLoader

from vidformers.data.datasets.clips import TestVideos, TrainClips, collate_train, collate_videos
from vidformers.data.datasets.folder import class_folders, scan_folder, stratified_split
from vidformers.data.datasets.kinetics import read_list
from vidformers.data.loader import build_loader
from vidformers.data.motion import ensure_motion_dataset
from vidformers.data.paths import path_manager
from vidformers.data.records import Classes, Record, check_labels, read_classes
from vidformers.engine.logs import say, write_json

DATASETS = ("kinetics", "folder", "motion")


@dataclass(frozen=True)
class VideoList:
    """The videos of one split: `records`, the classes where known, and where they came from."""

    records: list[Record]
    classes: Classes | None
    source: str

    @property
    def class_names(self) -> list[str] | None:
        return self.classes.names if self.classes else None


def load_videos(cfg: CfgNode, split: str) -> VideoList:
    """The list of `split` ("train", "val" or "test") of TRAIN.DATASET or TEST.DATASET.

    Raises FileNotFoundError or ValueError that say what was looked for, where, and what to set.
    """
    key = "TEST.DATASET" if split == "test" else "TRAIN.DATASET"
    name = cfg.TEST.DATASET if split == "test" else cfg.TRAIN.DATASET
    if name not in DATASETS:
        raise ValueError(f"{key} is {name!r}, which is not supported; use one of {', '.join(DATASETS)}.")
    if name == "motion":
        root = str(ensure_motion_dataset())
        videos = _from_list(root, split, prefix=root, separator=" ")
    elif not cfg.DATA.PATH_TO_DATA_DIR:
        content = {
            "kinetics": "train.csv, val.csv and test.csv with one `path label` row a video",
            "folder": "one subfolder of videos a class",
        }[name]
        raise ValueError(
            f"{key} is {name!r}, but DATA.PATH_TO_DATA_DIR is empty. Add `DATA.PATH_TO_DATA_DIR "
            f"/path/to/folder`, the folder that holds {content}; or run on the generated dataset with "
            "`TRAIN.DATASET motion TEST.DATASET motion`."
        )
    elif name == "kinetics":
        videos = _from_list(
            cfg.DATA.PATH_TO_DATA_DIR,
            split,
            prefix=cfg.DATA.PATH_PREFIX,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        )
    else:
        videos = _from_folder(cfg, split)
    check_labels(videos.records, cfg.MODEL.NUM_CLASSES, source=videos.source)
    return videos


def _from_list(folder: str, split: str, *, prefix: str, separator: str) -> VideoList:
    path = os.path.join(folder, f"{split}.csv")
    return VideoList(read_list(path, path_prefix=prefix, separator=separator), read_classes(folder), path)


def _from_folder(cfg: CfgNode, split: str) -> VideoList:
    """Folders train/, val/, test/ of class folders where they exist; else one list of class folders.

    That one is split by RNG_SEED for a run that trains on it, and the split is kept in OUTPUT_DIR, so that a
    later test of the run does not see training videos. A run that never trained tests all of it.
    """
    root = cfg.DATA.PATH_TO_DATA_DIR
    isdir = path_manager().isdir
    have = {name: os.path.join(root, name) for name in ("train", "val", "test")}
    have = {name: path for name, path in have.items() if isdir(path)}
    if have:
        # Labels are places among the classes of all splits: a split may lack some of them.
        names = class_folders(have["train"]) if "train" in have else None
        names = names or sorted({name for path in have.values() for name in class_folders(path)})
        # A missing val or test folder falls back to the other held-out one, never to the training videos.
        for candidate in (split,) if split == "train" else (split, "val", "test"):
            if candidate in have:
                records, names = scan_folder(have[candidate], names)
                return VideoList(records, Classes(names), have[candidate])
        raise FileNotFoundError(
            f"{root} has the folders {', '.join(have)}, but none for {split}; add "
            f"{os.path.join(root, split)} with one subfolder of videos a class."
        )
    records, names = scan_folder(root)
    saved = Path(cfg.OUTPUT_DIR) / "folder_split.json"
    held_out: set[str] = set()
    if saved.is_file():
        content = json.loads(saved.read_text())
        held_out = set(content["held_out"]) if content["root"] == root else set()
    if not held_out and not (cfg.TRAIN.ENABLE and cfg.TRAIN.DATASET == "folder"):
        return VideoList(records, Classes(names), root)
    if not held_out:
        _, rest = stratified_split(records, held_out_fraction=0.2, seed=cfg.RNG_SEED)
        held_out = {record.video_id for record in rest}
        saved.parent.mkdir(parents=True, exist_ok=True)
        write_json(saved, {"root": root, "seed": cfg.RNG_SEED, "held_out": sorted(held_out)})
        say(f"{root} has no train, val and test folders: 20 % of each class are held out, listed in {saved}.")
    chosen = [record for record in records if (record.video_id in held_out) != (split == "train")]
    return VideoList(
        chosen, Classes(names), f"{root} ({'training' if split == 'train' else 'held-out'} part)"
    )


def build_train_loader(cfg: CfgNode, videos: VideoList) -> DataLoader:
    """Batches of augmented uint8 clips; TRAIN.BATCH_SIZE videos each, the last incomplete one left out."""
    augment = cfg.AUG.ENABLE
    flip = cfg.DATA.RANDOM_FLIP
    if flip and cfg.TRAIN.DATASET == "motion":
        say("DATA.RANDOM_FLIP is off for motion: a mirrored 'left' is a 'right' there.")
        flip = False
    dataset = TrainClips(
        videos.records,
        num_frames=cfg.DATA.NUM_FRAMES,
        sampling_rate=cfg.DATA.SAMPLING_RATE,
        target_fps=cfg.DATA.TARGET_FPS,
        temporal_sampling=cfg.DATA.TEMPORAL_SAMPLING,
        crop_size=cfg.DATA.TRAIN_CROP_SIZE,
        jitter_scales=tuple(cfg.DATA.TRAIN_JITTER_SCALES),
        area_range=tuple(cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE) or None,
        aspect_range=tuple(cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE) or None,
        flip=flip,
        rand_augment=cfg.AUG.AA_TYPE if augment else "",
        rand_augment_interpolation=cfg.AUG.INTERPOLATION,
        erase_probability=cfg.AUG.RE_PROB if augment else 0.0,
        erase_count=cfg.AUG.RE_COUNT,
        num_samples=cfg.AUG.NUM_SAMPLE if augment else 1,
        backend=cfg.DATA.DECODING_BACKEND,
        seed=cfg.RNG_SEED,
    )
    if len(videos.records) < cfg.TRAIN.BATCH_SIZE:
        raise ValueError(
            f"TRAIN.BATCH_SIZE={cfg.TRAIN.BATCH_SIZE} is larger than the {len(videos.records)} training "
            f"videos of {videos.source}; use at most {len(videos.records)}."
        )
    return build_loader(
        dataset,
        batch_size=cfg.TRAIN.BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers(cfg),
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY,
        seed=cfg.RNG_SEED,
        collate_fn=collate_train,
    )


def build_test_dataset(cfg: CfgNode, videos: VideoList, *, num_views: int, num_crops: int) -> TestVideos:
    """One item a video with all its views."""
    # PySlowFast's rule: one crop is taken from the training scale, several from the crop size itself.
    short_side = cfg.DATA.TEST_CROP_SIZE
    if num_crops == 1:
        short_side = max(short_side, cfg.DATA.TRAIN_JITTER_SCALES[0])
    return TestVideos(
        videos.records,
        num_frames=cfg.DATA.NUM_FRAMES,
        sampling_rate=cfg.DATA.SAMPLING_RATE,
        target_fps=cfg.DATA.TARGET_FPS,
        temporal_sampling=cfg.DATA.TEMPORAL_SAMPLING,
        use_offset=cfg.DATA.USE_OFFSET_SAMPLING,
        num_views=num_views,
        num_crops=num_crops,
        short_side=short_side,
        crop_size=cfg.DATA.TEST_CROP_SIZE,
        resize_mode=cfg.DATA.RESIZE_MODE,
        backend=cfg.DATA.DECODING_BACKEND,
    )


def build_test_loader(cfg: CfgNode, videos: VideoList, *, num_views: int, num_crops: int) -> DataLoader:
    """One item a video with all its views; every video of the list exactly once, in order."""
    return build_loader(
        build_test_dataset(cfg, videos, num_views=num_views, num_crops=num_crops),
        batch_size=1,
        shuffle=False,
        drop_last=False,
        num_workers=num_workers(cfg),
        pin_memory=False,  # items are objects, which the pinning thread would copy for nothing
        seed=cfg.RNG_SEED,
        collate_fn=collate_videos,
    )


def num_workers(cfg: CfgNode) -> int:
    """DATA_LOADER.NUM_WORKERS, but not more than there are processors."""
    # A worker decodes in one thread all the time: more of them than cores only cost memory.
    return min(cfg.DATA_LOADER.NUM_WORKERS, os.cpu_count() or 1)


def resolve_device(name: str) -> torch.device:
    """The torch device of DEVICE; "auto" is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"DEVICE is {name!r}, but this torch ({torch.__version__}) sees no CUDA device; use DEVICE cpu."
        )
    return torch.device(name)
