"""Show where in a video an answer comes from: a map over the frames, as PNG strip, GIF and MP4:

    python tools/explain.py video.mp4 --model mvit_v2_s_16x4 --weights x.pyth --labels kinetics400.json
    python tools/explain.py videos/ --weights output/run/checkpoints/best.pyth --method gradcam --class left

rollout: where information flows, of every class. relevance: attention weighted by its gradient for the class.
gradcam: what of the last tokens speaks for the class. docs/explain.md says what they mean.
Exit code: 0 all videos explained, 1 some could not be read (they are named), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from vidformers.cli import exit_code
from vidformers.cli.predict import find_videos


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="video files, or folders of them")
    add("--model", help="name of a model, or a YAML file; checkpoints of our runs know it")
    add("--weights", metavar="FILE", help="checkpoint, of any project that is known; always needed")
    add("--labels", metavar="FILE", help="class names, where the weights carry none (see predict)")
    add("--method", default="relevance", choices=("rollout", "relevance", "gradcam"), help="(%(default)s)")
    add("--class", dest="class_name", metavar="LABEL", help="name or number of a class (the answer)")
    add("--view", type=int, metavar="N", help="temporal view of the protocol, from 0 (the middle one)")
    add("--out", type=Path, default=Path("explained"), metavar="DIR", help="folder (%(default)s)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return exit_code(lambda: run(parse_arguments(arguments)), wrong=2)


def run(chosen: argparse.Namespace) -> int:
    from vidformers.data.readers import VideoReadError
    from vidformers.engine.explain import explain
    from vidformers.engine.predict import Predictor

    logging.getLogger("vidformers.checkpoints").setLevel(logging.ERROR)
    if chosen.out.is_file():
        raise ValueError(f"--out {chosen.out} is a file; give a folder")
    paths = find_videos(chosen.videos)
    predictor = Predictor(chosen.model, weights=chosen.weights, labels=chosen.labels, device=chosen.device)
    for note in predictor.notes:
        print(note)
    failures = []
    taken: dict[str, int] = {}
    for path in paths:
        try:
            explanation = explain(
                predictor, path, method=chosen.method, class_name=chosen.class_name, view=chosen.view
            )
        except VideoReadError as error:
            failures.append(error)
            continue
        stem = f"{Path(path).stem}_{chosen.method}"
        taken[stem] = taken.get(stem, 0) + 1
        written = explanation.save(chosen.out, stem if taken[stem] == 1 else f"{stem}_{taken[stem]}")
        said = f"{100 * explanation.probability:.2f} % {explanation.class_name}"
        if explanation.answer != explanation.class_name:
            said += f" (the answer is {explanation.answer})"
        print(f"{path}: {said}\n  written: {', '.join(map(str, written))}", flush=True)
    for failed in failures:
        print(f"could not be read: {failed.path}: {failed.reason}: {failed.detail}", file=sys.stderr)
    return 1 if failures else 0
