"""No key of the schema is without effect, and docs/training.md tells of every key of training."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from tests.engine import test_recipe
from vidformers.config import get_defaults
from vidformers.config.defaults import OPEN_SECTIONS
from vidformers.config.values import leaves

ROOT = Path(__file__).parents[2]
# These hold, check or translate keys, which is no use of them.
NO_USE = {ROOT / "vidformers" / "config" / name for name in ("defaults.py", "checks.py", "pyslowfast.py")}
SECTIONS = ("SOLVER", "AUG", "MIXUP", "TRAIN", "PRETRAIN", "TENSORBOARD")
RECIPE = "tests/engine/test_recipe.py::test_the_key_reaches_what_it_is_for"
KEY = r"`([A-Z_]+(?:\.[A-Z0-9_]+)+)"
EXTRA_KEYS = ("MODEL.LOSS_FUNC", "MODEL.FREEZE", "MODEL.COMPILE")


def schema_keys() -> list[str]:
    keys = [key for key, _ in leaves(get_defaults()) if not key.startswith(tuple(OPEN_SECTIONS))]
    return keys + sorted(OPEN_SECTIONS)


def keys_read(sources: Iterable[str]) -> set[str]:
    """Dotted keys that are read as cfg.SECTION.KEY, self.cfg.SECTION.KEY, or through a name for a section
    (`solver = cfg.SOLVER`)."""
    read: set[str] = set()
    for source in sources:
        tree = ast.parse(source)
        aliases: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign):
                continue
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for name, section in pairs:
                if isinstance(name, ast.Name) and (key := dotted(section, {})):
                    aliases.setdefault(name.id, set()).update(key)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read |= dotted(node, aliases)
    return read


def dotted(node: ast.expr, aliases: dict[str, set[str]]) -> set[str]:
    """{"SOLVER.BASE_LR"} of cfg.SOLVER.BASE_LR; empty if the expression does not begin with a config."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and node.attr.isupper():
        parts.insert(0, node.attr)
        node = node.value
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    if not parts:
        return set()
    if name == "cfg":
        return {".".join(parts)}
    return {".".join([section, *parts]) for section in aliases.get(name, ())}


def test_every_key_is_read_somewhere() -> None:
    files = [
        path
        for folder in ("vidformers", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path not in NO_USE
    ]
    read = keys_read(path.read_text(encoding="utf-8") for path in files)
    assert [key for key in schema_keys() if key not in read] == []
    assert sorted(read - set(schema_keys()) - {key.partition(".")[0] for key in schema_keys()}) == []


def test_a_key_that_nobody_reads_would_be_found() -> None:
    source = """
def f(cfg):
    solver, other = cfg.SOLVER, cfg.AUG
    self.cfg.MIXUP.PROB
    cfg.TEST.ENABLE = True
    return solver.BASE_LR, other.RE_PROB, elsewhere.MOMENTUM, "cfg.SOLVER.BETAS"
"""
    leaf_keys = {key for key in keys_read([source]) if "." in key}
    assert leaf_keys == {"SOLVER.BASE_LR", "AUG.RE_PROB", "MIXUP.PROB"}


def table_rows() -> list[list[str]]:
    """Cells of the rows of docs/training.md's tables of options (option, keys, source, tests)."""
    rows = []
    for line in (ROOT / "docs" / "training.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] != "option" and set(cells[0]) != {"-"}:
            rows.append(cells)
    return rows


def test_the_table_of_options_has_every_key_of_training_and_no_other() -> None:
    wanted = {key for key in schema_keys() if key.partition(".")[0] in SECTIONS} | set(EXTRA_KEYS)
    named = {key for row in table_rows() for key in re.findall(KEY, row[1])}
    assert sorted(wanted - named) == []
    assert sorted(named - set(schema_keys())) == []


def test_the_tests_that_the_table_names_exist() -> None:
    for option, keys, source, tests in table_rows():
        assert source, option
        if "RECIPE" in tests:
            assert set(re.findall(KEY, keys)) <= test_recipe.KEYS.keys(), option
            tests = tests.replace("RECIPE", f"`{RECIPE}`")
        named = re.findall(r"`(tests/\S+?\.py)::(test_\w+)(\[[^`]*\])?`", tests)
        assert named, option
        for path, name, _ in named:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^\s*def {name}\(", text, flags=re.MULTILINE), f"{option}: {path}::{name}"
