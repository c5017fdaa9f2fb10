"""The ablation of a config: what it writes, that processes and batches do not change it, what it refuses."""

from pathlib import Path

import pytest
import simplejson

from tests.warm_processes import RUN_NET, run_script
from vidformers.analysis.ablation_table import AblationTable
from vidformers.config import load_config
from vidformers.data.records import NO_LABEL, Record, VideoList
from vidformers.engine.ablate import ablate, check_ablated_videos, check_ablation
from vidformers.engine.build import load_videos

CONFIG = """
MODEL: {NAME: mvit_tiny, NUM_CLASSES: 2, ARGS: {embed_dim: 8}}
DATA:
  NUM_FRAMES: 8
  SAMPLING_RATE: 4
  TRAIN_CROP_SIZE: 32
  TEST_CROP_SIZE: 32
  TRAIN_JITTER_SCALES: [36, 40]
  USE_OFFSET_SAMPLING: true
TRAIN: {ENABLE: false}
TEST: {ENABLE: false, BATCH_SIZE: 5, NUM_ENSEMBLE_VIEWS: 2, NUM_SPATIAL_CROPS: 1}
ABLATION:
  ENABLE: true
  PERTURBATIONS:
    [identity, shuffle, "shuffle@tubelet", "block_shuffle[4]", reverse, "freeze[middle]", occlude]
  NUM_DRAWS: 2
  NUM_RESAMPLES: 200
DATA_LOADER: {NUM_WORKERS: 0}
DEVICE: cpu
"""


