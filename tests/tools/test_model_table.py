"""docs/models.md is what tools/model_table.py writes; a part of it stands for all, which take a minute."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vidformers as vf
from tools.model_table import row
from vidformers.analysis.complexity import count_parameters

PAGE_PATH = Path(__file__).parents[2] / "docs" / "models.md"
PAGE = PAGE_PATH.read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| \S+ \| ([\d.]+) \|", PAGE, flags=re.MULTILINE))


def test_every_registered_model_has_its_row():
    assert set(ROWS) == set(vf.list_models())


@pytest.mark.parametrize("name", vf.list_models())
def test_parameters_are_up_to_date(name):
    with torch.device("meta"):
        assert ROWS[name] == f"{count_parameters(vf.create_model(name)) / 1e6:.2f}"


@pytest.mark.parametrize("name", [*vf.list_models("*_tiny"), "mvit_b_16x4", "swin3d_t"])
def test_rows_are_what_the_tool_writes(name):
    assert row(name) in PAGE


def test_help_writes_nothing():
    before = PAGE_PATH.stat().st_mtime_ns
    command = [sys.executable, "tools/model_table.py", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PAGE_PATH.parents[1], check=True)
    assert "docs/models.md" in result.stdout
    assert PAGE_PATH.stat().st_mtime_ns == before
