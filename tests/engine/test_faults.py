"""What a machine does to a run: full disks, killed processes, two runs in one folder, impatient people."""

import csv
import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vidformers import create_model, open_video
from vidformers.analysis.ablation_table import AblationTable, PerturbedScores
from vidformers.checkpoints.save import save_weights
from vidformers.cli.run import main
from vidformers.data.datasets.clips import TrainClips
from vidformers.data.loader import EpochLoader, build_loader
from vidformers.engine import logs
from vidformers.engine.checkpoint import load_newest_checkpoint, save_checkpoint
from vidformers.engine.logs import FailedVideos, JsonlLog
from vidformers.engine.output_folder import LOCK_NAME, sole_use
from vidformers.engine.predictions import Predictions
from vidformers.engine.train import Trainer
from vidformers.report.figures import Panel, write_panels
from vidformers.report.html import write_report
from vidformers.report.overlays import save_overlays
from vidformers.report.strips import save_clips, save_image
from vidformers.report.testing import save_examples

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "run_net.py"
CONFIG = """
MODEL: {{NAME: mvit_tiny, NUM_CLASSES: 2, ARGS: {{embed_dim: 8}}}}
DATA:
  PATH_TO_DATA_DIR: {data}
  NUM_FRAMES: 4
  TRAIN_CROP_SIZE: 32
  TEST_CROP_SIZE: 32
  TRAIN_JITTER_SCALES: [36, 40]
TRAIN: {{BATCH_SIZE: 2, EVAL_PERIOD: 10, CHECKPOINT_STEPS: 1}}
TEST: {{ENABLE: false}}
SOLVER: {{MAX_EPOCH: 2, BASE_LR: 1e-3}}
DATA_LOADER: {{NUM_WORKERS: 1}}
LOG_PERIOD: 1
DEVICE: cpu
OUTPUT_DIR: {output}
"""
# Runs run_net.py after a piece of Python that makes something happen.
BEFORE = """
import runpy, sys
exec(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path({tool!r}, run_name="__main__")
"""


@pytest.fixture
def config(tmp_path: Path, tiny_dataset: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(data=tiny_dataset, output=tmp_path / "out"))
    return path


