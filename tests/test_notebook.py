"""notebooks/quickstart.ipynb: its cells run in order and show what its text says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
# The model that is only built and described is a large one.
SMALLER = {"mvit_v2_s_16x4": "mvit_tiny", "16, 224, 224": "8, 64, 64"}


def test_the_cells_run_and_the_model_reads_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"]), "save it without outputs"
    text = "".join(cells)
    assert [old for old in SMALLER if old not in text] == []
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        for old, new in SMALLER.items():
            cell = cell.replace(old, new)
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert names["accuracy"] == 1.0
    assert names["answer"].top(1)[0][0] == "right"
    assert names["heat"].shape == (8, 32, 32) and torch.isfinite(names["heat"]).all()
    top1 = {row["name"]: row["top1"] for row in names["summary"]["perturbations"]}
    # Backwards each clip is one of the other class; one frame says nothing.
    assert top1["reverse"] == 0.0 and 30 <= top1["freeze[middle]"] <= 70 and top1["shuffle"] < 90
    assert "the other class in 100.0 %" in capsys.readouterr().out
    names["plt"].close("all")
