"""TEST.EXPLAIN: examples that the report of a test shows."""

from pathlib import Path

import numpy as np
import pytest

from tests.engine.test_run import make_cfg  # noqa: F401
from vidformers.engine.examples import chosen_videos
from vidformers.engine.predictions import Predictions
from vidformers.engine.run_report import report
from vidformers.engine.test import test as run_test


def test_the_surest_of_each_kind_are_chosen() -> None:
    sure = np.array([0.9, 0.6, 0.7, 0.8, 0.95, np.nan, 0.65, 0.99])
    wrong = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    scores = np.stack([sure, 1 - sure], axis=1)[:, None].astype(np.float32)
    failed = np.isnan(sure)
    table = Predictions([str(i) for i in range(8)], wrong, scores, failed, 1, 1)
    assert chosen_videos(table) == [0, 3, 2, 7, 4, 6]


@pytest.mark.parametrize("method", ["gradcam", "relevance"])
def test_they_are_in_the_report(make_cfg, capsys, method):  # noqa: F811
    cfg = make_cfg("run", "TEST.EXPLAIN", method)
    results = run_test(cfg)
    examples = Path(cfg.OUTPUT_DIR) / "test_examples.npz"
    with np.load(examples) as saved:
        titles, frames, overlays = saved["titles"], saved["frames"], saved["overlays"]
    assert 1 <= len(titles) <= 6 and frames.shape == overlays.shape and frames.dtype == np.uint8
    assert frames.shape[1:] == (cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE, 3)
    wrong = round(results["num_videos"] * (1 - results["top1"] / 100))
    assert sum("taken for" in title for title in titles) == min(3, wrong)
    assert f"Explained {len(titles)} examples by {method}" in capsys.readouterr().out
    report(cfg)
    assert titles[0] in (Path(cfg.OUTPUT_DIR) / "report.html").read_text()
    # The next test is another one, and has none.
    run_test(make_cfg("run"))
    assert not examples.exists()


def test_a_model_that_cannot_be_explained_is_tested_all_the_same(make_cfg, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr("vidformers.analysis.attention_maps.replaced_attention", _without_attention)
    cfg = make_cfg("run", "TEST.EXPLAIN", "rollout")
    run_test(cfg)
    assert "No examples are explained: " in capsys.readouterr().out
    assert (Path(cfg.OUTPUT_DIR) / "test_results.json").is_file()


def _without_attention(by):
    from contextlib import nullcontext

    return nullcontext()