def start(config: Path, before: str = "", *overrides: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-c",
        BEFORE.format(tool=str(TOOL)),
        before,
        "run_net.py",
        "--cfg",
        str(config),
    ]
    return subprocess.Popen(
        [*command, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )


def run(config: Path, *overrides: str) -> int:
    """The same in this process, which need not import torch again; its exit code."""
    return main(["--cfg", str(config), "DATA_LOADER.NUM_WORKERS", "0", *overrides])


@contextmanager
def file_limit(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes in the block: what the system does, not what Python would do."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def finish(process: subprocess.Popen, seconds: float = 600) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def steps(config: Path) -> list[tuple[int, int]]:
    lines = (config.parent / "out" / "log.jsonl").read_text().splitlines()
    events = [simplejson.loads(line) for line in lines]
    return [(event["epoch"], event["step"]) for event in events if event["event"] == "train"]


# ---- disks


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_while_a_checkpoint_is_written(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_limit(20_000):
        assert run(config) == 1
    err = capsys.readouterr().err
    assert "could not be written (" in err and "TRAIN.KEEP_CHECKPOINTS" in err
    checkpoints = config.parent / "out" / "checkpoints"
    assert list(checkpoints.iterdir()) == [], "half a file stayed behind"
    assert run(config) == 0  # there is room again
    assert len(list(checkpoints.glob("checkpoint_*"))) == 8


def test_the_checkpoints_before_a_full_disk_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "checkpoint_epoch_00001.pyth"
    save_checkpoint(first, {"epoch": 1, "weight": torch.zeros(1000)})
    content = first.read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"vidformers.engine.checkpoint.os.{name}", full_disk)
            with pytest.raises(OSError, match=r"00001.pyth could not be written .*No space left"):
                save_checkpoint(first, {"epoch": 2})
        assert [path.name for path in tmp_path.iterdir()] == [first.name]
        assert first.read_bytes() == content
    with file_limit(1000), pytest.raises(OSError, match=r"could not be written \(.*File too large"):
        save_checkpoint(tmp_path / "checkpoint_epoch_00002.pyth", {"epoch": 2, "weight": torch.zeros(9999)})
    assert load_newest_checkpoint(tmp_path)[0] == first


def test_no_half_line_stays_in_the_log(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path / "log.jsonl")
    log.write("train", step=1)
    before = log.path.read_text()
    with file_limit(len(before) + 20), pytest.raises(OSError, match=r"File too large: .*log.jsonl"):
        log.write("train", step=2, text="x" * 100)
    assert log.path.read_text() == before
    log.write("train", step=2)
    assert len(log.path.read_text().splitlines()) == 2


def _predictions(path: Path) -> None:
    scores = np.full((40, 1, 2), 0.5, np.float32)
    Predictions([str(i) for i in range(40)], np.zeros(40, int), scores, np.zeros(40, bool), 1, 1).save(path)


def _ablation(path: Path) -> None:
    scores = np.full((9, 1, 2), 0.5, np.float32)
    one = PerturbedScores("reverse", scores, np.zeros((9, 1)))
    AblationTable(list("abcdefghi"), np.zeros(9, int), scores[:, 0], [one], ["x", "y"], None, None, []).save(
        path
    )


def _failed(path: Path) -> None:
    failed = FailedVideos(path, backend="pyav")
    new = range(len(failed.rows), len(failed.rows) + 40)
    failed.add("train", [(f"{i}.mp4", "empty file", "0 bytes") for i in new])


def _overlay(path: Path) -> None:
    map_ = np.ones(CLIP.shape[1:4], np.float32)
    save_overlays(path.parent, path.stem, CLIP[0], map_, frames_per_second=8, formats=[path.suffix[1:]])


CLIP = np.random.default_rng(0).integers(0, 255, (1, 4, 24, 24, 3), dtype=np.uint8)
WRITERS = {
    "report.html": lambda path: write_report(path, "t", []),
    "results.json": lambda path: logs.write_json(path, {"a": "b" * 1000}),
    "failed_videos.csv": _failed,
    "predictions.npz": _predictions,
    "ablation.npz": _ablation,
    "test_examples.npz": lambda path: save_examples(path, ["a"], CLIP, CLIP),
    "clips.npz": lambda path: save_clips(path, {"clean": CLIP[0]}),
    "strip.png": lambda path: save_image(path, CLIP[0, 0]),
    "explained.gif": _overlay,
    "explained.mp4": _overlay,
    "figure.png": lambda path: write_panels([Panel("t", "", 2, 1, lambda figure: figure.subplots())], path),
    "model.safetensors": lambda path: save_weights(create_model("mvit_tiny", num_classes=2), path),
    "checkpoint.pyth": lambda path: save_checkpoint(path, {"weight": torch.zeros(1000)}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_full_disk_cuts_short_is_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    for there_before in (True, False):
        with file_limit(300), pytest.raises(OSError, match=name):
            WRITERS[name](path)
        assert [file.name for file in tmp_path.iterdir()] == [name] * there_before
        assert not there_before or path.read_bytes() == before
        path.unlink(missing_ok=True)


def test_reading_goes_on_where_the_index_cannot_be_kept(tmp_path: Path, tiny_dataset: Path) -> None:
    for folder, limit in ((tmp_path / "cache", 100), (Path("/proc/cache"), 10**9)):
        with file_limit(limit), pytest.warns(UserWarning, match=r"the frame index .* cannot be written"):
            reader = open_video(str(tiny_dataset / "video_0.mp4"), index_cache=str(folder))
            assert reader.get_frames([0, 3]).shape[0] == 2
            reader.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("folder", ["/proc", "/proc/vidformers"])
def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(
    config: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    assert main(["--cfg", str(config), "OUTPUT_DIR", folder]) == 1
    printed = capsys.readouterr()
    assert f"OUTPUT_DIR {folder} cannot be written (" in printed.err and "epoch" not in printed.out


def test_failed_videos_name_the_reader_and_any_file_name(tmp_path: Path, capsys) -> None:
    path = tmp_path / "failed_videos.csv"
    path.write_text("split,path,reason,detail\ntrain,old.mp4,empty file,0 bytes\n")  # of an earlier version
    failed = FailedVideos(path, backend="decord")
    name = os.fsdecode(b"caf\xe9.mp4")  # no text, but a file can be named so
    failed.add("train", [(name, "empty file", "0 bytes")])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["backend"]) for row in rows] == [("old.mp4", ""), ("caf\\udce9.mp4", "decord")]
    logs.say(f"Unreadable: {name}")
    assert "caf\\udce9.mp4" in capsys.readouterr().out


# ---- processes


class Suicidal(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 5:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class TooLarge(torch.utils.data.Dataset):
    """Items of 40 KB, of a process whose files may have 20, those in /dev/shm included."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return torch.zeros(10_000)


def one_worker(dataset: torch.utils.data.Dataset) -> EpochLoader:
    return build_loader(
        dataset,
        batch_size=1,
        shuffle=False,
        num_workers=1,
        pin_memory=False,
        seed=0,
        drop_last=False,
        collate_fn=list,
    )


DIED = r"has died \(DataLoader worker \(pid \d+\) is killed by signal: Killed.*NUM_WORKERS.*goes on"


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ChildProcessError, match=DIED):
        list(one_worker(Suicidal()))


def test_the_death_of_a_worker_does_not_disturb_what_is_being_done(tmp_path: Path) -> None:
    """torch would raise it in the middle of a checkpoint, which then could not be written, or lose it."""
    batches = iter(one_worker(Suicidal()))
    assert [next(batches)[0] for _ in range(4)] == [0, 1, 2, 3]  # the worker reads two ahead
    worker = multiprocessing.active_children()[0]
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    end = time.monotonic() + 60
    is_dead = None
    while is_dead is None and time.monotonic() < end:
        save_checkpoint(path, {"epoch": 1})
        # Left to be found dead by torch too, which is_alive() would not do.
        is_dead = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    save_checkpoint(path, {"epoch": 2})
    with pytest.raises(ChildProcessError, match=DIED):
        next(batches)


def test_a_batch_that_a_worker_cannot_hand_over_is_an_error() -> None:
    """torch's queue would print that, and the run wait for the batch for ever."""
    with pytest.raises(OSError, match=r"^a batch could not be put into memory.*File too large.*/dev/shm"):
        next(iter(one_worker(TooLarge())))


def test_a_run_whose_workers_cannot_hand_over_their_batches_ends(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_limit(20_000):
        assert run(config, "DATA_LOADER.NUM_WORKERS", "1") == 1
    err = capsys.readouterr().err
    assert "a batch could not be put into memory shared with the main process (" in err
    assert "Traceback" not in err


def test_a_run_whose_worker_was_killed_goes_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = TrainClips.__getitem__, []

    def out_of_memory(self: TrainClips, index: int) -> dict:
        seen.append(index)
        if len(seen) == 8:  # in a worker
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    monkeypatch.setattr(TrainClips, "__getitem__", out_of_memory)
    assert run(config, "DATA_LOADER.NUM_WORKERS", "1") == 1
    assert "a process that reads videos has died" in capsys.readouterr().err
    monkeypatch.undo()
    assert (1, 1) in steps(config)
    assert run(config) == 0 and "Resuming from" in capsys.readouterr().out
    assert steps(config)[-1] == (2, 4)
    assert sorted(set(steps(config))) == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3, 4)]


SLOW = """
import time
from vidformers.engine.train import Trainer
step = Trainer.train_step
def train_step(self, *arguments):
    time.sleep(0.7)
    return step(self, *arguments)
Trainer.train_step = train_step
"""


def wait_for(happens: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 400
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the run does not begin"
        time.sleep(0.05)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_by_hand(config: Path, times: int) -> None:
    process = start(config, SLOW)
    log = config.parent / "out" / "log.jsonl"
    wait_for(lambda: log.exists() and "train" in log.read_text(), process)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers too
        time.sleep(0.1)
    code, _, err = finish(process, seconds=240)
    # A second one that finds Python taking itself down ends the process there: a shell shows 130 too.
    assert code == 130 or (times == 2 and code == -signal.SIGINT), err
    assert "Traceback" not in err, err
    checkpoints = config.parent / "out" / "checkpoints"
    # Two in a row may come before the first checkpoint is written; what there is is whole.
    assert not list(checkpoints.glob("*.part"))
    assert run(config) == 0


# ---- two runs


def test_two_runs_in_one_folder(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = start(config, SLOW)
    lock = config.parent / "out" / LOCK_NAME
    wait_for(lambda: lock.exists() and lock.read_text().endswith("\n"), first)
    assert run(config) == 1
    assert f"is in use by another run (process {first.pid} on " in capsys.readouterr().err
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    with sole_use(config.parent / "out"):
        pass  # a dead process holds nothing


def test_the_lock_is_that_of_the_process_and_not_of_what_it_starts(tmp_path: Path) -> None:
    """A worker that is forked and outlives its run does not keep the folder."""
    answers, told = os.pipe()
    run_of_its_own = os.fork()
    if run_of_its_own == 0:
        with sole_use(tmp_path / "out"):
            if (worker := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            os.write(told, str(worker).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(run_of_its_own, 0)
    worker = int(os.read(answers, 20))
    try:
        os.kill(worker, 0)  # it lives
        with sole_use(tmp_path / "out"):
            assert f"process {os.getpid()}" in (tmp_path / "out" / LOCK_NAME).read_text()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(answers)
        os.close(told)


def test_only_the_first_process_of_a_run_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with sole_use(tmp_path / "out"):
        assert not (tmp_path / "out" / LOCK_NAME).exists()


# ---- one process of several


def one_dies(config: Path) -> None:
    """A run in which the second process is killed in the third step, the first time."""
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        step, seen = Trainer.train_step, []

        def train_step(self: Trainer, *arguments: torch.Tensor) -> tuple[float, float, float | None]:
            seen.append(1)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *arguments)

        Trainer.train_step = train_step  # type: ignore[method-assign]
    if run(config):
        sys.exit(1)


def test_a_killed_process_of_several_is_started_again_and_goes_on(
    config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # What torchrun is besides its command line (test_distributed.py), with processes that are forked.
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="fork",
        max_restarts=1,
        monitor_interval=0.2,
    )
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    try:
        elastic_launch(launch, one_dies)(config)
    finally:  # it leaves its own
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert "Resuming from" in capfd.readouterr().out
    assert sorted(set(steps(config))) == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3, 4)]
    assert steps(config)[0] == (1, 1) and steps(config).count((1, 1)) == 1


# ---- clocks


def test_a_clock_that_jumps_changes_no_time(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes a day forward and back, as when a machine sets it; durations are another's."""
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(1)
        return real() + (86400 if len(calls) % 2 else -86400)

    monkeypatch.setattr(time, "time", jumping)
    assert run(config, "SOLVER.MAX_EPOCH", "1") == 0
    monkeypatch.undo()
    assert calls
    for line in (config.parent / "out" / "log.jsonl").read_text().splitlines():
        event = simplejson.loads(line)
        if event["event"] == "train":
            assert 0 <= event["eta_seconds"] < 3600 and 0 < event["videos_per_second"] < 1e5
            assert 0 <= event["waiting_for_data"] <= 1
