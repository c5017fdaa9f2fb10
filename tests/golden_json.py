"""Reference values in JSON: from the shared folder if there is one, else the gzip copies in tests/golden."""

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parent
_SHARED = Path(os.environ.get("VIDFORMERS_SHARED", _TESTS.parent.parent / "shared"))
_COPIES = _TESTS / "golden"


@cache
def load_json(name: str) -> Any:
    """The reference file `name`, such as "manifests/slowfast/Kinetics__MVITv2_S_16x4.json"."""
    shared = _SHARED / "golden" / name
    if shared.is_file():
        return json.loads(shared.read_text())
    with gzip.open(_COPIES / f"{name}.gz", "rt") as file:
        return json.load(file)


def manifest_names() -> list[str]:
    """Names of the PySlowFast manifests, such as "Kinetics__MVITv2_S_16x4", sorted."""
    return sorted(
        path.name.removesuffix(".json.gz") for path in (_COPIES / "manifests/slowfast").glob("*.json.gz")
    )
