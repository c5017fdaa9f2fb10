"""What can be said of a document without running its commands: that everything they name exists."""

import argparse
import ast
import doctest
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import vidformers as vf
from vidformers.config import load_config
from vidformers.config.defaults import get_defaults
from vidformers.config.named import CONFIGS
from vidformers.config.pyslowfast import knows_key
from vidformers.config.values import has

ROOT = Path(__file__).parents[1]
EXTRAS = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().partition("optional-")[2], re.M)
WEIGHTS = (".pyth", ".pth", ".pt", ".safetensors")
_PROGRAM = re.compile(r"((?:tools|data_prep)/\w+\.py|\bvidformers-\w+)((?:\s+[^\s]+)*)")
_FOLDERS = "(?:tools|data_prep|configs|vidformers|docs|tests|notebooks)"
# PySlowFast's, of parts that its YAML files of classifiers do not have.
_THEIRS = {"tools/train_net.py", "tools/test_net.py", "AUG.MASK_WINDOW_SIZE"}
_OTHERS = {"git", "cd", "mkdir", "pip", "tail", "hf", "source"}  # not ours, taken as they are


class Parsed(BaseException):
    """A command line that its program accepts: the tools do not catch this."""

    def __init__(self, options: argparse.Namespace):
        self.options = options


def check_command(command: str) -> None:
    """Raise AssertionError unless `command`, one line of a shell, names programs of ours with options, keys,
    configurations and models that they have. Data and weights need not exist."""
    for extra in re.findall(r"\[(\w+(?:,\w+)*)\]'", command):
        assert set(extra.split(",")) <= set(EXTRAS), f"no extra {extra}: {command}"
    found = False
    for part in re.split(r"&&|\|\||[;|]", command):
        ours = _PROGRAM.search(part)
        if ours:
            found = True
            check_options(ours[1], shlex.split(ours[2], comments=True), command)
    first = Path(shlex.split(command, comments=True)[0]).name
    assert found or first in _OTHERS or first.startswith("python"), f"what is {first}? {command}"
    for path in re.findall(rf"(?<![\w/.]){_FOLDERS}/[\w/]+\.\w+", command):
        assert (ROOT / path).exists(), f"no file {path}: {command}"


def check_options(program: str, words: list[str], command: str) -> None:
    """The words go through the program's own parser; what it would then read is looked at."""
    script = ROOT / program
    if program.startswith("vidformers-"):
        script = ROOT / "vidformers" / "cli" / f"{program.removeprefix('vidformers-').replace('-', '_')}.py"
    assert script.is_file(), f"no program {program}: {command}"
    real = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *_: Any) -> None:
        raise Parsed(real(self, words))

    with (
        patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        patch.object(sys, "argv", [program]),
    ):
        try:
            if program.startswith("vidformers-"):
                importlib.import_module(f"vidformers.cli.{script.stem}").main([])
            else:
                runpy.run_path(str(script), run_name="__main__")
        except Parsed as parsed:
            options = parsed.options
        except SystemExit as error:
            raise AssertionError(f"{program} does not take these options ({error}): {command}") from None
        else:
            raise AssertionError(f"{program} reads no options: {command}")
    if hasattr(options, "cfg"):
        path = CONFIGS.parent / options.cfg
        cfg = load_config(path if path.is_file() else options.cfg, [*options.overrides, *options.opts])
        assert cfg.MODEL.NAME in vf.list_models(), f"{cfg.MODEL.NAME}: {command}"
    model = getattr(options, "model", None)
    if isinstance(model, str) and not model.endswith((".yaml", *WEIGHTS)):
        assert model in vf.list_models() or (CONFIGS / f"{model}.yaml").is_file(), f"{model}: {command}"


def check_python(code: str) -> None:
    """Raise AssertionError or SyntaxError unless `code` is Python whose names from this library exist.

    Checked are imports from vidformers, attributes of `vf`, and names of models and configurations that are
    given to vf.create_model, vf.list_models, vf.load_config as literals.
    """
    if code.startswith(">>>"):
        code = "".join(example.source for example in doctest.DocTestParser().get_examples(code))
    for name in re.findall(r"\bvf\.(\w+)\(", code):  # in comments too
        assert hasattr(vf, name), f"vidformers has no {name}"
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vidformers":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert alias.name == "*" or hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vf":
            assert hasattr(vf, node.attr), f"vidformers has no {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                check_literal(node.func.attr, first.value)


def check_literal(function: str, value: str) -> None:
    if function == "create_model":
        assert value in vf.list_models(), f"no model {value}"
    elif function == "list_models":
        assert vf.list_models(value), f"no model is like {value}"
    elif function == "load_config" and not value.endswith(".yaml"):
        load_config(value)


def missing_names(text: str) -> list[str]:
    """Names in backquotes that look like ours and do not exist: files, dotted names, configuration keys.

    PySlowFast's keys and files are known too.
    """
    missing = []
    for quoted in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        for key in re.findall(r"(?<![\w./$])([A-Z][A-Z_]+(?:\.[A-Z][A-Z0-9_]+)+)(?![\w(/*])", quoted):
            if not (has(get_defaults(), key) or knows_key(key) or key in _THEIRS):
                missing.append(key)
        for path in re.findall(rf"(?<![\w/.<{{]){_FOLDERS}/[\w/]+\.\w+", quoted):
            if not (ROOT / path).exists() and path not in _THEIRS:
                missing.append(path)
        for name in re.findall(r"(?<![\w./])(?:vidformers|vf)(?:\.[A-Za-z_]\w*)+(?![\w/])", quoted):
            if not resolves(name):
                missing.append(name)
    return missing


def resolves(dotted: str) -> bool:
    """Whether `dotted`, a name below vidformers (or vf), is a module or an attribute of one."""
    parts = dotted.split(".")
    found: Any = vf
    for index, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(["vidformers", *parts[1:index]]))
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def broken_links(document: Path) -> list[str]:
    """Relative links of a document whose file or heading does not exist."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        page = (document.parent / path).resolve() if path else document
        if not page.exists() or (anchor and page.suffix == ".md" and anchor not in anchors(page)):
            broken.append(target)
    return broken


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs make of the headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}
