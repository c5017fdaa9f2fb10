"""From the config object to lists of videos, loaders and devices: the seam between `config/` and `data/`.

Below this file nothing sees the config; models are built by `engine/model.py`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch.utils.data import DataLoader

from vidformers.data.datasets.clips import TestVideos, TrainClips, collate_train, collate_videos
from vidformers.data.datasets.folder import scan_folder, stratified_split
from vidformers.data.datasets.kinetics import read_list
from vidformers.data.loader import build_loader
from vidformers.data.motion import ensure_motion_dataset
from vidformers.data.records import Record, check_labels, read_class_names

DATASETS = ("kinetics", "folder", "motion")


@dataclass(frozen=True)
class VideoList:
    """The videos of one split: `records`, the class names where known, and where they came from."""

    records: list[Record]
    class_names: list[str] | None
    source: str


def load_videos(cfg: CfgNode, split: str) -> VideoList:
    """The list of `split` ("train", "val" or "test") of TRAIN.DATASET or TEST.DATASET.

    Raises FileNotFoundError or ValueError that say what was looked for, where, and what to set.
    """
    key = "TEST.DATASET" if split == "test" else "TRAIN.DATASET"
    name = cfg.TEST.DATASET if split == "test" else cfg.TRAIN.DATASET
    if name not in DATASETS:
        raise ValueError(f"{key} is {name!r}, which is not supported; use one of {', '.join(DATASETS)}.")
    if name == "motion":
        root = ensure_motion_dataset()
        videos = _from_list(root / f"{split}.csv", prefix=str(root), separator=" ", folder=root)
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
        folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
        videos = _from_list(
            folder / f"{split}.csv",
            prefix=cfg.DATA.PATH_PREFIX,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
            folder=folder,
        )
    else:
        videos = _from_folder(cfg, split)
    check_labels(videos.records, cfg.MODEL.NUM_CLASSES, source=videos.source)
    return videos


def _from_list(path: Path, *, prefix: str, separator: str, folder: Path) -> VideoList:
    records = read_list(str(path), path_prefix=prefix, separator=separator)
    return VideoList(records, read_class_names(str(folder)), str(path))


def _from_folder(cfg: CfgNode, split: str) -> VideoList:
    """Folders train/, val/, test/ of class folders where they exist; else class folders, split by seed."""
    root = cfg.DATA.PATH_TO_DATA_DIR
    splits = {name: os.path.join(root, name) for name in ("train", "val", "test")}
    have = {name: path for name, path in splits.items() if os.path.isdir(path)}
    if "train" in have or split in have:
        # A missing val or test folder falls back to the other held-out one, never to the training videos.
        for candidate in (split,) if split == "train" else (split, "val", "test"):
            if candidate in have:
                records, names = scan_folder(have[candidate])
                return VideoList(records, names, have[candidate])
        raise FileNotFoundError(f"{root} has a train folder but neither val nor test; needed: {split}.")
    records, names = scan_folder(root)
    if not cfg.TRAIN.ENABLE:
        return VideoList(records, names, root)
    training, held_out = stratified_split(records, held_out_fraction=0.2, seed=cfg.RNG_SEED)
    return VideoList(training if split == "train" else held_out, names, f"{root} (seeded split)")


def build_train_loader(cfg: CfgNode, videos: VideoList) -> DataLoader:
    """Batches of augmented uint8 clips; TRAIN.BATCH_SIZE videos each, the last incomplete one left out."""
    augment = cfg.AUG.ENABLE
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
        flip=cfg.DATA.RANDOM_FLIP,
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
        num_workers=_num_workers(cfg),
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY,
        seed=cfg.RNG_SEED,
        collate_fn=collate_train,
    )


def build_test_loader(cfg: CfgNode, videos: VideoList, *, num_views: int, num_crops: int) -> DataLoader:
    """One item a video with all its views; every video of the list exactly once, in order."""
    # PySlowFast's rule: one crop is taken from the training scale, several from the crop size itself.
    short_side = cfg.DATA.TRAIN_JITTER_SCALES[0] if num_crops == 1 else cfg.DATA.TEST_CROP_SIZE
    dataset = TestVideos(
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
    return build_loader(
        dataset,
        batch_size=1,
        shuffle=False,
        drop_last=False,
        num_workers=_num_workers(cfg),
        pin_memory=False,  # items are objects, which the pinning thread would copy for nothing
        seed=cfg.RNG_SEED,
        collate_fn=collate_videos,
    )


def _num_workers(cfg: CfgNode) -> int:
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
