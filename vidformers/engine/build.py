"""From the config object to lists of videos, loaders and devices: the seam between `config/` and `data/`.

Below this file nothing sees the config; models are built by `engine/model.py`.
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch.utils.data import DataLoader

from vidformers.config.values import nearest
from vidformers.data.datasets import DATASETS
from vidformers.data.datasets.annotations import missing_videos
from vidformers.data.datasets.clips import TestVideos, TrainClips, collate_train, collate_videos
from vidformers.data.datasets.folder_split import SPLIT_NAME
from vidformers.data.loader import build_loader
from vidformers.data.paths import near_it
from vidformers.data.records import VideoList, check_labels
from vidformers.engine.checkpoint import list_checkpoints
from vidformers.engine.distributed import rank, world_size
from vidformers.engine.logs import say
from vidformers.engine.protocol import view_short_side


def load_videos(cfg: CfgNode, split: str) -> VideoList:
    """The list of `split` ("train", "val" or "test") of TRAIN.DATASET or TEST.DATASET.

    Videos that are not there stay on the list, to be counted as unreadable; how many they are is said.
    Raises FileNotFoundError or ValueError that say what was looked for, where, and what to set.
    """
    key = "TEST.DATASET" if split == "test" else "TRAIN.DATASET"
    name = cfg.TEST.DATASET if split == "test" else cfg.TRAIN.DATASET
    if name not in DATASETS:
        guess = nearest(name, DATASETS)
        raise ValueError(
            f"{key} is {name!r}, which is not supported{f' (did you mean {guess}?)' if guess else ''}; use "
            f"one of {', '.join(DATASETS)}."
        )
    load = DATASETS[name]
    if not cfg.DATA.PATH_TO_DATA_DIR and name != "motion":
        content = _content(load)
        raise ValueError(
            f"{key} is {name!r}, but DATA.PATH_TO_DATA_DIR is empty. Add `DATA.PATH_TO_DATA_DIR "
            f"/path/to/folder`, the folder that holds {content}; or run on the generated dataset with "
            "`TRAIN.DATASET motion TEST.DATASET motion`."
        )
    if name != "motion":
        _check_folder(cfg.DATA.PATH_TO_DATA_DIR, _content(load))
    weights = _weights_to_read(cfg, split)
    settings = {
        "path_prefix": cfg.DATA.PATH_PREFIX,
        "separator": cfg.DATA.PATH_LABEL_SEPARATOR,
        "split_number": cfg.DATA.SPLIT_NUMBER,
        "backend": cfg.DATA.DECODING_BACKEND,
        "split_file": Path(cfg.OUTPUT_DIR) / SPLIT_NAME,
        # A run leaves its checkpoints in <run>/checkpoints/.
        "weights_split": Path(os.path.abspath(weights)).parent.parent / SPLIT_NAME if weights else None,
        "new_split": (
            cfg.TRAIN.ENABLE
            and name == cfg.TRAIN.DATASET
            and not (split == "test" and cfg.TEST.CHECKPOINT_FILE_PATH)
        ),
        "seed": cfg.RNG_SEED,
    }
    asked = inspect.signature(load).parameters
    if "split_number" not in asked and cfg.DATA.SPLIT_NUMBER != 1:
        raise ValueError(
            f"DATA.SPLIT_NUMBER is {cfg.DATA.SPLIT_NUMBER}, but {name} has one split; set it to 1."
        )
    if "path_prefix" not in asked and cfg.DATA.PATH_PREFIX:
        raise ValueError(
            f"DATA.PATH_PREFIX is {cfg.DATA.PATH_PREFIX!r}, but the videos of {name} are found without it; "
            "set it to '', and DATA.PATH_TO_DATA_DIR to the folder that they lie in."
        )
    videos = load(
        cfg.DATA.PATH_TO_DATA_DIR, split, **{key: value for key, value in settings.items() if key in asked}
    )
    for note in videos.notes:
        say(note)
    check_labels(videos.records, cfg.MODEL.NUM_CLASSES, source=videos.source)
    known = len(videos.class_names or ())
    if split == "train" and 0 < known < cfg.MODEL.NUM_CLASSES and not cfg.PRETRAIN.ENABLE:
        say(
            f"{videos.source} has {known} classes, the model {cfg.MODEL.NUM_CLASSES} outputs: "
            f"{cfg.MODEL.NUM_CLASSES - known} of them are never trained. MODEL.NUM_CLASSES {known} gives it "
            "no more than there are classes."
        )
    if videos.is_multi_label and cfg.MODEL.LOSS_FUNC != "bce_logit":
        raise ValueError(
            f"the videos of {videos.source} have several labels each, but MODEL.LOSS_FUNC is "
            f"{cfg.MODEL.LOSS_FUNC!r}; set MODEL.LOSS_FUNC bce_logit (a sigmoid a class)."
        )
    limit = cfg.DATA.MAX_BAD_VIDEO_FRACTION if split == "train" else 1.0
    _say_missing(videos, limit, path_prefix=cfg.DATA.PATH_PREFIX)
    return videos


def _weights_to_read(cfg: CfgNode, split: str) -> str:
    """The file of the weights that training begins with ("train", "val") or that are tested ("test"); "" for
    those of a new model, and those that the run has yet to train.

    Raises FileNotFoundError for a TRAIN.CHECKPOINT_FILE_PATH that is needed and not there, before a video is
    opened; addresses (s3://) are left to the loader.
    """
    if split == "test" and (cfg.TEST.CHECKPOINT_FILE_PATH or cfg.TRAIN.ENABLE):
        return cfg.TEST.CHECKPOINT_FILE_PATH
    if own := list_checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints"):
        return str(own[-1])
    path = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if path and "://" not in path and not os.path.exists(path):
        raise FileNotFoundError(
            f"TRAIN.CHECKPOINT_FILE_PATH is {path}, which is no file; give the path of a .pth, .pyth, .pt or "
            f".safetensors file, or '' for random weights{near_it(path)}"
        )
    return path


def _content(load: Callable[..., VideoList]) -> str:
    """What a dataset's folder holds."""
    return (inspect.getdoc(load) or "its files").splitlines()[0]


def _check_folder(path: str, content: str) -> None:
    """Raise FileNotFoundError if DATA.PATH_TO_DATA_DIR is no folder; addresses (s3://) are the loader's."""
    if "://" in path or os.path.isdir(path):
        return
    what = "is a file" if os.path.isfile(path) else "does not exist"
    raise FileNotFoundError(
        f"DATA.PATH_TO_DATA_DIR is {path!r}, which {what}; wanted the folder that holds {content}"
        f"{near_it(path)}"
    )


def _say_missing(videos: VideoList, limit: float, *, path_prefix: str) -> None:
    """Say how many videos are not there; FileNotFoundError if all or more than the share `limit` are not."""
    missing = missing_videos(videos.records)
    count, total = len(missing), len(videos.records)
    if missing and count == total:
        hint = "Set DATA.PATH_PREFIX to the folder that the paths of the list start from."
        if path_prefix and "://" not in path_prefix and not os.path.isdir(path_prefix):
            hint = f"DATA.PATH_PREFIX is {path_prefix!r}, which is no folder{near_it(path_prefix)}. {hint}"
        if os.sep != "\\" and "\\" in missing[0].video_id:
            hint += " The list has the backslashes of Windows, which part no folders here: write / for them."
        raise FileNotFoundError(
            f"None of the {total} videos of {videos.source} is there, the first of them being "
            f"'{missing[0].path}'. {hint}"
        )
    if count > limit * total:
        raise FileNotFoundError(
            f"{count} of the {total} videos of {videos.source} are not there, more than "
            f"DATA.MAX_BAD_VIDEO_FRACTION={limit:g} allows in training: "
            f"{', '.join(record.path for record in missing[:5])}{', ...' if count > 5 else ''}. Fetch them, "
            "take them off the list, set DATA.PATH_PREFIX, or raise the limit."
        )
    if missing:
        say(
            f"{count} of the {total} videos of {videos.source} are not there, such as {missing[0].path}. "
            "They stay on the list and count as unreadable."
        )


def _reading(cfg: CfgNode) -> dict[str, Any]:
    """How both datasets read a video."""
    data = cfg.DATA
    return {
        "backend": data.DECODING_BACKEND,
        "frames_fps": data.FRAMES_FPS,
        "index_cache": data.INDEX_CACHE and os.path.join(data.PATH_TO_DATA_DIR, data.INDEX_CACHE),
        "read_timeout": data.READ_TIMEOUT,
        "max_frame_pixels": data.MAX_FRAME_PIXELS,
    }


def build_train_loader(cfg: CfgNode, videos: VideoList) -> DataLoader:
    """Batches of augmented uint8 clips; TRAIN.BATCH_SIZE videos each, the last incomplete one left out."""
    augment = cfg.AUG.ENABLE
    flip = cfg.DATA.RANDOM_FLIP
    if flip and cfg.TRAIN.DATASET in ("motion", "ssv2"):
        say(f"DATA.RANDOM_FLIP is off for {cfg.TRAIN.DATASET}: a mirrored 'left' is a 'right' there.")
        flip = False
    dataset = TrainClips(
        videos.records,
        num_frames=cfg.DATA.NUM_FRAMES,
        sampling_rate=cfg.DATA.SAMPLING_RATE,
        target_fps=cfg.DATA.TARGET_FPS,
        temporal_sampling=cfg.DATA.TEMPORAL_SAMPLING,
        num_classes=cfg.MODEL.NUM_CLASSES,
        crop_size=cfg.DATA.TRAIN_CROP_SIZE,
        jitter_scales=tuple(cfg.DATA.TRAIN_JITTER_SCALES),
        area_range=tuple(cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE) or None,
        aspect_range=tuple(cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE) or None,
        inverse_uniform=cfg.DATA.INV_UNIFORM_SAMPLE,
        motion_shift=cfg.DATA.TRAIN_JITTER_MOTION_SHIFT,
        flip=flip,
        rand_augment=cfg.AUG.AA_TYPE if augment else "",
        rand_augment_interpolation=cfg.AUG.INTERPOLATION,
        color_jitter=cfg.AUG.COLOR_JITTER if augment else 0.0,
        erase_probability=cfg.AUG.RE_PROB if augment else 0.0,
        erase_count=cfg.AUG.RE_COUNT,
        num_samples=cfg.AUG.NUM_SAMPLE if augment else 1,
        **_reading(cfg),
        seed=cfg.RNG_SEED,
    )
    if len(videos.records) < cfg.TRAIN.BATCH_SIZE:
        raise ValueError(
            f"TRAIN.BATCH_SIZE={cfg.TRAIN.BATCH_SIZE} is larger than the {len(videos.records)} training "
            f"videos of {videos.source}; use at most {len(videos.records)}."
        )
    if cfg.TRAIN.BATCH_SIZE % world_size():
        raise ValueError(
            f"TRAIN.BATCH_SIZE={cfg.TRAIN.BATCH_SIZE} is the number of videos in a step over all processes, "
            f"and cannot be shared equally by {world_size()} of them; use a multiple of {world_size()}."
        )
    return build_loader(
        dataset,
        batch_size=cfg.TRAIN.BATCH_SIZE // world_size(),
        shuffle=True,
        drop_last=True,
        num_workers=num_workers(cfg),
        max_bytes_ahead=cfg.DATA_LOADER.PREFETCH_MB * 10**6,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY,
        seed=cfg.RNG_SEED,
        collate_fn=collate_train,
        rank=rank(),
        world_size=world_size(),
    )


def build_test_dataset(cfg: CfgNode, videos: VideoList, *, num_views: int, num_crops: int) -> TestVideos:
    """One item a video with all its views."""
    return TestVideos(
        videos.records,
        num_frames=cfg.DATA.NUM_FRAMES,
        sampling_rate=cfg.DATA.SAMPLING_RATE,
        target_fps=cfg.DATA.TARGET_FPS,
        temporal_sampling=cfg.DATA.TEMPORAL_SAMPLING,
        use_offset=cfg.DATA.USE_OFFSET_SAMPLING,
        num_views=num_views,
        num_crops=num_crops,
        short_side=view_short_side(cfg, num_crops),
        crop_size=cfg.DATA.TEST_CROP_SIZE,
        resize_mode=cfg.DATA.RESIZE_MODE,
        **_reading(cfg),
    )


def build_test_loader(cfg: CfgNode, videos: VideoList, *, num_views: int, num_crops: int) -> DataLoader:
    """One item a video with all its views; every video exactly once over all processes, in order.

    As many neighbours stay in one process as TEST.BATCH_SIZE holds views of: they go through the model
    together (`micro_batches`) on any number of processes, and so give the same scores to the last bit.
    """
    return build_loader(
        build_test_dataset(cfg, videos, num_views=num_views, num_crops=num_crops),
        batch_size=1,
        shuffle=False,
        drop_last=False,
        num_workers=num_workers(cfg),
        max_bytes_ahead=cfg.DATA_LOADER.PREFETCH_MB * 10**6,
        pin_memory=False,  # items are objects, which the pinning thread would copy for nothing
        seed=cfg.RNG_SEED,
        collate_fn=collate_videos,
        rank=rank(),
        world_size=world_size(),
        group=max(1, cfg.TEST.BATCH_SIZE // (num_views * num_crops)),
    )


def num_workers(cfg: CfgNode) -> int:
    """DATA_LOADER.NUM_WORKERS, but not more than there are processors."""
    # A worker decodes in one thread all the time: more of them than cores only cost memory.
    return min(cfg.DATA_LOADER.NUM_WORKERS, os.cpu_count() or 1)


def resolve_device(name: str) -> torch.device:
    """The torch device of DEVICE; "auto" is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"DEVICE is {name!r}, but this torch ({torch.__version__}) sees no CUDA device; use DEVICE cpu."
        )
    if name == "cuda" and world_size() > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(name)
