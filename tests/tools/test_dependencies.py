"""docs/dependencies.md names what is installed with the library, and the licence of each."""

import json
import re
from importlib import metadata
from pathlib import Path

from tools.dependencies import DEVELOPMENT, document, installed_packages, licence_of, main, normal, wanted

ROOT = Path(__file__).parents[2]


def test_every_declared_dependency_is_in_the_document() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    rows = {normal(line.split("|")[1].strip()): line for line in text.splitlines() if line.startswith("| ")}
    own = metadata.distribution("vidformers")
    extras = [name for name in own.metadata.get_all("Provides-Extra") or [] if name not in DEVELOPMENT]
    for extra in ("", *extras):
        for name in wanted(own.requires or [], extra):
            assert normal(name) in rows, f"{name} is not in docs/dependencies.md: run tools/dependencies.py"
    assert not [line for line in rows.values() if "not stated" in line or "UNKNOWN" in line]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for name, version in pinned.items():
        if normal(name) in rows:
            shown = rows[normal(name)].split("|")[2].strip()
            assert shown == version, f"{name}: run tools/dependencies.py"


def test_what_they_need_is_listed_too() -> None:
    packages = {normal(package.name): package for package in installed_packages()}
    assert packages["torch"].reason == "" and packages["jinja2"].licence
    assert "portalocker" in packages, "of iopath"
    assert "pytest" not in packages
    lines = [line for line in document(list(packages.values())).splitlines() if line.startswith("| ")]
    assert len(lines) == len(packages) + 1
    assert all(re.fullmatch(r"\| .+ \| .+ \| .+ \|.*\|", line) for line in lines)
    assert licence_of(metadata.distribution("vidformers")) == "Apache-2.0"


def test_a_bill_of_materials_goes_with_a_wheel(tmp_path: Path) -> None:
    path = tmp_path / "sbom.cdx.json"
    assert main(["--sbom", str(path), "--write", str(tmp_path / "d.md")]) == 0
    bom = json.loads(path.read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    assert bom["metadata"]["component"]["name"] == "vidformers"
    names = [component["name"] for component in bom["components"]]
    assert "numpy" in names and len(names) == len(set(names)) > 20
    assert all(component["purl"].startswith("pkg:pypi/") for component in bom["components"])
