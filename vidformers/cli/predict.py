"""Say what is in videos, or what happens when in a long one:

    python tools/predict.py video.mp4 --model mvit_v2_s_16x4 --weights x.pyth --labels kinetics400.json
    python tools/predict.py videos/ more.mkv --weights output/my_run/checkpoints/best.pyth --out answers.csv
    python tools/predict.py long.mp4 --weights weights.safetensors --timeline --window 4 --hop 1 --out folder

Frames, stride, frame rate and views are those that the weights were made for, where they say them, else those
of the YAML file of the model's name. --timeline reads a video of any length as a stream.
Exit code: 0 all videos predicted, 1 some could not be read (they are named), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import simplejson

from vidformers.cli import exit_code
from vidformers.data.records import VIDEO_EXTENSIONS
from vidformers.files import write_text_atomically

if TYPE_CHECKING:
    from vidformers.data.readers import VideoReadError
    from vidformers.engine.predict import Prediction, Predictor
    from vidformers.engine.timeline import Timeline

_MOST_SEGMENTS = 20  # lines of a timeline in the terminal


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="video files, or folders of them")
    add(
        "--model",
        help="name of a model or of a file in configs/, or a YAML file; checkpoints of our runs and "
        "files of tools/convert_checkpoint.py know it",
    )
    add("--weights", metavar="FILE", help="checkpoint, of any project that is known; always needed")
    add(
        "--labels",
        metavar="FILE",
        help="class names: a text file, one a line, or JSON: a list, {name: label} "
        "or {label: name}; needed where the weights carry none",
    )
    add("--top", type=_at_least_one, default=5, metavar="K", help="answers for a video (%(default)s)")
    add("--views", type=_at_least_one, metavar="N", help="temporal views (those of the protocol)")
    add("--crops", type=_at_least_one, metavar="N", help="spatial crops (those of the protocol)")
    add(
        "--timeline",
        action="store_true",
        help="slide a window over each video, and write CSV, JSON and a "
        "picture of the probabilities over time",
    )
    add("--window", type=float, metavar="SECONDS", help="with --timeline (as long as a clip of the model)")
    add("--hop", type=float, metavar="SECONDS", help="with --timeline (half a window)")
    add(
        "--out",
        type=Path,
        metavar="PATH",
        help="write the answers to this .json or .csv file; with "
        "--timeline, the folder to write to (the current one)",
    )
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(%(default)s)")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="(%(default)s)")
    add("--batch-size", type=_at_least_one, default=8, metavar="N", help="clips at once (%(default)s)")
    add("--backend", default="pyav", choices=("pyav", "decord", "torchcodec"), help="reader (%(default)s)")
    chosen = parser.parse_args(arguments)
    if not chosen.timeline and (chosen.window is not None or chosen.hop is not None):
        parser.error("--window and --hop are those of a timeline; add --timeline, or leave them out")
    if chosen.timeline and (chosen.views or chosen.crops):
        parser.error("a timeline has one centre crop a window; leave out --views and --crops")
    if chosen.out and not chosen.timeline and chosen.out.suffix not in (".json", ".csv"):
        parser.error(f"--out {chosen.out}: wanted a file that ends in .json or .csv")
    if chosen.out and chosen.timeline and chosen.out.suffix in (".json", ".csv"):
        parser.error(
            f"--out {chosen.out} is named like a file; with --timeline it is a folder, and each video gets "
            f"a .csv, a .json and a .png file: try --out {chosen.out.with_suffix('')}"
        )
    return chosen


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; wanted 1 or more")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return exit_code(lambda: run(parse_arguments(arguments)), wrong=2)


def run(chosen: argparse.Namespace) -> int:
    from vidformers.engine.predict import Predictor

    logging.getLogger("vidformers.checkpoints").setLevel(logging.ERROR)
    paths = find_videos(chosen.videos)
    predictor = Predictor(
        chosen.model,
        weights=chosen.weights,
        labels=chosen.labels,
        num_temporal_views=chosen.views,
        num_spatial_crops=chosen.crops,
        batch_size=chosen.batch_size,
        device=chosen.device,
        precision=chosen.precision,
        backend=chosen.backend,
    )
    print(describe(predictor, chosen))
    for note in predictor.notes:
        print(f"  {note}")
    failures = timelines(predictor, paths, chosen) if chosen.timeline else answers(predictor, paths, chosen)
    if failures:
        print(f"\n{len(failures)} of {len(paths)} videos could not be read:", file=sys.stderr)
        for error in failures:
            print(f"  {error.path}: {error.reason}: {error.detail}", file=sys.stderr)
    return 1 if failures else 0


def find_videos(given: Sequence[str]) -> list[str]:
    """The files of the command line, folders replaced by the videos in them, at any depth, in order of name.

    A file that does not exist stays: it is one that cannot be read. Raises ValueError for a folder without
    videos.
    """
    paths: list[str] = []
    for name in given:
        if not Path(name).is_dir():
            paths.append(name)
            continue
        found = sorted(
            str(path)
            for path in Path(name).rglob("*")
            if path.name.lower().endswith(VIDEO_EXTENSIONS)
            and not path.name.startswith(".")
            and path.is_file()
        )
        if not found:
            raise ValueError(
                f"no video in the folder {name}; known extensions are {' '.join(VIDEO_EXTENSIONS)}"
            )
        paths += found
    return list(dict.fromkeys(paths))


def describe(predictor: Predictor, chosen: argparse.Namespace) -> str:
    """How the answers are made, in a few lines."""
    protocol = predictor.protocol
    how = f"{protocol.num_temporal_views} temporal views x {protocol.num_spatial_crops} spatial crops"
    if chosen.timeline:
        how = "one centre crop a window"
    step = f"{protocol.sampling_rate} apart at {protocol.target_fps:g} a second"
    if chosen.timeline or protocol.temporal_sampling == "segment":
        step = f"spread over the whole {'window' if chosen.timeline else 'video'}"
    return (
        f"{predictor.name}, {len(predictor.class_names)} classes, weights of {chosen.weights}\n"
        f"  {how}; {protocol.num_frames} frames, {step}; {protocol.crop_size} pixels; "
        f"{predictor.device.type}, {predictor.precision}"
        + ("\n  each class for itself: they do not sum to 100 %" if predictor.multi_label else "")
    )


def answers(predictor: Predictor, paths: Sequence[str], chosen: argparse.Namespace) -> list[VideoReadError]:
    """Print the answers for each video as they come, and write them to --out; returns the unreadable ones."""
    from vidformers.data.readers import VideoReadError

    predictions, failures = [], []
    for path in paths:
        try:
            prediction = predictor(path)
        except VideoReadError as error:
            failures.append(error)
            continue
        predictions.append(prediction)
        print(f"\n{path}" + (f"   (damaged: {prediction.damage})" if prediction.damage else ""))
        for rank, (name, probability) in enumerate(prediction.top(chosen.top), start=1):
            print(f"  {rank:3d}  {100 * probability:6.2f} %  {name}", flush=True)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        as_text = answers_json if chosen.out.suffix == ".json" else answers_csv
        write_text_atomically(chosen.out, as_text(predictor, predictions, failures, chosen))
        print(f"\nwritten: {chosen.out}")
    return failures


def answers_json(
    predictor: Predictor,
    predictions: Sequence[Prediction],
    failures: Sequence[VideoReadError],
    chosen: argparse.Namespace,
) -> str:
    content = {
        "model": predictor.name,
        "weights": chosen.weights,
        "multi_label": predictor.multi_label,
        "protocol": asdict(predictor.protocol),
        "videos": [
            {
                "path": prediction.path,
                "damage": prediction.damage or None,
                "top": [
                    {"class": name, "probability": probability}
                    for name, probability in prediction.top(chosen.top)
                ],
            }
            for prediction in predictions
        ],
        "unreadable": [
            {"path": error.path, "reason": error.reason, "detail": error.detail} for error in failures
        ],
    }
    return simplejson.dumps(content, indent=2) + "\n"


def answers_csv(
    predictor: Predictor,
    predictions: Sequence[Prediction],
    failures: Sequence[VideoReadError],
    chosen: argparse.Namespace,
) -> str:
    """A row an answer; an unreadable video has one row, with its reason."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "rank", "class", "probability", "unreadable"])
    for prediction in predictions:
        for rank, (name, probability) in enumerate(prediction.top(chosen.top), start=1):
            writer.writerow([prediction.path, rank, name, f"{probability:.6f}", ""])
    for error in failures:
        writer.writerow([error.path, "", "", "", f"{error.reason}: {error.detail}"])
    return buffer.getvalue()


