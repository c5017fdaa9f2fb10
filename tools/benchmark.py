"""Measure what this library costs beside others: python tools/benchmark.py data --help"""

import argparse
from pathlib import Path

import simplejson

from vidformers.benchmarks.data import as_json, measure_data, report_lines


def positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a whole number above 0")
    return int(text)


def view_counts(text: str) -> tuple[int, int]:
    """5x3 -> (5, 3)"""
    temporal, _, spatial = text.partition("x")
    if not (temporal.isdecimal() and int(temporal) > 0 and spatial in ("1", "3")):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; wanted temporal x spatial views with 1 or 3 spatial ones, such as 5x3"
        )
    return int(temporal), int(spatial)


def run_data(arguments: argparse.Namespace) -> None:
    environment, rows = measure_data(
        seconds=arguments.seconds,
        gops=arguments.gops,
        views=arguments.views,
        rounds=arguments.rounds,
        folder=arguments.videos,
    )
    print("\n".join(report_lines(environment, rows)))
    if arguments.json:
        arguments.json.write_text(simplejson.dumps(as_json(environment, rows), indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser(
        "data",
        help="reading test views and training clips",
        description="Our reading of test views and training clips beside PySlowFast's way, pytorchvideo, "
        "decord and bare decoding, on generated Kinetics-like files. CPU time with one decoding thread; "
        "medians, all contenders interleaved.",
        epilog="example: python tools/benchmark.py data --rounds 9 --json benchmark_data.json",
    )
    data.add_argument(
        "--rounds", type=positive, default=5, help="how often everything is measured (default: 5)"
    )
    data.add_argument("--seconds", type=float, default=10.0, help="length of the videos (default: 10)")
    data.add_argument(
        "--gops", type=positive, nargs="+", default=[12, 250], help="key frame distances (default: 12 250)"
    )
    data.add_argument(
        "--views",
        type=view_counts,
        nargs="+",
        default=[(5, 1), (5, 3), (10, 3)],
        help="temporal x spatial views (default: 5x1 5x3 10x3)",
    )
    data.add_argument(
        "--videos", metavar="FOLDER", help="where to keep the generated videos (default: nowhere)"
    )
    data.add_argument("--json", type=Path, metavar="FILE", help="write the measurement there too")
    data.set_defaults(run=run_data)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
