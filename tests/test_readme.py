"""The README is a promise: its files exist, its first example runs, its table lists every configuration."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_configuration_is_in_the_table_and_exists():
    table = README.partition("## Configurations")[2]
    listed = set(re.findall(r"^\| `(\w+\.yaml)`", table, flags=re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "configs").glob("*.yaml")}


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_python_is_that_of_the_environment_before_it_is_typed(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert 0 < text.find("source .venv/bin/activate") < text.index("\npython tools/")


def test_the_first_example_runs(tmp_path, monkeypatch, tiny_dataset):
    code = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_video.mp4").write_bytes((tiny_dataset / "video_0.mp4").read_bytes())
    # The example's own video is longer, and its model larger than a test should wait for.
    smaller = {"range(0, 64, 4)": "range(0, 8)", "mvit_v2_s_16x4": "mvit_tiny", "256": "72", "224": "64"}
    for old, new in smaller.items():
        assert old in code
        code = code.replace(old, new)
    names: dict = {}
    exec(code, names)
    assert names["probabilities"].shape == (1, 400)
    assert torch.allclose(names["probabilities"].sum(), torch.tensor(1.0))
    assert names["features"].shape[0] == 1 and names["features"].ndim == 5