def timelines(predictor: Predictor, paths: Sequence[str], chosen: argparse.Namespace) -> list[VideoReadError]:
    """Write and print the timeline of each video; returns those that could not be read."""
    from tqdm import tqdm

    from vidformers.data.readers import VideoReadError
    from vidformers.engine.timeline import predict_timeline
    from vidformers.report.timeline import write_timeline

    folder = chosen.out or Path()
    if folder.is_file():
        raise ValueError(f"--out {folder} is a file; with --timeline it is the folder to write to")
    failures: list[VideoReadError] = []
    for path, stem in zip(paths, stems(paths), strict=True):
        # disable=None: no bar where nobody looks.
        with tqdm(unit="window", desc=Path(path).name, leave=False, disable=None, mininterval=0.5) as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            try:
                timeline = predict_timeline(
                    predictor, path, window_seconds=chosen.window, hop_seconds=chosen.hop, progress=show
                )
            except VideoReadError as error:
                failures.append(error)
                continue
        written = write_timeline(timeline, folder, stem)
        print(f"\n{timeline_text(timeline)}\n  written: {', '.join(map(str, written))}", flush=True)
        if len(written) < 3:
            print("  no picture: it needs matplotlib, pip install 'vidformers[analysis]'")
    return failures


def stems(paths: Sequence[str]) -> list[str]:
    """A name for the files of each video: its own, numbered where several are called the same."""
    taken: dict[str, int] = {}
    names = []
    for path in paths:
        stem = f"{Path(path).stem}_timeline"
        taken[stem] = taken.get(stem, 0) + 1
        names.append(stem if taken[stem] == 1 else f"{stem}_{taken[stem]}")
    return names


def timeline_text(timeline: Timeline) -> str:
    """The stretches of a timeline, for a terminal."""
    segments = timeline.segments()
    count = len(timeline.probabilities)
    windows = f"{count} windows" if count > 1 else "1 window"
    lines = [
        f"{timeline.path}   {_clock(timeline.duration_seconds)}, {windows} of {timeline.window_seconds:.2f} s"
    ]
    if timeline.damage:
        lines.append(f"  damaged: {timeline.damage}")
    for start, end, name, probability in segments[:_MOST_SEGMENTS]:
        share = "" if math.isnan(probability) else f"{100 * probability:6.2f} %"
        lines.append(f"  {_clock(start):>9} to {_clock(end):>9}  {share:>8}  {name}")
    if len(segments) > _MOST_SEGMENTS:
        lines.append(f"  ... and {len(segments) - _MOST_SEGMENTS} more")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    """0:07.5, 1:02:07.5."""
    tenths = round(seconds * 10)
    hours, minutes = tenths // 36000, tenths // 600 % 60
    rest = f"{tenths // 10 % 60:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"
