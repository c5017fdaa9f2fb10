"""The temporal-dependence ablation of a config: what accuracy is left when frames are out of order."""

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn

from vidformers.analysis.ablation_table import AblationTable
from vidformers.analysis.perturbations import donors, parse_perturbation, parse_perturbations
from vidformers.analysis.statistics import import_analysis
from vidformers.analysis.temporal import example_clips, temporal_dependence, temporal_patch_stride
from vidformers.analysis.temporal_summary import compare_ablations, summarize_ablation
from vidformers.config.defaults import get_defaults
from vidformers.engine.build import VideoList, build_test_dataset, load_videos, num_workers, resolve_device
from vidformers.engine.distributed import is_main_process
from vidformers.engine.logs import FailedVideos, JsonlLog, say, write_json, write_text_atomically
from vidformers.engine.model import build_model, model_kwargs
from vidformers.engine.test import autocast, load_test_weights
from vidformers.models import create_model
from vidformers.report.figures import write_ablation_figure
from vidformers.report.run_report import ABLATION_CLIPS, write_run_report
from vidformers.report.strips import save_clips
from vidformers.report.text import ablation_text, summary_markdown

TABLE = "temporal_ablation.npz"


def check_ablation(cfg: CfgNode) -> None:
    """Raise ValueError or ImportError before anything is trained, for an ablation that cannot be done."""
    import_analysis("statsmodels.stats.multitest")
    # The lists, which may say how many classes there are, are not read yet.
    with torch.device("meta"):
        model = create_model(
            cfg.MODEL.NAME, **{**model_kwargs(cfg), "num_classes": cfg.MODEL.NUM_CLASSES or 1}
        )
    tubelet = _tubelet(cfg, model)
    parse_perturbations(_names(cfg, tubelet), num_frames=cfg.DATA.NUM_FRAMES, tubelet=tubelet)
    _compared_table(cfg)


def check_ablated_videos(cfg: CfgNode, videos: VideoList) -> None:
    """Raise ValueError for videos that the ablation of `cfg` cannot be done with, before anything runs."""
    if videos.is_multi_label:
        raise ValueError(
            f"the ablation compares top-1 accuracies, but the videos of {videos.source} have several labels "
            "each; set ABLATION.ENABLE False, or TEST.DATASET to one with a label a video"
        )
    labels = np.array([record.label for record in videos.records])
    for text in cfg.ABLATION.PERTURBATIONS:
        perturbation = parse_perturbation(text) if text.startswith("splice") else None
        if perturbation:
            donors(labels, str(perturbation.arguments[1]), seed=cfg.RNG_SEED)
    compared = _compared_table(cfg)
    if not compared:
        return
    ids = [record.video_id for record in videos.records]
    shared = set(ids) & set(compared.video_ids)
    if len(shared) < 2 or len(set(ids)) < len(ids):
        raise ValueError(
            f"ABLATION.COMPARE: {cfg.ABLATION.COMPARE} shares {len(shared)} videos with {videos.source}, "
            f"whose {len(ids)} videos have {len(set(ids))} names; wanted at least 2 shared ones, and each "
            "name once; try an ablation of the same list"
        )


