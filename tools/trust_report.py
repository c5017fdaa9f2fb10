"""What broken videos and long runs do to this library, in figures:

    python tools/trust_report.py media                  # damaged files through every reader
    python tools/trust_report.py long-run               # thousands of clips, and what the process holds
    python tools/trust_report.py configs                # each value of each key, and thousands of mixtures
    python tools/trust_report.py media --write docs/reliability.md

Needs the extra `test`. Exit code: 0 nothing broke, 1 something did (it is listed).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import simplejson

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vidformers.benchmarks.environment import describe_environment  # noqa: E402
from vidformers.files import write_text_atomically  # noqa: E402

BACKENDS = ("pyav", "decord", "torchcodec")
# MB in a thousand clips: decoded, a clip of these takes 37 KB, so that keeping them all would be 37.
MAX_SLOPE = 2.0


def run_media(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from tests.mutants import make_bases, make_mutants
    from tests.trust_media import examine_all, table

    bases = make_bases(folder / "bases")
    mutants = list(make_mutants(bases, folder / "mutants", count=chosen.files, seed=chosen.seed))
    results = examine_all(mutants, backend=chosen.backend, num_workers=chosen.workers, show_progress=True)
    return table(chosen.backend, results) | {"bases": len(bases), "seed": chosen.seed}


def run_long(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    from tests.trust_long_run import long_run, make_clips, make_frame_folders, row

    torch.set_num_threads(1)
    make = make_frame_folders if chosen.backend == "frames" else make_clips
    clips = make(folder, num_clips=chosen.clips)
    every = max(10, chosen.clips * chosen.epochs // 600 * 10)
    samples = long_run(clips, backend=chosen.backend, epochs=chosen.epochs, every=every)
    return row(chosen.backend, samples, num_clips=chosen.clips, epochs=chosen.epochs)


def run_configs(chosen: argparse.Namespace) -> dict[str, Any]:
    from tests.trust_configs import attempt_all, covering, drawn, make_lists, table

    configs = [*covering(1, seed=chosen.seed), *covering(4, seed=chosen.seed)]
    configs += drawn(chosen.draws, seed=chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        return table(configs, attempt_all(configs, make_lists(Path(folder))))


def problems(what: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What must not be, a line each."""
    if what == "media":
        return [
            f"{row['backend']}: {one['kind']} of {Path(one['base']).name}: {one['reason']} ({one['path']})"
            for row in rows
            for one in row["broken"]
        ]
    if what == "configs":
        return [f"{one['reason']} ({one['config']})" for one in rows[0]["broken"]]
    found = []
    for row in rows:
        if row["megabytes_per_thousand_clips"] > MAX_SLOPE:
            found.append(
                f"{row['backend']}: {row['megabytes_per_thousand_clips']} MB more in a thousand clips"
            )
        for name in ("files", "threads"):
            if row[name][1] > row[name][0]:
                found.append(f"{row['backend']}: from {row[name][0]} to {row[name][1]} {name}")
    return found


def media_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    reasons = sorted({reason for row in rows for reason in row["reasons"]})
    lines = [
        f"{rows[0]['files']} files, of {rows[0]['bases']} sound ones and seed {rows[0]['seed']}:",
        "",
        f"| | {' | '.join(row['backend'] for row in rows)} |",
        f"|---|{'---|' * len(rows)}",
    ]

    def line(name: str, values: Sequence[object]) -> None:
        lines.append(f"| {name} | {' | '.join(str(value) for value in values)} |")

    line("decoded, no sign of damage", [row["decoded"] for row in rows])
    line("of these with other frames than the sound file's", [row["decoded_other"] for row in rows])
    line("of these found by `data_prep/verify.py`", [row["decoded_other_found"] for row in rows])
    line("repaired: decoded, and named as damaged", [row["repaired"] for row in rows])
    line("failed: counted and named", [row["failed"] for row in rows])
    for reason in reasons:
        line(f"failed, {reason}", [row["reasons"].get(reason, 0) for row in rows])
    line("crashes, hangs, other exceptions, clips of another length", [len(row["broken"]) for row in rows])
    line("longest time for a file", [f"{row['slowest_seconds']:.2f} s" for row in rows])
    line("most memory for a file", [f"{row['largest_megabytes']:.0f} MB" for row in rows])
    lines += ["", f"By kind of damage, with {rows[0]['backend']}:", ""]
    lines += ["| | decoded | repaired | failed |", "|---|---|---|---|"]
    for kind, outcomes in rows[0]["kinds"].items():
        line(kind, [outcomes.get(name, 0) for name in ("decoded", "repaired", "failed")])
    return lines