@pytest.fixture
def make_cfg(tmp_path: Path, tiny_dataset: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)

    def make(output: str, *overrides: str):
        fixed = ["DATA.PATH_TO_DATA_DIR", str(tiny_dataset), "OUTPUT_DIR", str(tmp_path / output)]
        (tmp_path / output).mkdir(exist_ok=True)
        return load_config(str(path), [*fixed, *overrides])

    return make


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a run this small."""
    for name in ("write_ablation_figure", "write_run_report"):
        monkeypatch.setattr(f"vidformers.engine.ablate.{name}", lambda *_, **__: None)


def json_of(cfg) -> bytes:
    return (Path(cfg.OUTPUT_DIR) / "temporal_ablation.json").read_bytes()


def test_what_a_run_writes(make_cfg, capsys):
    cfg = make_cfg("out")
    summary = ablate(cfg)
    output = Path(cfg.OUTPUT_DIR)
    names = {path.name for path in output.iterdir()}
    assert {
        "temporal_ablation.json", "temporal_ablation.npz", "temporal_ablation.png", "report.html",
        "temporal_ablation_clips.npz", "summary.md", "log.jsonl",
    } <= names  # fmt: skip
    assert simplejson.loads(json_of(cfg)) == simplejson.loads(simplejson.dumps(summary))
    by_name = {row["name"]: row for row in summary["perturbations"]}
    assert by_name["identity"]["delta"] == 0 and by_name["identity"]["flip_rate"] == 0
    assert by_name["shuffle"]["num_draws"] == 2 and by_name["reverse"]["displacement"] == 1
    assert len(summary["occlusion_curve"]) == 8
    assert summary["tubelet"] == 2 and summary["num_videos"] == 8 and summary["num_failed"] == 0
    assert "shuffle" in (output / "summary.md").read_text()
    assert "shuffle" in capsys.readouterr().out
    table = AblationTable.load(output / "temporal_ablation.npz")
    assert [row.name for row in table.perturbed] == [row["name"] for row in summary["perturbations"]]


def test_batch_size_and_processes_do_not_change_a_byte(make_cfg, tmp_path, no_figures):
    cfg = make_cfg("one")
    ablate(cfg)
    for batch_size in ("1", "16"):
        other = make_cfg(f"batch_{batch_size}", "TEST.BATCH_SIZE", batch_size)
        ablate(other)
        assert json_of(other) == json_of(cfg)
    workers = make_cfg("workers", "DATA_LOADER.NUM_WORKERS", "2")
    ablate(workers)
    assert json_of(workers) == json_of(cfg)
    two = tmp_path / "two"
    folders = ("DATA.PATH_TO_DATA_DIR", cfg.DATA.PATH_TO_DATA_DIR, "OUTPUT_DIR", str(two))
    result = run_script(RUN_NET, "--cfg", str(tmp_path / "tiny.yaml"), *folders, processes=2)
    assert result.returncode == 0, result.stderr
    assert (two / "temporal_ablation.json").read_bytes() == json_of(cfg)
    assert result.stdout.count("written:") == 1


def test_two_models_are_compared_on_the_shared_videos(make_cfg):
    first = make_cfg("first")
    ablate(first)
    second = make_cfg("second", "RNG_SEED", "1", "ABLATION.COMPARE", first.OUTPUT_DIR)
    summary = ablate(second)
    assert summary["comparison"]["num_shared"] == 8
    with pytest.raises(FileNotFoundError, match=r"ABLATION\.COMPARE is .*nowhere.*ABLATION\.ENABLE True"):
        check_ablation(make_cfg("third", "ABLATION.COMPARE", "nowhere"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ABLATION.PERTURBATIONS", "['block_shuffle[8]']"], r"block_shuffle.*clip of 8 frames"),
        (["ABLATION.PERTURBATIONS", "['shuffel']"], "unknown perturbation 'shuffel'"),
        (["ABLATION.PERTURBATIONS", "[]"], r"ABLATION\.PERTURBATIONS"),
        (["DATA.NUM_FRAMES", "2", "ABLATION.PERTURBATIONS", "['shuffle@tubelet']"], "clip of 1 tubelets"),
    ],
)
def test_a_meaningless_ablation_is_refused_before_anything_runs(make_cfg, overrides, message):
    with pytest.raises(ValueError, match=message):
        check_ablation(make_cfg("refused", *overrides))


def test_unreadable_videos_are_listed(make_cfg, tiny_dataset, tmp_path, no_figures):
    folder = tmp_path / "with_bad"
    folder.mkdir()
    rows = (tiny_dataset / "test.csv").read_text()
    (folder / "text.mp4").write_text("no video")
    (folder / "test.csv").write_text(f"{folder}/text.mp4 0\n" + rows)
    cfg = make_cfg("bad", "DATA.PATH_TO_DATA_DIR", str(folder), "DATA.PATH_PREFIX", str(tiny_dataset))
    summary = ablate(cfg)
    assert summary["num_failed"] == 1 and summary["num_videos"] == 8
    assert "text.mp4" in (Path(cfg.OUTPUT_DIR) / "failed_videos.csv").read_text()


def test_videos_that_cannot_be_ablated_are_refused_before_anything_runs(make_cfg, no_figures):
    cfg = make_cfg("first")
    several = VideoList([Record("a", NO_LABEL, "a", (0, 1))], None, "actions.csv")
    with pytest.raises(ValueError, match=r"videos of actions\.csv have several labels each.*TEST\.DATASET"):
        check_ablated_videos(cfg, several)
    alone = VideoList([Record("a", 0, "a"), Record("b", 1, "b"), Record("c", 1, "c")], None, "list.csv")
    check_ablated_videos(cfg, alone)
    with pytest.raises(ValueError, match="needs two videos of every class"):
        check_ablated_videos(make_cfg("second", "ABLATION.PERTURBATIONS", "['splice[0.5,same]']"), alone)
    ablate(cfg)
    compared = make_cfg("third", "ABLATION.COMPARE", cfg.OUTPUT_DIR)
    check_ablated_videos(compared, load_videos(compared, "test"))
    with pytest.raises(ValueError, match=r"shares 0 videos with list\.csv"):
        check_ablated_videos(compared, alone)


def test_a_name_may_occur_twice_and_the_strips_are_of_a_video_that_can_be_read(make_cfg, tiny_dataset):
    cfg = make_cfg("out")
    videos = load_videos(cfg, "test")
    first, second, *rest = videos.records
    twice = [Record("nowhere.mp4", first.label, second.video_id), second, *rest]
    summary = ablate(cfg, VideoList(twice, None, videos.source))
    assert summary["num_videos"] == 7 and summary["num_failed"] == 1
    assert "data:image" in (Path(cfg.OUTPUT_DIR) / "report.html").read_text()
