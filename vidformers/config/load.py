"""From a YAML file and `KEY VALUE` overrides to a frozen, checked config."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fvcore.common.config import CfgNode

from vidformers.config.checks import check_config
from vidformers.config.defaults import OPEN_SECTIONS, PATHS, get_defaults
from vidformers.config.named import find_config
from vidformers.config.pyslowfast import PYSLOWFAST_DEFAULTS, is_pyslowfast, knows_key, translate_pyslowfast
from vidformers.config.values import Tree, get, has, leaves, merge_into, put, unknown_key
from vidformers.config.yaml_file import YamlTree, read_yaml


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> CfgNode:
    """Read a config file of ours, or one of PySlowFast's for a transformer classifier, and freeze the result.

    `path` is a file, or the name of one that comes with the package ("mvit_b_16x4"); a file goes first.
    A file may name others as `_BASE_`; what it says itself goes over them. `overrides` are the words of a
    command line, `KEY value KEY value ...` (a leading "--opts" is accepted), and go over the file. For a
    PySlowFast file both its own keys (MVIT.DEPTH) and ours (MODEL.ARGS.depth) can be overridden; one warning
    lists those of its settings that have no effect.

    Values follow PySlowFast's rules: strings that spell a literal are that literal ("1e-4", "(3, 7, 7)"),
    lists and tuples are alike; in addition an int passes for a float.

    Raises FileNotFoundError (with similar file names), and ValueError for text that is not YAML (with the
    line), unknown keys (with the nearest key), wrong types, values out of range, and keys that contradict
    each other. Whether data and weights exist is not looked at here.
    """
    file = read_yaml(find_config(path))
    given = _parse_overrides(overrides)
    config_keys = get_defaults()
    if is_pyslowfast(file.values):
        ours = _from_pyslowfast(file, given, config_keys)
    else:
        if file.duplicates:
            raise ValueError(f"Remove one of two values for one key: {'; '.join(file.duplicates)}.")
        ours = file
        for key, value in given:
            _check_override(key, config_keys)
            _put_override(ours, key, value)

    resolved = get_defaults()
    merge_into(resolved, ours.values, config_keys, where=ours.where, open_sections=OPEN_SECTIONS)
    for key in PATHS:
        put(resolved, key, os.path.expanduser(get(resolved, key)))
    check_config(resolved, where=ours.where)
    resolved.freeze()
    return resolved


def _parse_overrides(overrides: Sequence[Any]) -> list[tuple[str, Any]]:
    words = list(overrides)
    if words[:1] == ["--opts"]:
        words = words[1:]
    keys = words[0::2]
    for key in keys:
        if not isinstance(key, str) or "=" in key or key.startswith("-"):
            raise ValueError(
                f"Overrides are pairs `KEY VALUE`, but {key!r} stands where a key should; write for example "
                "`TRAIN.BATCH_SIZE 8 TEST.ENABLE False`, and quote values with spaces."
            )
    if len(words) % 2:
        raise ValueError(
            f"Overrides are pairs `KEY VALUE`, but there are {len(words)} words: the last one, "
            f"{words[-1]!r}, has no "
            "value."
        )
    return list(zip(keys, words[1::2], strict=True))


def _check_override(key: str, schema: Mapping[str, Any]) -> None:
    if has(schema, key) or key.rpartition(".")[0] in OPEN_SECTIONS:
        return
    hint = ""
    if key.startswith("MVIT."):
        hint = (
            " MVIT keys belong to PySlowFast files; in this one, constructor arguments are below MODEL.ARGS."
        )
    raise ValueError(unknown_key(key, schema, " on the command line") + hint)


def _put_override(tree: YamlTree, key: str, value: Any) -> None:
    try:
        put(tree.values, key, value)
    except (TypeError, AttributeError):  # the file has a value where the key has a section
        raise ValueError(
            f"{key} (command line) is below a key that the config file gives as a value."
        ) from None
    tree.lines[key] = "command line"


def _from_pyslowfast(file: YamlTree, overrides: list[tuple[str, Any]], schema: Mapping[str, Any]) -> YamlTree:
    """PySlowFast's keys of file and command line translated, then ours of both laid over them."""
    theirs = YamlTree(lines=file.lines)
    ours = YamlTree(lines=file.lines)
    later: Tree = {}
    for key, value in leaves(file.values):
        # An empty section (`MVIT:` and nothing below it) arrives here as a leaf.
        if not knows_key(key) and (has(schema, key) or key.rpartition(".")[0] in OPEN_SECTIONS):
            put(later, key, value)
        else:
            put(theirs.values, key, value)
    for key, value in overrides:
        if knows_key(key):
            _put_override(theirs, key, value)
        elif has(schema, key) or key.rpartition(".")[0] in OPEN_SECTIONS:
            put(later, key, value)
            ours.lines[key] = "command line"
        else:
            both = copy.deepcopy(PYSLOWFAST_DEFAULTS)
            for known, default in leaves(schema):
                put(both, known, default)
            raise ValueError(unknown_key(key, both, " on the command line"))
    twice = [f"the first value of {duplicate}" for duplicate in file.duplicates]
    ours.values = translate_pyslowfast(theirs.values, ignored=twice, where=theirs.where)
    for key, value in leaves(later):
        put(ours.values, key, value)
    return ours
