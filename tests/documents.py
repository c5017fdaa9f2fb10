"""The code blocks of a document, run as a reader would run them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.warm_processes import ROOT, run_script

_SCRIPTS = re.compile(r"(python (tools|data_prep)/\w+\.py [^|$*;&<>`()]*\n)+")
_BLOCK = re.compile(r"(<!-- not run: [^\n]* -->\n)?```(\w+)\n(.*?)```", flags=re.DOTALL)


def code_blocks(document: Path) -> list[tuple[str, str]]:
    """(language, code) of the ```bash and ```python blocks, but for those after `<!-- not run: why -->`."""
    blocks = _BLOCK.findall(document.read_text(encoding="utf-8"))
    return [
        (language, code) for skip, language, code in blocks if language in ("bash", "python") and not skip
    ]


def run_blocks(
    document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, replace: Mapping[str, str]
) -> tuple[str, dict]:
    """Run the blocks in order in `folder`, where tools/ and configs/ are those of the checkout.

    replace: what is made smaller, old text -> new; each must occur. The Python blocks share their names.
    Returns what the shell blocks have printed, and those names.
    """
    for name in ("tools", "configs", "data_prep"):
        (folder / name).symlink_to(ROOT / name)
    text = "".join(code for _, code in code_blocks(document))
    assert [old for old in replace if old not in text] == []
    monkeypatch.chdir(folder)
    printed, names = "", {"__name__": "document"}
    for language, code in code_blocks(document):
        for old, new in replace.items():
            code = code.replace(old, new)
        if language == "python":
            exec(compile(code, str(document), "exec"), names)
            continue
        printed += _run_shell(code, folder)
    return printed, names


def _run_shell(code: str, folder: Path) -> str:
    """What a block prints. One that runs our scripts and does nothing else starts no shell."""
    code = code.replace("\\\n", " ")
    printed = ""
    if _SCRIPTS.fullmatch(code):
        for line in code.splitlines():
            _, script, *arguments = shlex.split(line)
            done = run_script(ROOT / script, *arguments, cwd=folder)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
        return printed
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_python_blocks(document: Path, replace: Mapping[str, str], names: dict) -> dict:
    """Run the Python blocks of a document alone, in order, in the working directory; returns their names.

    replace: as in `run_blocks`. names: what the page takes as given, such as a model.
    """
    blocks = [code for language, code in code_blocks(document) if language == "python"]
    assert [old for old in replace if not any(old in code for code in blocks)] == []
    for code in blocks:
        for old, new in replace.items():
            code = code.replace(old, new)
        exec(compile(code, str(document), "exec"), names)
    return names
