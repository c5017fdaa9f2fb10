"""A sample of tools/trust_report.py long-run: nothing is kept from one clip to the next."""

import sys
from pathlib import Path

import pytest

from tests.trust_long_run import Sample, long_run, make_clips, make_frame_folders, now, row, slope
from tools.trust_report import long_lines, problems


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", ["pyav", "decord", "frames"])
def test_files_threads_and_memory_stay(tmp_path: Path, backend: str) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    make = make_frame_folders if backend == "frames" else make_clips
    clips = make(tmp_path, num_clips=40, num_files=4)
    samples = long_run(clips, backend=backend, epochs=3, every=20)
    assert [sample.clips for sample in samples] == [20, 40, 60, 80, 100, 120]
    assert len({sample.files for sample in samples[1:]}) == 1
    assert len({sample.threads for sample in samples[1:]}) == 1
    assert samples[-1].megabytes - samples[1].megabytes < 30


def test_a_leak_is_seen() -> None:
    flat = [Sample(clips, 100 + clips % 3, 90, 5, 1) for clips in range(0, 4000, 100)]
    assert abs(slope(flat)) < 0.5
    leak = [
        Sample(s.clips, 100 + s.clips * 0.037, 90 + s.clips * 0.03, 5 + s.clips // 1000, 1 + s.clips // 3000)
        for s in flat
    ]
    assert slope(leak) == pytest.approx(37, rel=0.01)
    figures = [row("pyav", samples, num_clips=2000, epochs=2) for samples in (flat, leak)]
    assert problems("long-run", figures[:1]) == []
    found = problems("long-run", figures[1:])
    assert [text.split(": ")[1].split()[-1] for text in found] == ["clips", "files", "threads"]
    assert "| pyav | 2000 x 2 |" in long_lines(figures)[2] and "| +30.00 MB |" in long_lines(figures)[3]


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_is_in_use_is_told_from_what_was_given_back() -> None:
    before = now(0).in_use
    held = [bytearray(1000) for _ in range(5000)]
    between = now(0).in_use
    del held
    assert between - before > 4 and abs(now(0).in_use - before) < 1
