"""Multi-view testing: every video decoded once, every view scored once, every failure counted.

Follows PySlowFast's protocol (facts: softmax a view, then mean or max over temporal views x spatial crops).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vidformers.data.datasets.clips import VideoViews
from vidformers.data.paths import near_it
from vidformers.data.views import gather_views
from vidformers.engine.build import VideoList, build_test_loader, load_videos, resolve_device
from vidformers.engine.checkpoint import check_class_names, load_newest_checkpoint
from vidformers.engine.data_time import DataTime
from vidformers.engine.distributed import gathered, is_main_process
from vidformers.engine.logs import FailedVideos, JsonlLog, say, write_json
from vidformers.engine.model import build_model
from vidformers.engine.predictions import Predictions, label_array, summarize
from vidformers.engine.tested_weights import load_whole

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision for "bf16" and "fp16", nothing for "fp32"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])


def micro_batches(
    videos: Iterator[VideoViews],
    batch_size: int,
    to_clips: Callable[[VideoViews, range], Tensor],
    *,
    group: int,
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """Packs the views of consecutive videos: (n, 3, T, H, W) clips and the (video, view) of each.

    Only those of one `group` of the list (`EpochBatchSampler`): a batch's size, and what it holds, moves the
    last bits of its scores.
    """
    clips: list[Tensor] = []
    places: list[tuple[int, int]] = []
    for video in videos:
        if places and places[-1][0] // group != video.index // group:
            yield torch.cat(clips), places
            clips, places = [], []
        num_views = len(video.view_index) * len(video.crops)
        start = 0
        while start < num_views:
            stop = min(num_views, start + batch_size - len(places))
            clips.append(to_clips(video, range(start, stop)))
            places += [(video.index, view) for view in range(start, stop)]
            start = stop
            if len(places) == batch_size:
                yield torch.cat(clips), places
                clips, places = [], []
    if places:
        yield torch.cat(clips), places


def share_of_videos(
    loader: DataLoader, data_time: DataTime, *, every: int, between: Callable[[], None] | None
) -> Iterator[VideoViews]:
    """This process's videos from `loader`, which yields lists of them.

    between: called after each `every` videos (at least a group of them, see `EpochBatchSampler`), in all
    processes equally often although their shares differ by a group, so that they may talk to each other in
    it.
    """
    done = 0
    for items in data_time.watch(loader):
        for video in items:
            data_time.add(video.seconds, num_clips=video.num_views)
            yield video
            done += 1
            if between and done % every == 0:
                between()
    largest_share = loader.batch_sampler.share_of(0)  # type: ignore[union-attr]
    if between and largest_share // every > done // every:
        between()


@torch.inference_mode()
def score_videos(
    model: nn.Module,
    loader: DataLoader,
    *,
    num_classes: int,
    num_temporal_views: int,
    num_spatial_crops: int,
    ensemble_method: str,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    precision: str,
    description: str,
    data_time: DataTime,
    between_batches: Callable[[], None] | None = None,
) -> tuple[Predictions, list[tuple[str, str, str]]]:
    """Score all views of all videos of `loader`, which yields lists of `VideoViews`.

    Returns the predictions table and `(path, reason, detail)` of every video that could not be read, or was
    read but is damaged (reason "damaged"). `batch_size` is the number of views scored at once; it does not
    change which views there are. `data_time` is told where the time goes. `between_batches` is called now and
    then, in all processes equally often. Raises ValueError when the model's outputs are not finite.
    """
    from tqdm import tqdm

    records = loader.dataset.records  # type: ignore[attr-defined]
    labels = label_array(records, num_classes)
    num_views = num_temporal_views * num_spatial_crops
    scores = np.full((len(records), num_views, num_classes), np.nan, dtype=np.float32)
    failures: list[tuple[int, tuple[str, str, str]]] = []  # by number of the video
    failed = np.zeros(len(records), dtype=bool)
    progress = tqdm(
        total=len(loader),
        desc=description,
        unit="video",
        dynamic_ncols=True,
        mininterval=0.5,
        disable=not is_main_process(),
    )

    def readable_videos() -> Iterator[VideoViews]:
        for video in share_of_videos(loader, data_time, every=batch_size, between=between_batches):
            progress.update()
            path = records[video.index].path
            if video.damage:
                failures.append((video.index, (path, "damaged", video.damage)))
            if video.failure is None:
                yield video
            else:
                failed[video.index] = True
                failures.append((video.index, (path, *video.failure)))
                progress.set_postfix(failed=failed.sum())

    def to_clips(video: VideoViews, rows: range) -> Tensor:
        return gather_views(video, rows, mean=mean, std=std, device=device)

    group = loader.batch_sampler.group  # type: ignore[union-attr]
    was_training = model.training
    model.eval()
    try:
        for clips, places in micro_batches(readable_videos(), batch_size, to_clips, group=group):
            with autocast(device, precision):
                logits = model(clips)
            if not logits.isfinite().all():
                raise ValueError(
                    f"the model gives values that are not finite for {records[places[0][0]].path} or a video "
                    "next to it; its weights are damaged, or TEST.PRECISION is too low (try fp32)"
                )
            rows, views = zip(*places, strict=True)
            of_classes = logits.float().sigmoid() if labels.ndim == 2 else logits.float().softmax(dim=1)
            scores[list(rows), list(views)] = of_classes.cpu().numpy()
    finally:
        progress.close()
        model.train(was_training)
    # Each process has scored its own videos: put them together.
    own = np.flatnonzero(failed | np.isfinite(scores).any(axis=(1, 2)))
    parts = gathered((own, scores[own], failed[own], failures))
    for videos, their_scores, their_failed, _ in parts:
        scores[videos], failed[videos] = their_scores, their_failed
    failures = sorted(failure for *_, their_failures in parts for failure in their_failures)
    predictions = Predictions(
        video_ids=[record.video_id for record in records],
        labels=labels,
        view_scores=scores,
        failed=failed,
        num_temporal_views=num_temporal_views,
        num_spatial_crops=num_spatial_crops,
        ensemble_method="max" if ensemble_method == "max" else "sum",
    )
    return predictions, [failure for _, failure in failures]


def check_test_weights(cfg: CfgNode) -> None:
    """Raise FileNotFoundError for a TEST.CHECKPOINT_FILE_PATH that is not there, unless the run that comes
    before the test may write it."""
    path = cfg.TEST.CHECKPOINT_FILE_PATH
    is_own = cfg.TRAIN.ENABLE and Path(cfg.OUTPUT_DIR).resolve() in Path(path).resolve().parents
    if path and not is_own and "://" not in path and not Path(path).exists():
        raise FileNotFoundError(
            f"TEST.CHECKPOINT_FILE_PATH is {path}, which is no file; give the path of a .pth, .pyth, .pt or "
            f".safetensors file, or '' for the weights that are trained{near_it(path)}"
        )


def load_test_weights(cfg: CfgNode, model: nn.Module, class_names: Sequence[str] | None) -> str | None:
    """Load the file asked for, else the run's own newest checkpoint, else the weights it would start from.

    class_names: those of the videos, which are compared with the checkpoint's (`check_class_names`). Returns
    the path, or None when the model keeps its random initialisation.
    """
    if cfg.TEST.CHECKPOINT_FILE_PATH:
        path, state = cfg.TEST.CHECKPOINT_FILE_PATH, None
    elif own := load_newest_checkpoint(Path(cfg.OUTPUT_DIR) / "checkpoints"):
        path, state = str(own[0]), own[1]
        if "model" not in state:
            raise ValueError(
                f"{path} is a sharded checkpoint of a run that has not finished; make a file of it with "
                f"`python tools/export_checkpoint.py {path} weights.pyth` and set TEST.CHECKPOINT_FILE_PATH."
            )
        state = {**state, "model": state.get("ema") or state["model"]}
    elif cfg.TRAIN.CHECKPOINT_FILE_PATH:
        path, state = cfg.TRAIN.CHECKPOINT_FILE_PATH, None
    else:
        say(
            "Testing with RANDOM weights: no TEST.CHECKPOINT_FILE_PATH is set and "
            f"{cfg.OUTPUT_DIR}/checkpoints holds no checkpoint."
        )
        return None
    info = load_whole(model, path, state, num_classes=cfg.MODEL.NUM_CLASSES, class_names=class_names)
    check_class_names(path, info.class_names, class_names, Path(cfg.OUTPUT_DIR))
    say(f"Testing the weights of {path} ({info.source}).")
    return path


def test(cfg: CfgNode, videos: VideoList | None = None) -> dict[str, object]:
    """Run the multi-view test that `cfg` describes.

    Writes `predictions.npz`, `test_results.json` and, if any video failed, `failed_videos.csv`; returns the
    content of `test_results.json`. Raises ValueError (after writing) when not one video could be read.
    """
    output = Path(cfg.OUTPUT_DIR)
    videos = videos or load_videos(cfg, "test")
    device = resolve_device(cfg.DEVICE)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg)
    checkpoint = load_test_weights(cfg, model, videos.class_names)
    model.to(device)
    num_views, num_crops = cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS
    say(
        f"Testing {cfg.MODEL.NAME} on {len(videos.records)} videos of {videos.source}: "
        f"{num_views} temporal views x {num_crops} spatial crops, {device.type}, {cfg.TEST.PRECISION}."
    )
    data_time = DataTime()
    loader = build_test_loader(cfg, videos, num_views=num_views, num_crops=num_crops)
    predictions, failures = score_videos(
        model,
        loader,
        num_classes=cfg.MODEL.NUM_CLASSES,
        num_temporal_views=num_views,
        num_spatial_crops=num_crops,
        ensemble_method=cfg.DATA.ENSEMBLE_METHOD,
        batch_size=cfg.TEST.BATCH_SIZE,
        mean=tuple(cfg.DATA.MEAN),
        std=tuple(cfg.DATA.STD),
        device=device,
        precision=cfg.TEST.PRECISION,
        description="test",
        data_time=data_time,
    )
    seconds = time.perf_counter() - data_time.started
    failed = FailedVideos(output / "failed_videos.csv", backend=cfg.DATA.DECODING_BACKEND)
    failed.forget("test")
    failed.add("test", failures)
    if is_main_process():
        predictions.save(output / "predictions.npz")
        _explain_examples(cfg, model, loader, predictions, videos.class_names, device)
    results = {
        **summarize(predictions, videos.class_names),
        "failed_by_reason": {k: n for k, n in failed.reasons("test").items() if k != "damaged"},
        "num_damaged": failed.reasons("test").get("damaged", 0),
        "model": cfg.MODEL.NAME,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "checkpoint": checkpoint,
        "videos": videos.source,
        "num_frames": cfg.DATA.NUM_FRAMES,
        "sampling_rate": cfg.DATA.SAMPLING_RATE,
        "target_fps": cfg.DATA.TARGET_FPS,
        "temporal_sampling": cfg.DATA.TEMPORAL_SAMPLING,
        "crop_size": cfg.DATA.TEST_CROP_SIZE,
        "decoding_backend": cfg.DATA.DECODING_BACKEND,
        "precision": cfg.TEST.PRECISION,
        "device": str(device),
        "seconds": round(seconds, 3),
        "videos_per_second": round(len(videos.records) / seconds, 3),
        **{name: round(value, 6) for name, value in data_time.values().items()},
    }
    if is_main_process():
        write_json(output / "test_results.json", results)
    JsonlLog(output / "log.jsonl").write(
        "test", **{key: results[key] for key in results if key not in ("per_class", "accuracy_by_num_views")}
    )
    say(_summary_text(results, output))
    if predictions.failed.all():
        raise ValueError(
            f"None of the {len(videos.records)} videos of {videos.source} could be read; the first: "
            f"{failures[0][0]}: {failures[0][2].rstrip('.')}. Check DATA.PATH_PREFIX; all are listed in "
            f"{output}/failed_videos.csv."
        )
    return results


def _explain_examples(
    cfg: CfgNode,
    model: nn.Module,
    loader: DataLoader,
    predictions: Predictions,
    class_names: Sequence[str] | None,
    device: torch.device,
) -> None:
    """Leave explained examples for the report, if TEST.EXPLAIN asks for them."""
    path = Path(cfg.OUTPUT_DIR) / "test_examples.npz"
    path.unlink(missing_ok=True)  # an earlier test's
    if cfg.TEST.EXPLAIN == "none":
        return
    from vidformers.engine.examples import explain_examples

    try:
        count = explain_examples(
            model,
            loader.dataset,  # type: ignore[arg-type]
            predictions,
            path,
            method=cfg.TEST.EXPLAIN,
            class_names=class_names,
            mean=tuple(cfg.DATA.MEAN),
            std=tuple(cfg.DATA.STD),
            device=device,
        )
    except (ValueError, ImportError) as error:
        say(f"No examples are explained: {error}.")
        return
    say(f"Explained {count} examples by {cfg.TEST.EXPLAIN}, for report.html.")


def _summary_text(results: dict, output: Path) -> str:
    low, high = results["top1_confidence_95"]
    lines = [
        "",
        f"Test of {results['model']} over {results['num_temporal_views']} temporal views x "
        f"{results['num_spatial_crops']} spatial crops",
        f"  top-1  {results['top1']:6.2f} %   (95 % interval {low:.1f} to {high:.1f})",
        *([f"  top-5  {results['top5']:6.2f} %"] if results["num_classes"] > 5 else []),
        f"  videos {results['num_videos']}, {results['num_failed']} unreadable, "
        f"{results['seconds']:.1f} s, {results['videos_per_second']:.2f} videos/s",
    ]
    if "map" in results:
        lines.insert(2, f"  mAP    {results['map']:6.2f} %   (top-k: one of a video's labels is among the k)")
    if results["num_failed"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in results["failed_by_reason"].items())
        lines.append(
            f"  unreadable videos count as wrong ({reasons}); over the readable ones: top-1 "
            f"{results['top1_readable']:.2f} %; see {output / 'failed_videos.csv'}"
        )
    if results["num_damaged"]:
        lines.append(
            f"  {results['num_damaged']} videos could be read but are damaged or cut short; they are scored, "
            f"and listed in {output / 'failed_videos.csv'}"
        )
    if len(results["accuracy_by_num_views"]) > 1:
        by_views = ", ".join(
            f"{row['num_temporal_views']}: {row['top1']:.2f}" for row in results["accuracy_by_num_views"]
        )
        lines.append(f"  top-1 by number of temporal views  {by_views}")
    lines.append(f"  written: {output / 'test_results.json'}, {output / 'predictions.npz'}")
    return "\n".join(lines)
