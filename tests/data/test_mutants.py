"""A sample of what tools/trust_report.py does at length: damaged and hostile files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.data.video_files import write_video
from tests.mutants import KINDS, Mutant, make_bases, make_mutants
from tests.trust_media import examine, examine_all
from tools.trust_report import main, media_lines, problems, write_section
from vidformers.data.readers import VideoReadError, open_video

BASES = ("b_frames.mp4", "mpeg4_b.avi", "with_sound.mkv", "h264_b.ts", "animation.mov")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_bases(tmp_path_factory.mktemp("bases"), names=BASES)


def test_a_seed_gives_the_same_files(bases: list[Path], tmp_path: Path) -> None:
    first, again = (list(make_mutants(bases, tmp_path / name, count=60, seed=3)) for name in "ab")
    assert [mutant.kind for mutant in first] == [mutant.kind for mutant in again]
    for one, other in zip(first, again, strict=True):
        if one.base:
            assert Path(one.path).read_bytes() == Path(other.path).read_bytes()
    assert {mutant.kind for mutant in first if mutant.base} == set(KINDS)
    changed = [m for m in first if m.base and Path(m.path).read_bytes() != Path(m.base).read_bytes()]
    assert len(changed) > 35


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_nothing_breaks_the_reader(bases: list[Path], tmp_path: Path, backend: str) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    mutants = make_mutants(bases, tmp_path, count=120, seed=1)
    results = examine_all(mutants, backend=backend, num_workers=1, show_progress=False)
    assert len(results) == 120
    assert [(mutant, outcome) for mutant, outcome in results if outcome.outcome == "broken"] == []
    assert {outcome.outcome for _, outcome in results} == {"decoded", "repaired", "failed"}
    assert all(outcome.reason for _, outcome in results if outcome.outcome != "decoded")
    assert max(outcome.seconds for _, outcome in results) < 30
    assert max(outcome.megabytes for _, outcome in results) < 500
    sound = [o for m, o in results if m.kind == "wrong extension"]
    assert sound and not any(outcome.is_other for outcome in sound)


def test_what_is_broken_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = Mutant(str(write_video(tmp_path / "a.mp4")), "sound", "")
    assert examine(mutant, backend="pyav").outcome == "decoded"
    monkeypatch.setattr("tests.trust_media.NUM_VIEWS", 3)
    monkeypatch.setattr(
        "vidformers.data.datasets.clips.test_views", lambda *_, **__: pytest.fail("an exception of its own")
    )
    assert examine(mutant, backend="pyav").outcome == "broken"


def test_decord_is_not_asked_for_what_would_abort_the_process(tmp_path: Path) -> None:
    """It takes memory for every frame that a header promises, and ends the process where there is none."""
    pytest.importorskip("decord")
    path = write_video(tmp_path / "promises.avi", codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"strh") + 40, 2**31 - 1)
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match="promises 2147483607 frames more than there are") as caught:
        open_video(path, "decord")
    assert caught.value.reason == "unsupported by decord"
    with open_video(path) as video:
        assert len(video.get_frames([0, 39])) == 2
        assert "header promises 2147483647 frames, 40 are there" in video.damage


def test_every_backend_tells_what_the_header_tells(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_video(tmp_path / "cut.avi", codec="mjpeg", pix_fmt="yuvj420p")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_video(path) as whole, open_video(path, "decord") as other:
        assert whole.damage and other.damage == whole.damage


ROW = {
    "backend": "pyav", "files": 3, "decoded": 1, "decoded_other": 0, "decoded_other_found": 0, "repaired": 1,
    "failed": 1, "reasons": {"not a video": 1}, "broken": [], "slowest_seconds": 0.1, "bases": 2, "seed": 0,
    "largest_megabytes": 1.0, "kinds": {"cut short": {"decoded": 1}},
}  # fmt: skip


def test_the_table_replaces_the_one_in_the_document(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("before\n<!-- media -->\nold\n<!-- /media -->\nafter\n")
    write_section(path, "media", media_lines([ROW]))
    text = path.read_text()
    assert text.startswith("before\n<!-- media -->\n3 files") and text.endswith("<!-- /media -->\nafter\n")
    assert "| failed, not a video | 1 |" in text and "old" not in text
    with pytest.raises(ValueError, match="has no <!-- long-run -->"):
        write_section(path, "long-run", [])
    broken = {"path": "x", "kind": "cut short", "base": "/a/b.mp4", "reason": "crashed"}
    assert problems("media", [ROW]) == []
    assert problems("media", [{**ROW, "broken": [broken]}]) == ["pyav: cut short of b.mp4: crashed (x)"]


def test_the_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["media", "--files", "40", "--backends", "pyav"]) == 0
    assert "0 problems" in capsys.readouterr().out


def test_the_published_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    files = int(text.partition("<!-- media -->\n")[2].split()[0])
    assert files >= 1000
    line = next(line for line in text.splitlines() if line.startswith("| crashes, hangs"))
    assert set(line.split("|")[2:-1]) == {" 0 "}
