"""Reading YAML files: `_BASE_`, line numbers for error messages, duplicate keys."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from iopath.common.file_io import g_pathmgr

from vidformers.config.named import by_name
from vidformers.config.values import Tree

BASE_KEY = "_BASE_"
# The largest config here has 200.
_MAX_NODES = 20_000


@dataclass
class YamlTree:
    """What a file and its bases say. `lines`: key -> "file, line n"; `duplicates`: keys given twice."""

    values: Tree = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)

    def where(self, key: str) -> str:
        """ " (file, line n)" of a dotted key, "" if no file gave it."""
        return f" ({self.lines[key]})" if key in self.lines else ""


def read_yaml(path: str | os.PathLike[str], *, _stack: tuple[str, ...] = ()) -> YamlTree:
    """The tree of a YAML file laid over those of its `_BASE_` files (one path or a list, relative to the
    file).

    Of a key given twice in one file the last counts, as in PySlowFast, and `duplicates` has it. Raises
    FileNotFoundError with similar names, ValueError with the line for what is not YAML.
    """
    path = os.path.expanduser(os.fspath(path))
    if path in _stack:
        raise ValueError(f"{BASE_KEY} files go in a circle: {' -> '.join([*_stack, path])}.")
    own = _parse(path, _read_text(path, _stack))
    bases = own.values.pop(BASE_KEY, None)
    if bases is None:
        return own
    result = YamlTree()
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not base:
            raise ValueError(f"{BASE_KEY} is {base!r}{own.where(BASE_KEY)}; wanted the path of a YAML file.")
        base = os.path.expanduser(base)
        # Relative to this file, not to the working directory; a URL or a prefix such as manifold:// stands
        # alone.
        if not os.path.isabs(base) and "://" not in base:
            base = os.path.join(os.path.dirname(path), base)
        _lay_over(result, read_yaml(base, _stack=(*_stack, path)))
    _lay_over(result, own)
    return result


def _read_text(path: str, stack: tuple[str, ...]) -> str:
    whose = f" ({BASE_KEY} of {stack[-1]})" if stack else ""
    try:
        if g_pathmgr.isdir(path):
            raise ValueError(
                f"The config {path}{whose} is a folder; wanted a YAML file in it. {_neighbours(path, '')}"
            )
        with g_pathmgr.open(path, "r") as file:
            return file.read()
    except FileNotFoundError:
        folder, name = os.path.split(path)
        raise FileNotFoundError(
            f"There is no config file {path}{whose}. {_neighbours(folder or '.', name)}{by_name(path)}"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"The config {path}{whose} is not a text file: {error.reason}.") from None


def _neighbours(folder: str, name: str) -> str:
    if not g_pathmgr.isdir(folder):
        return f"The folder {folder} does not exist either (the working directory is {os.getcwd()})."
    names = sorted(entry for entry in g_pathmgr.ls(folder) if entry.endswith((".yaml", ".yml")))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"Near it in {folder}: {', '.join(near)}."
    if not names:
        return f"{folder} holds no YAML files."
    return f"{folder} has {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."


def _parse(path: str, text: str) -> YamlTree:
    loader = None
    try:
        loader = yaml.SafeLoader(text)  # which looks for characters that no text has
        node = loader.get_single_node()
        _check_unfolded(node)
        values = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        context = f" {error.context}" if error.context else ""
        raise ValueError(
            f"{path}{line}: not valid YAML{context}: {error.problem}. Check the indentation, quotes and "
            "brackets of "
            "this line and the one before it."
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None
    except ValueError as error:  # such as a date with month 13, from the value constructors
        raise ValueError(f"{path}: not valid YAML: {error}.") from None
    except RecursionError:
        raise ValueError(f"{path}: not valid YAML: its brackets are nested too deeply.") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} holds {type(values).__name__} {str(values)[:40]!r}; wanted KEY: value lines."
        )
    tree = YamlTree(_string_keys(values))
    if node is not None:
        _note_lines(node, path, "", tree)
    return tree


def _check_unfolded(root: yaml.Node | None) -> None:
    """Raise ValueError for aliases (*name) that stand for themselves, or together for more than a config can
    hold: a few lines, each with the one before it ten times over, are a thousand million keys."""
    sizes: dict[int, int] = {}  # of a node with all below it; 0 while it is being looked at

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known == 0:
            raise ValueError(
                f"the value in line {node.start_mark.line + 1} is a part of itself (&name, *name)"
            )
        if known is None:
            sizes[id(node)] = 0
            below: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                below = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                below = list(node.value)
            sizes[id(node)] = known = 1 + sum(size(part) for part in below)
        return known

    if root is not None and size(root) > _MAX_NODES:
        raise ValueError(f"it unfolds to more than {_MAX_NODES} values by its aliases (&name, *name)")


def _string_keys(values: Mapping[Any, Any]) -> Tree:
    return {
        str(key): _string_keys(value) if isinstance(value, Mapping) else value for key, value in
        values.items()
    }  # fmt: skip


def _note_lines(node: yaml.Node, path: str, prefix: str, tree: YamlTree) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
        if key in seen:
            tree.duplicates.append(f"{key} (given twice in {path}, lines {seen[key]} and {line})")
        seen[key] = line
        tree.lines[key] = f"{path}, line {line}"
        _note_lines(value_node, path, f"{key}.", tree)


def _lay_over(below: YamlTree, above: YamlTree) -> None:
    _merge(below.values, above.values, "", above)
    below.lines.update(above.lines)
    below.duplicates.extend(above.duplicates)


def _merge(below: Tree, above: Tree, prefix: str, tree: YamlTree) -> None:
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value, f"{prefix}{key}.", tree)
        elif isinstance(old, dict) and value is not None:
            raise ValueError(
                f"{prefix}{key} is {value!r}{tree.where(prefix + key)}, but in its {BASE_KEY} it is a "
                "section."
            )
        elif not isinstance(old, dict):
            below[key] = value