def ablate(cfg: CfgNode, videos: VideoList | None = None) -> dict[str, object]:
    """Run the ablation that `cfg` describes.

    Writes `temporal_ablation.json`, `.npz` (the scores of every video), `.png`, `temporal_ablation_clips.npz`
    (an example of what the model is shown), `summary.md`, `report.html` (with what the run's other steps have
    left) and, if a video failed, `failed_videos.csv`; returns the content of the JSON file. Under torchrun
    every process scores its share, and the first one writes. Raises ValueError for a perturbation that means
    nothing for these clips, and when not one video can be read.
    """
    output = Path(cfg.OUTPUT_DIR)
    videos = videos or load_videos(cfg, "test")
    check_ablated_videos(cfg, videos)
    device = resolve_device(cfg.DEVICE)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg)
    checkpoint = load_test_weights(cfg, model, videos.class_names)
    model.to(device)
    compared = _compared_table(cfg)
    tubelet = _tubelet(cfg, model)
    names = _names(cfg, tubelet)
    dataset = build_test_dataset(
        cfg, videos, num_views=cfg.TEST.NUM_ENSEMBLE_VIEWS, num_crops=cfg.TEST.NUM_SPATIAL_CROPS
    )
    if is_main_process():
        say(
            f"Ablating {cfg.MODEL.NAME} on {len(videos.records)} videos of {videos.source}: "
            f"{', '.join(names)}; {cfg.ABLATION.NUM_DRAWS} draws, {device.type}, {cfg.TEST.PRECISION}."
        )
        for name in cfg.ABLATION.PERTURBATIONS:
            if name not in names:
                say(
                    f"{name}, one of the default perturbations, is left out: a clip has "
                    f"{cfg.DATA.NUM_FRAMES} frames."
                )
    started = time.perf_counter()
    with autocast(device, cfg.TEST.PRECISION):
        table = temporal_dependence(
            model,
            dataset,
            perturbations=names,
            num_draws=cfg.ABLATION.NUM_DRAWS,
            seed=cfg.RNG_SEED,
            tubelet=tubelet,
            batch_size=cfg.TEST.BATCH_SIZE,
            mean=tuple(cfg.DATA.MEAN),
            std=tuple(cfg.DATA.STD),
            ensemble_method=cfg.DATA.ENSEMBLE_METHOD,
            device=device,
            num_workers=num_workers(cfg),
            max_bytes_ahead=cfg.DATA_LOADER.PREFETCH_MB * 10**6,
            class_names=videos.classes.names if videos.classes else None,
            class_groups=videos.classes.groups if videos.classes else None,
            class_partners=videos.classes.partners if videos.classes else None,
        )
    seconds = time.perf_counter() - started
    if is_main_process():
        table.save(output / TABLE)  # hours of a GPU, which nothing that comes now may lose
    summary = {
        "model": cfg.MODEL.NAME,
        "checkpoint": checkpoint,
        "videos": videos.source,
        **summarize_ablation(
            table,
            seed=cfg.RNG_SEED,
            num_resamples=cfg.ABLATION.NUM_RESAMPLES,
            num_frames=cfg.DATA.NUM_FRAMES,
            seconds_per_frame=cfg.DATA.SAMPLING_RATE / cfg.DATA.TARGET_FPS,
        ),
        "tubelet": tubelet,
        "sampling_rate": cfg.DATA.SAMPLING_RATE,
        "target_fps": cfg.DATA.TARGET_FPS,
        "temporal_sampling": cfg.DATA.TEMPORAL_SAMPLING,
        "num_temporal_views": cfg.TEST.NUM_ENSEMBLE_VIEWS,
        "num_spatial_crops": cfg.TEST.NUM_SPATIAL_CROPS,
        "crop_size": cfg.DATA.TEST_CROP_SIZE,
        "ensemble_method": cfg.DATA.ENSEMBLE_METHOD,
        "decoding_backend": cfg.DATA.DECODING_BACKEND,
        "precision": cfg.TEST.PRECISION,
        "device": device.type,
    }
    if compared:
        summary["comparison"] = compare_ablations(
            table, compared, seed=cfg.RNG_SEED, num_resamples=cfg.ABLATION.NUM_RESAMPLES
        )
    if not is_main_process():
        return summary
    failed = FailedVideos(output / "failed_videos.csv", backend=cfg.DATA.DECODING_BACKEND)
    failed.forget("ablation")
    failed.add("ablation", table.failed)
    write_json(output / "temporal_ablation.json", summary)
    write_text_atomically(output / "summary.md", summary_markdown(summary))
    write_ablation_figure(summary, output / "temporal_ablation.png")
    strips = example_clips(
        dataset,
        names,
        index=_first_readable(videos, table),
        seed=cfg.RNG_SEED,
        tubelet=tubelet,
    )
    if strips:
        save_clips(output / ABLATION_CLIPS, strips)
    else:
        (output / ABLATION_CLIPS).unlink(missing_ok=True)  # an earlier ablation's
    write_run_report(output, title=f"{cfg.MODEL.NAME} on {videos.source}")
    JsonlLog(output / "log.jsonl").write(
        "ablation",
        seconds=round(seconds, 3),
        num_videos=summary["num_videos"],
        num_failed=summary["num_failed"],
        top1={"clean": summary["clean"]["top1"], **{p["name"]: p["top1"] for p in summary["perturbations"]}},
    )
    say(ablation_text(summary))
    say(
        f"  {seconds:.1f} s, {len(table.video_ids) / seconds:.2f} videos/s; written: "
        f"{output / 'temporal_ablation.json'}, {output / 'report.html'}, {output / 'summary.md'}"
    )
    return summary


def _names(cfg: CfgNode, tubelet: int) -> list[str]:
    """The perturbations asked for; of the default ones those that mean something for clips so short."""
    names = list(cfg.ABLATION.PERTURBATIONS)
    if names != get_defaults().ABLATION.PERTURBATIONS:
        return names
    kept = []
    for name in names:
        with suppress(ValueError):
            parse_perturbation(name).check(num_frames=cfg.DATA.NUM_FRAMES, tubelet=tubelet)
            kept.append(name)
    return kept


def _tubelet(cfg: CfgNode, model: nn.Module) -> int:
    return cfg.ABLATION.TUBELET or temporal_patch_stride(model)


def _first_readable(videos: VideoList, table: AblationTable) -> int:
    # By path: a list may have one name twice.
    unread = {path for path, reason, _ in table.failed if reason != "damaged"}
    return next(index for index, record in enumerate(videos.records) if record.path not in unread)


def _compared_table(cfg: CfgNode) -> AblationTable | None:
    if not cfg.ABLATION.COMPARE:
        return None
    path = Path(cfg.ABLATION.COMPARE) / TABLE
    if not path.is_file():
        raise FileNotFoundError(
            f"ABLATION.COMPARE is {cfg.ABLATION.COMPARE}, but there is no {path}; give the OUTPUT_DIR of a "
            "run with ABLATION.ENABLE True on the same videos."
        )
    return AblationTable.load(path)
