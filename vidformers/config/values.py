"""Key trees: reading what people write as values, and merging one tree into a schema with errors that help.

A tree is nested dicts with string keys. A schema is a tree of default values; a key's type is its default's
type, and None stands for "a number or nothing".
"""

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Tree = dict[str, Any]

# One example a type, quoted in type errors.
_WANTED = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list such as [1, 2]",
    type(None): "a number or None",
}


def literal(value: Any) -> Any:
    """A string that spells a Python or YAML literal becomes that literal, other strings stay, lists go by
    elements.

    YAML itself reads `1e-4`, `(3, 7, 7)` and `None` as strings, and all of a command line is strings.
    """
    if isinstance(value, (list, tuple)):
        return [literal(item) for item in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    words = {
        "true": True,
        "false": False,
        "null": None,
    }  # but not "none", which is a word that arguments take
    if text.lower() in words:
        return words[text.lower()]
    try:
        result = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return _lists(result) if isinstance(result, (list, tuple)) else result


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _bare_words(text: str) -> list[Any]:
    """What lies between commas, of which those in brackets part nothing: a shell has eaten the quotes of
    `["shuffle", "freeze[first]"]`."""
    words, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return [literal(word.strip()) for word in words]


def coerce(key: str, value: Any, default: Any, *, where: str = "") -> Any:
    """`value` as the type of `default`: ints pass for floats, tuples for lists, literal strings for what they
    spell.

    None passes for text (as "") and where the default is None. Raises ValueError naming key, value and wanted
    type.
    """
    if isinstance(default, str):
        text = literal(value) if isinstance(value, str) and value[:1] in {"'", '"'} else value
        if value is None or text == "None":
            return ""
        if isinstance(text, str):
            return text
        raise _type_error(key, value, default, where)
    got = literal(value)
    if isinstance(default, bool):
        if isinstance(got, bool):
            return got
    elif isinstance(default, int):
        if isinstance(got, int) and not isinstance(got, bool):
            return got
    elif isinstance(default, float) or default is None:
        if isinstance(got, (int, float)) and not isinstance(got, bool):
            return float(got)
        if got is None and default is None:
            return None
    elif isinstance(default, list):
        if isinstance(got, str) and re.fullmatch(r"\[.*\]", got.strip(), flags=re.DOTALL):
            got = _bare_words(got.strip()[1:-1])
        if isinstance(got, list):
            return got
    raise _type_error(key, value, default, where)


def _type_error(key: str, value: Any, default: Any, where: str) -> ValueError:
    got = {str: "text", dict: "a section", type(None): "nothing"}.get(
        type(value), f"a {type(value).__name__}"
    )
    example = f" (for example {default!r})" if default not in ("", None, []) else ""
    wanted = _WANTED[type(default)]
    if default == [] and isinstance(value, str):
        wanted = f"a list such as [{literal(value)!r}]"
    return ValueError(f"{key} is {value!r}{where}, which is {got}; wanted {wanted}{example}.")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; an empty section counts as a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def get(tree: Mapping[str, Any], key: str) -> Any:
    """The value or section at a dotted key; KeyError if there is none."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping):
            raise KeyError(key)
        node = node[part]
    return node


def has(tree: Mapping[str, Any], key: str) -> bool:
    """Whether the dotted key exists."""
    try:
        get(tree, key)
    except KeyError:
        return False
    return True


def put(tree: Tree, key: str, value: Any) -> None:
    """Set the value at a dotted key, making its sections."""
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:  # missing, or a header with nothing below it
            tree[section] = {}
        tree = tree[section]
    tree[last] = value


def merge_into(
    resolved: Tree,
    values: Mapping[str, Any],
    schema: Mapping[str, Any],
    *,
    where: Callable[[str], str] = lambda key: "",
    open_sections: frozenset[str] = frozenset(),
    prefix: str = "",
) -> None:
    """Merge `values` into `resolved` (a copy of `schema`, changed in place), checking key names and types.

    `where(dotted key)` is appended to the mention of a key in errors: " (run.yaml, line 3)". Keys below
    `open_sections` are taken as they come. Raises ValueError.
    """
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if prefix[:-1] in open_sections:
            resolved[key] = literal(value)
        elif not has(schema, dotted):
            raise ValueError(unknown_key(dotted, schema, where(dotted)))
        elif isinstance(get(schema, dotted), Mapping):
            if value is None:
                continue  # a section header with all its keys commented out
            section = literal(value)
            if not isinstance(section, Mapping):
                raise ValueError(
                    f"{dotted} is {value!r}{where(dotted)}, but {dotted} is a section; wanted keys below it, "
                    "such as "
                    f"{dotted}.{next(iter(get(schema, dotted)), 'name')}."
                )
            merge_into(
                resolved[key], section, schema, where=where, open_sections=open_sections, prefix=f"{dotted}."
            )  # fmt: skip
        else:
            resolved[key] = coerce(dotted, value, get(schema, dotted), where=where(dotted))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The entry of `known` that `name` likely means: the same but for case, or similarly spelt."""
    by_lower = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def nearest_key(key: str, schema: Mapping[str, Any]) -> str | None:
    """The key of `schema` that the unknown dotted `key` likely means, wherever in the schema it is."""
    known = [name for name, _ in leaves(schema)]
    section, _, leaf = key.rpartition(".")
    same_leaf = [name for name in known if name.rpartition(".")[2].lower() == leaf.lower()]
    if same_leaf:  # the section is what is wrong
        return max(
            same_leaf, key=lambda name: difflib.SequenceMatcher(None, key.lower(), name.lower()).ratio()
        )
    if not section:
        whole = nearest(leaf, schema)
        if whole:
            return whole
    elif has(schema, section) and isinstance(get(schema, section), Mapping):
        sibling = nearest(leaf, get(schema, section))
        if sibling:
            return f"{section}.{sibling}"
    # Last parts alone, as equal sections make any two keys look alike.
    by_leaf = {name.rpartition(".")[2]: name for name in known}
    cousin = nearest(leaf, by_leaf)
    return by_leaf[cousin] if cousin else None


def unknown_key(key: str, schema: Mapping[str, Any], where: str = "") -> str:
    """The error text for a key that `schema` lacks: with the nearest key, else what the section holds."""
    if key in ("NUM_GPUS", "NUM_SHARDS", "SHARD_ID"):  # PySlowFast's, which starts its processes itself
        return (
            f"Unknown key {key}{where}; how many processes and machines there are is said to torchrun, as in "
            "`torchrun --nproc_per_node=8 tools/run_net.py --cfg ...` (docs/distributed.md)."
        )
    guess = nearest_key(key, schema)
    if guess:
        return f"Unknown key {key}{where}; did you mean {guess}?"
    section = key.rpartition(".")[0]
    if section and has(schema, section) and isinstance(get(schema, section), Mapping):
        return f"Unknown key {key}{where}; {section} has {', '.join(get(schema, section))}."
    return f"Unknown key {key}{where}; the sections are {', '.join(schema)}."
