"""The wheel: it holds what the tree holds, and its commands work where there is no checkout."""

import configparser
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import simplejson

from vidformers.config import load_config

ROOT = Path(__file__).parents[1]


def clean_environment(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, without yesterday's build folder, in a folder of its name."""
    source = tmp_path_factory.mktemp("source") / "vidformers"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("vidformers", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return source


def build(kind: str, source: Path, out: Path) -> Path:
    """The wheel that pip would build by setuptools, without network; kind: "wheel" or "editable"."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, which is what installing a pure wheel does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_every_configuration(site: Path) -> None:
    def tree(folder: Path) -> set[str]:
        files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(folder).as_posix() for path in files}

    configs = {f"configs/{name}" for name in tree(ROOT / "configs")}
    assert tree(site / "vidformers") == tree(ROOT / "vidformers") | configs
    (metadata,) = site.glob("*.dist-info")
    assert {path.name for path in site.iterdir()} == {"vidformers", metadata.name}
    assert (metadata / "licenses" / "LICENSE").is_file()


def test_an_editable_installation_is_found_from_the_folder_that_holds_the_checkout(
    source: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(build("editable", source, tmp_path)) as archive:
        archive.extractall(site)
    code = f"import site; site.addsitedir({str(site)!r}); import vidformers; print(vidformers.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=source.parent, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(source / "vidformers" / "__init__.py"), done.stdout + done.stderr


def test_every_command_is_a_function_and_every_module_of_cli_is_a_command(site: Path) -> None:
    (file,) = site.glob("*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser()
    parser.read_string(file.read_text())
    scripts = dict(parser["console_scripts"])
    modules = {path.stem for path in (ROOT / "vidformers" / "cli").glob("*.py")} - {"__init__"}
    assert scripts == {
        f"vidformers-{name.replace('_', '-')}": f"vidformers.cli.{name}:main" for name in modules
    }
    for name in modules:
        assert callable(importlib.import_module(f"vidformers.cli.{name}").main)


def test_the_installed_command_trains_a_configuration_by_its_name(
    site: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    # What pip writes into bin/ for an entry point.
    command = tmp_path / "vidformers-run"
    command.write_text("import sys\nfrom vidformers.cli.run import main\nsys.exit(main())\n")
    settings = """
        --cfg motion_mvit_tiny MODEL.ARGS {'embed_dim':8} MODEL.NUM_CLASSES 2 DATA.NUM_FRAMES 4
        ABLATION.ENABLE False DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32
        DATA.TRAIN_JITTER_SCALES [36,40] SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0.0
        TRAIN.BATCH_SIZE 4 DATA_LOADER.NUM_WORKERS 0 DEVICE cpu OUTPUT_DIR out
        TRAIN.DATASET kinetics TEST.DATASET kinetics
    """.split()  # noqa: SIM905
    done = subprocess.run(
        [sys.executable, str(command), *settings, "DATA.PATH_TO_DATA_DIR", str(tiny_dataset)],
        cwd=tmp_path,
        env=clean_environment(site),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert simplejson.loads((tmp_path / "out" / "test_results.json").read_text())["num_videos"] == 8
    # A template of the report is package data too.
    assert '<section id="test"' in (tmp_path / "out" / "report.html").read_text()


def test_the_unpacked_package_is_the_one_that_runs_and_finds_its_own_configurations(
    site: Path, tmp_path: Path
) -> None:
    code = "import vidformers.config.named as named; print(named.CONFIGS, named.find_config('mvit_b_16x4'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(site),
        capture_output=True,
        text=True,
    )
    folder = site / "vidformers" / "configs"
    assert done.stdout.split() == [str(folder), str(folder / "mvit_b_16x4.yaml")], done.stderr


def test_configurations_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = load_config(ROOT / "configs" / "mvit_b_16x4.yaml")
    assert load_config("mvit_b_16x4") == expected == load_config("mvit_b_16x4.yaml")
    (tmp_path / "motion_vit_tiny").mkdir()  # such as the output of a run
    assert load_config("motion_vit_tiny").MODEL.NAME == "vit_tiny"
    with pytest.raises(FileNotFoundError, match=r"no config named mvit_b_16x5.*Near it: mvit_b_16x4"):
        load_config("mvit_b_16x5")
    with pytest.raises(FileNotFoundError, match=r"configs/mvit_b_16x4\.yaml.*give its name alone"):
        load_config("configs/mvit_b_16x4.yaml")
    (tmp_path / "mvit_b_16x4").write_text("RNG_SEED: 5\n")  # a file goes first
    assert load_config("mvit_b_16x4").RNG_SEED == 5
