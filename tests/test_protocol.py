"""docs/protocol.md says what the code does: its examples run, its tables equal the code and the reference."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from tests.golden_json import load_json
from vidformers.config import load_config
from vidformers.data import clip_sampling
from vidformers.data.records import Record, VideoList
from vidformers.data.views import short_side_size, spatial_crops
from vidformers.engine.build import build_test_dataset

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def table(header: str) -> list[list[str]]:
    """The cells of the rows below the line that begins with `header`."""
    lines = PAGE.partition(f"\n{header}")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, header
    return rows


def test_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "protocol.md", "docs/protocol.md", 0)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted > 15 and result.failed == 0


@pytest.mark.parametrize("row", table("| rule | V"), ids=lambda row: " ".join(row[:2]))
def test_first_and_last_frames(row: list[str]) -> None:
    rule, num_views, shown = row
    views = clip_sampling.test_views(
        re.match(r"`(\w+)`", rule)[1],
        300,
        30.0,
        num_frames=16,
        sampling_rate=4,
        target_fps=30,
        num_views=int(num_views),
        use_offset="True" in rule,
    )
    assert [f"{view[0]}..{view[-1]}" for view in views] == shown.split()
    if "slowfast" in rule:
        reference = {
            case["view"]: case["indices_full_decode"]
            for case in load_json("slowfast_data/temporal_test.json")["cases"]
            if (case["num_video_frames"], case["fps"], case["num_frames"], case["sampling_rate"])
            == (300, 30.0, 16, 4)
            and (case["num_views"], case["use_offset"]) == (int(num_views), "True" in rule)
        }
        assert [reference[view] for view in range(int(num_views))] == views.tolist()


def test_the_count_of_cases_that_differ_by_a_frame() -> None:
    cases = load_json("slowfast_data/temporal_test.json")["cases"]
    pairs = [
        (case["indices_full_decode"], case["indices_selective_emulated"])
        for case in cases
        if case["indices_selective_emulated"] is not None
    ]
    different = [pair for pair in pairs if pair[0] != pair[1]]
    assert f"(in {len(different)} of {len(pairs)} cases that were compared)" in PAGE
    assert max(np.abs(np.subtract(*pair)).max() for pair in different) == 1


@pytest.mark.parametrize("row", table("| frames | T"), ids=lambda row: "-".join(row[:2]))
def test_segments(row: list[str]) -> None:
    length, num_frames, shown = int(row[0]), int(row[1]), [int(index) for index in row[2].split()]
    assert clip_sampling.segment_views(length, num_frames=num_frames)[0].tolist() == shown
    cases = load_json("slowfast_data/ssv2_test.json")["cases"]
    assert [c["indices"] for c in cases if (c["video_len"], c["num_frames"]) == (length, num_frames)] == [
        shown
    ]


@pytest.mark.parametrize("row", table("| video (height"), ids=lambda row: "-".join(row[:3]))
def test_crops(row: list[str]) -> None:
    height, width = map(int, row[0].split("x"))
    short_side, crop = int(row[1]), int(row[2])
    shown = [tuple(map(int, pair.split(", "))) for pair in re.findall(r"\((.*?)\)", row[4])]
    size = short_side_size(height, width, short_side)
    assert "{}x{}".format(*size) == row[3]
    assert [tuple(box[:2]) for box in spatial_crops(*size, crop, len(shown)).tolist()] == shown
    [case] = [
        case
        for case in load_json("slowfast_data/spatial_test.json")["cases"]
        if (case["h"], case["w"], case["short_side"], case["crop"]) == (height, width, short_side, crop)
    ]
    reference = [tuple(offsets) for offsets in case["offsets_yx_0_1_2"]]
    assert shown == (reference if len(shown) == 3 else reference[1:2])


@pytest.mark.parametrize(("num_crops", "short_side"), [(1, 256), (3, 224)])
def test_the_short_side_depends_on_the_number_of_crops(tmp_path, num_crops, short_side) -> None:
    cfg = load_config(ROOT / "configs" / "mvit_b_16x4.yaml", ["OUTPUT_DIR", str(tmp_path)])
    videos = VideoList([Record("a.mp4", 0, "a")], None, "a list")
    dataset = build_test_dataset(cfg, videos, num_views=5, num_crops=num_crops)
    assert (dataset.short_side, dataset.crop_size) == (short_side, 224)
    assert dataset.use_offset and dataset.temporal_sampling == "slowfast"


def test_charades_views_are_uniform_ones_and_short_videos_repeat_their_end() -> None:
    # PySlowFast's charades_test.json: (frames, T, rate, views) -> first view and start of the last.
    views = clip_sampling.uniform_views(900, num_frames=16, sampling_rate=8, num_views=10)
    starts = [0, 87, 173, 260, 346, 433, 519, 606, 692, 779]
    assert views[:, 0].tolist() == starts and (np.diff(views, axis=1) == 8).all()
