"""Writes docs/dependencies.md: what is installed with this library, and under which licence.

    python tools/dependencies.py                        # prints the table of what is installed here
    python tools/dependencies.py --write docs/dependencies.md
    python tools/dependencies.py --sbom sbom.cdx.json   # the same as CycloneDX, to go with a wheel

Everything is read from the metadata of the installed packages; nothing is fetched.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vidformers.files import write_text_atomically

PACKAGE = "vidformers"
# Extras that are for work on the library itself, not for its users.
DEVELOPMENT = ("test",)


INTRODUCTION = """# Dependencies and their licences

What is installed with vidformers, and with which of its extras, as the packages themselves state it: written
by `python tools/dependencies.py --write docs/dependencies.md`, from the environment in which the tests run
(`constraints.txt`). The wheels of `av`, `decord`, `opencv-python-headless` and `torchcodec` bring or load
FFmpeg and its codecs (LGPL or GPL, as they were built). A bill of materials to go with a wheel, in
CycloneDX's form, is written by `python tools/dependencies.py --sbom sbom.json` where it is installed.
"""


@dataclass(frozen=True)
class Package:
    """reason: "" for a package that every installation has, else the extra that asks for it."""

    name: str
    version: str
    licence: str
    reason: str


def normal(name: str) -> str:
    """The form of a name in which PyPI compares them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(requirements: Sequence[str], extra: str) -> list[str]:
    """Names of the requirements that hold here, with the extra chosen ("" for none)."""
    from packaging.requirements import Requirement

    found = [Requirement(text) for text in requirements]
    return [one.name for one in found if one.marker is None or one.marker.evaluate({"extra": extra})]


def licence_of(distribution: metadata.Distribution) -> str:
    """SPDX where the package says so, else its classifiers, else what it wrote down."""
    fields = distribution.metadata
    if fields.get("License-Expression"):
        return fields["License-Expression"]
    classifiers = [text for text in fields.get_all("Classifier") or [] if text.startswith("License ::")]
    names = [text.rpartition(" :: ")[2] for text in classifiers if text != "License :: OSI Approved"]
    written = (fields.get("License") or "").strip()
    if names:
        return ", ".join(names)
    return written.splitlines()[0][:60] if written else licence_file_of(distribution)


def licence_file_of(distribution: metadata.Distribution) -> str:
    """The title of the licence that a package brings as a file."""
    for file in distribution.files or []:
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
            if lines:
                return lines[0][:60]
    return "not stated"


def installed_packages() -> list[Package]:
    """What this library needs, and what that needs, as far as it is installed; sorted by name."""
    own = metadata.distribution(PACKAGE)
    extras = [name for name in own.metadata.get_all("Provides-Extra") or [] if name not in DEVELOPMENT]
    found: dict[str, Package] = {}
    for extra in ("", *sorted(extras)):
        waiting = wanted(own.requires or [], extra)
        while waiting:
            name = normal(waiting.pop())
            if name in found or name == PACKAGE:
                continue
            try:
                distribution = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            shown = distribution.metadata["Name"]
            version = distribution.version.partition("+")[0]  # not the build that is here
            found[name] = Package(shown, version, licence_of(distribution), extra)
            waiting += wanted(distribution.requires or [], "")
    return [found[name] for name in sorted(found)]


def document(packages: Sequence[Package]) -> str:
    lines = [INTRODUCTION, "| package | version | licence | extra |", "|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.version} | {one.licence.replace('|', '/')} | {one.reason} |" for one in packages
    ]
    return "\n".join(lines) + "\n"


def sbom(packages: Sequence[Package]) -> dict[str, object]:
    """CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json/)."""
    own = metadata.distribution(PACKAGE)

    def component(name: str, version: str, licence: str, kind: str) -> dict[str, object]:
        return {
            "type": kind,
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{normal(name)}@{version}",
            "licenses": [{"license": {"name": licence}}],
        }

    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(PACKAGE, own.version, licence_of(own), "library")},
        "components": [component(one.name, one.version, one.licence, "library") for one in packages],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="Markdown file")
    parser.add_argument("--sbom", type=Path, help="CycloneDX JSON file")
    chosen = parser.parse_args(arguments)
    packages = installed_packages()
    if chosen.write:
        write_text_atomically(chosen.write, document(packages))
    if chosen.sbom:
        write_text_atomically(chosen.sbom, json.dumps(sbom(packages), indent=1) + "\n")
    if not (chosen.write or chosen.sbom):
        print(document(packages), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
