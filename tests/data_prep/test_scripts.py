"""Every script explains itself, every command in the docs is one that it takes, and exit codes are kept."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest

from data_prep import verify
from tests.conftest import write_video
from vidformers.data.prepare.inputs import exit_with

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "data_prep").glob("*.py"))
PAGES = [ROOT / "docs" / "data_preparation.md", ROOT / "README.md"]


def commands(text: str) -> list[str]:
    return re.findall(r"^ *(python data_prep/\w+\.py .*)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_has_an_example_that_the_script_takes(name, capsys):
    module = importlib.import_module(f"data_prep.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--dry-run" in shown and "Exit code: 0" in shown
    examples = commands(shown)
    assert examples and all(f"data_prep/{name}.py" in example for example in examples)
    for example in examples:
        # That /data/... is not there is said only after the arguments were understood.
        with pytest.raises((FileNotFoundError, ValueError), match=r"/data/|val\.csv"):
            module.main(shlex.split(example)[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_the_docs(page):
    found = commands(page.read_text(encoding="utf-8"))
    assert found
    for command in found:
        script, *arguments = shlex.split(command, comments=True)[1:]
        with pytest.raises((FileNotFoundError, ValueError), match="/data/"):
            importlib.import_module(f"data_prep.{Path(script).stem}").main(arguments)


def test_the_docs_name_every_script():
    text = PAGES[0].read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f"data_prep/{name}.py" not in text] == []


def test_exit_codes(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", 0, num_frames=4)
    video, report = str(tmp_path / "a.mp4"), ["--report", str(tmp_path / "report.csv")]
    for arguments, code, said in (
        ([video, *report], 0, "1 files: 1 sound"),
        ([video, *report, "--min-frames", "5"], 1, "short, too short: 4 frames"),
        ([str(tmp_path / "nowhere"), *report], 2, "there is no"),
        ([video, *report, "--workers", "0"], 2, "0 is less than 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            exit_with(functools.partial(verify.main, arguments))
        shown = capsys.readouterr()
        assert ended.value.code == code, shown.err
        assert said in (shown.err if code == 2 else shown.out)
