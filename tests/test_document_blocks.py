"""No command and no name in the README and the docs that does not exist; what runs there, runs.

Blocks are run where their page is run: at the end of this file, in tests/test_documents.py, test_readme.py,
test_plain_pytorch.py, test_protocol.py, test_export_document.py. The others need data or hours that tests do
not have. All of them go through the checks of tests/document_checks.py.
"""

import re
from pathlib import Path

import pytest

import vidformers as vf
from tests.conftest import write_video
from tests.document_checks import broken_links, check_command, check_python, missing_names, resolves
from tests.documents import run_blocks, run_python_blocks
from vidformers.checkpoints.families import FAMILIES
from vidformers.compat import prepare_pytorchvideo
from vidformers.config import load_config
from vidformers.data.datasets.arrays import ArrayVideos
from vidformers.data.temporal_families import generate

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
    text = document.read_text(encoding="utf-8")
    if document.stem == "coming_from":  # the left-hand columns are what others call it
        text = re.sub(r"^\| .+? \|", "|", text, flags=re.MULTILINE)
    assert missing_names(text) == []


@parametrize
def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []


def test_the_site_has_every_page_and_the_api_names_exist() -> None:
    # mkdocs itself, which builds the site in .ci/run, is not needed for this.
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": (\w+\.md)$", navigation, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name, members in re.findall(r"^::: ([\w.]+)(?:\n    options:\n      members: \[(.+)\])?", page, re.M):
        assert resolves(name), name
        assert [m for m in members.split(", ") if m and not resolves(f"{name}.{m}")] == []
    public = {name for name in vf.__all__ if not name.startswith("__")}
    assert [name for name in public if not re.search(rf"\b{name}\b", page)] == []


def test_the_table_of_projects_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    table = page.partition("<!-- sources -->")[2].partition("<!-- /sources -->")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, flags=re.MULTILINE))
    expected = {name: ", ".join(dict.fromkeys(s.name for s in f.sources)) for name, f in FAMILIES.items()}
    assert rows == {name: sources for name, sources in expected.items() if sources}


def test_what_other_libraries_call_it_has_our_names_on_the_right() -> None:
    """The models, arguments, keys with values, and commands of the right-hand columns of coming_from.md."""
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    rights = [row[1] for row in re.findall(r"^\| (.+?) \| (.+) \|$", page, flags=re.MULTILINE)]
    quoted = [text for right in rights for text in re.findall(r"`([^`]+)`", right)]
    assert len(rights) > 60
    for text in quoted:
        for model in re.findall(r'create_model\("(\w+)"', text):
            assert model in vf.list_models(), text
        for argument in re.findall(r"MODEL\.ARGS\.(\w+)", text):
            assert argument in vf.model_arguments("mvit_v2_s_16x4"), text
        if re.match(r"[A-Z_]+\.[A-Z_]+ \S+$", text) and "MODEL.FREEZE" not in text:
            key, value = text.split()
            load_config("motion_vit_tiny", [key, value])
        if text.startswith(("python tools/", "torchrun")) and "x.yaml" not in text and text.count(" ") > 1:
            check_command(text)


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


SMALL = {"mvit_v2_s_16x4": "mvit_tiny", "16, 224, 224": "8, 64, 64"}


def test_the_quick_start_runs() -> None:
    names = run_python_blocks(ROOT / "docs" / "index.md", SMALL, {})
    assert names["logits"].shape == (1, 10) and names["features"].ndim == 5


def test_the_explanations_run() -> None:
    names = run_python_blocks(ROOT / "docs" / "explain.md", {}, {})
    assert names["found"].maps.shape == (1, 8, 64, 64)


def test_the_ablation_of_the_readme_runs() -> None:
    clips = generate("appearance", num_videos=4, num_frames=16, size=32)
    given = {
        "model": vf.create_model("mvit_tiny", num_frames=16, image_size=32).eval(),
        "dataset": ArrayVideos(clips.frames, clips.labels.tolist()),
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = [code for _, language, code in BLOCK.findall(text) if "temporal_dependence(" in code]
    exec(code.replace("10_000", "100"), given)
    assert [row["name"] for row in given["summary"]["perturbations"]] == ["shuffle", "reverse"]


def test_the_pytorchvideo_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_pytorchvideo()
    pytest.importorskip("pytorchvideo.data")
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "video.mp4", 0, num_frames=60)
    given = {"paths": [("video.mp4", {"label": 1})]}
    names = run_python_blocks(ROOT / "docs" / "reading_videos.md", {}, given)
    batch = next(iter(names["dataset"]))
    assert batch["video"].shape == (3, 16, 48, 64) and batch["label"] == 1
    assert names["clip"].shape == (3, 30, 48, 64)


def test_the_temporal_families_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"--num-frames 16": "--num-frames 16 --train 1 --val 1 --test 1 --size 32"}
    printed, _ = run_blocks(ROOT / "docs" / "temporal_families.md", tmp_path, monkeypatch, few)
    assert "data/clock: " in printed and "MODEL.NUM_CLASSES" in printed
    assert (tmp_path / "data" / "clock" / "classes.json").is_file()