def long_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| | clips x epochs | memory at first, at last | gain in a thousand clips | of it in use | "
        "open files | threads |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        files, threads = (" to ".join(map(str, dict.fromkeys(row[name]))) for name in ("files", "threads"))
        lines.append(
            f"| {row['backend']} | {row['clips']} x {row['epochs']} | {row['megabytes_early']:.0f}, "
            f"{row['megabytes_late']:.0f} MB | {row['megabytes_per_thousand_clips']:+.2f} MB | "
            f"{row['in_use_per_thousand_clips']:+.2f} MB | {files} | {threads} |"
        )
    return lines


def config_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    row = rows[0]
    return [
        f"{row['configs']} configs, of {row['keys']} keys and {row['values']} values:",
        "",
        "| | |",
        "|---|---|",
        f"| took a step of training and tested two videos | {row['ran']} |",
        f"| refused with a sentence | {row['refused']} |",
        f"| anything else | {len(row['broken'])} |",
    ]


def measure(arguments: Sequence[str], backend: str) -> dict[str, Any]:
    """The figures of one backend, from a process of its own: nothing in it is another library's."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if backend == "torchcodec" and sys.platform == "linux":
        links = [sys.executable, "-m", "vidformers.data.readers.ffmpeg_links"]
        folder = subprocess.run(links, check=True, capture_output=True, text=True).stdout.strip()
        environment["LD_LIBRARY_PATH"] = f"{folder}:{environment.get('LD_LIBRARY_PATH', '')}"
    with tempfile.TemporaryDirectory() as temporary:
        out, log = Path(temporary) / "figures.json", Path(temporary) / "log.txt"
        command = [sys.executable, __file__, *arguments, "--backends", backend, "--figures", str(out)]
        with open(log, "w") as file:  # old decoders write there what they think of each file
            code = subprocess.run(command, env=environment, stderr=file, stdout=file).returncode
        if not out.exists():
            raise RuntimeError(f"{' '.join(command)} ended with {code}: {log.read_text()[-2000:]}")
        return simplejson.loads(out.read_text())


def write_section(path: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between the comments <!-- name --> and <!-- /name --> of a file."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->\n")
    if not (begin and end):
        raise ValueError(f"{path} has no <!-- {name} --> and <!-- /{name} -->; put both where the table goes")
    write_text_atomically(path, before + begin + "\n".join(lines) + "\n" + end + after)


def main(arguments: Sequence[str] | None = None) -> int:
    def number(text: str) -> int:
        if not (text.isdecimal() and int(text) > 0):
            raise argparse.ArgumentTypeError(f"got {text!r}; wanted a whole number above 0")
        return int(text)

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("media", "long-run", "configs"))
    parser.add_argument("--backends", nargs="+", choices=(*BACKENDS, "frames"))
    parser.add_argument("--files", type=number, default=1200, help="damaged files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="what is done to them (%(default)s)")
    parser.add_argument("--workers", type=number, default=1, help="processes that read (%(default)s)")
    parser.add_argument("--clips", type=number, default=2000, help="clips of an epoch (%(default)s)")
    parser.add_argument("--epochs", type=number, default=6, help="of the long run (%(default)s)")
    parser.add_argument("--draws", type=number, default=1000, help="mixtures of configs (%(default)s)")
    parser.add_argument("--write", type=Path, help="document whose table is replaced")
    parser.add_argument("--figures", type=Path, help="JSON file; of one backend, measured in this process")
    chosen = parser.parse_args(arguments)
    if chosen.figures:
        chosen.backend = chosen.backends[0]
        with tempfile.TemporaryDirectory() as folder:
            run = run_media if chosen.what == "media" else run_long
            chosen.figures.write_text(simplejson.dumps(run(chosen, Path(folder))))
        return 0
    # Damaged media are files: folders of pictures are read by Pillow alone.
    backends = chosen.backends or [*BACKENDS, *(["frames"] if chosen.what == "long-run" else [])]
    numbers = ("files", "seed", "workers", "clips", "epochs")
    passed_on = [chosen.what, *(f"--{name}={getattr(chosen, name)}" for name in numbers)]
    if chosen.what == "configs":
        rows = [run_configs(chosen)]
    else:
        rows = [measure(passed_on, backend) for backend in backends]
    facts = describe_environment(("torch", "av", "decord", "torchcodec"))
    lines = {"media": media_lines, "long-run": long_lines, "configs": config_lines}[chosen.what](rows)
    lines += ["", f"{', '.join(f'{name} {value}' for name, value in facts.items())}."]
    print("\n".join(lines))
    if chosen.write:
        write_section(chosen.write, chosen.what, lines)
    broken = problems(chosen.what, rows)
    print("\n".join(["", f"{len(broken)} problems", *broken]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
