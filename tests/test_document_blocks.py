"""No command and no name in the README and the docs that does not exist; what runs there, runs.

A ```bash or ```python block is run by the tests where its document is run (below, tests/test_documents.py and
the tests of the page's subject). The others need data or hours that tests do not have. All of them go through
the checks of tests/document_checks.py.
"""

import re
from pathlib import Path

import pytest

from tests.document_checks import broken_links, check_command, check_python, missing_names

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
parametrize = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)


@parametrize
def test_commands_name_programs_options_keys_and_models_that_exist(document: Path) -> None:
    for _, language, code in BLOCK.findall(document.read_text(encoding="utf-8")):
        assert language in ("bash", "python", "text", "yaml", "json", "console"), f"```{language}\n{code}"
        if language != "bash":
            continue
        for command in code.replace("\\\n", " ").splitlines():
            if command.strip() and not command.lstrip().startswith("#"):
                check_command(command)


@parametrize
def test_python_blocks_use_names_that_exist(document: Path) -> None:
    for _, language, code in BLOCK.findall(document.read_text(encoding="utf-8")):
        if language == "python":
            check_python(code)


@parametrize
def test_names_in_the_text_exist(document: Path) -> None:
    assert missing_names(document.read_text(encoding="utf-8")) == []


@parametrize
def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []


@pytest.mark.parametrize(
    "command",
    [
        "python tools/run_net.py --cfg configs/mvit_b_16x5.yaml",
        "python tools/run_net.py --cfg configs/mvit_b_16x4.yaml SOLVER.BASE_LRR 1",
        "python tools/run_net.py --cfg configs/mvit_b_16x4.yaml MODEL.NAME mvit_c",
        "python tools/predict.py video.mp4 --weight-file x.pyth",
        "vidformers-predict video.mp4 --weights x.pyth --model mvit_v2_s_16x5",
        "vidformers-test --cfg mvit_b_16x4",
        "python data_prep/verify.py /data --reports x.csv",
        "pip install 'vidformers[everything]'",
        "trian --fast",
    ],
)
def test_what_does_not_exist_is_found(command: str) -> None:
    with pytest.raises((AssertionError, ValueError, FileNotFoundError)):
        check_command(command)


def test_names_that_do_not_exist_are_found() -> None:
    text = (
        "`DATA.NUM_FRAMEZ`, `DATA.NUM_FRAMES 8`, `tools/run.py`, `vidformers.config.load_confg`, `vf.predict`"
    )
    assert missing_names(text) == ["DATA.NUM_FRAMEZ", "tools/run.py", "vidformers.config.load_confg"]
    for code in ("vf.predikt(1)", "vf.create_model('mvit_x')", "from vidformers.models import MVit", "x = ("):
        with pytest.raises((AssertionError, SyntaxError)):
            check_python(code)
