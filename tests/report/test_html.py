"""report.html: one file, no address in it, every name escaped."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from tests.report.summaries import make_comparison, make_summary, without_numbers
from vidformers.report.html import Section, ablation_section, write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = (
    '</script><script>alert(1)</script><img src="http://x.example/" onerror=alert(1)>"\' onload=x `$\\frac'
)


class Page(HTMLParser):
    """Collects elements and text, and sees to it that every element is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_safe_and_alone(page: Page) -> None:
    """One script (ours), no handler, nothing loaded from elsewhere, no id twice."""
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and "iframe" not in tags
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert sorted(ids) == sorted(set(ids))


@pytest.fixture(scope="module")
def clips() -> dict[str, np.ndarray]:
    clean = np.random.default_rng(0).integers(0, 255, (8, 12, 16, 3), dtype=np.uint8)
    return {"clean": clean, "reverse": clean[::-1], "occlude[0]": clean}


def test_report_is_one_file_that_loads_nothing(tmp_path: Path, clips: dict[str, np.ndarray]) -> None:
    path = tmp_path / "report.html"
    summary = {**make_summary(), "comparison": make_comparison()}
    write_report(
        path, "A title", [ablation_section(summary, clips), Section("b", "Other", Markup("<p>x</p>"))]
    )
    assert list(tmp_path.iterdir()) == [path]
    html = path.read_text(encoding="utf-8")
    assert "://" not in html and "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"d", "#"}
    page = Page(html)
    check_safe_and_alone(page)
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == ["#temporal-dependence", "#b"]
    for wanted in (
        "clean top-1 97.5",
        "−56.0*",
        "−1.0−5.6",  # hflip: no asterisk
        "−60.6 to −51.4",
        "144 lost, 0 gained",
        "4.2 % of the draws change nothing",
        "96.7 to partner",
        "backwards",
    ):
        assert wanted in page.text
    assert "occlude[0]" not in page.text  # the curve shows it
    # The policy lets our script run, and no other.
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.replace("&#39;", "'")


def test_a_static_floor_that_was_not_measured_is_explained() -> None:
    for floor, told in ((None, True), ({"perturbation": "freeze[last]", "top1": 40.0}, False)):
        html = ablation_section({**make_summary(), "static_floor": floor}, {}).html
        assert ("not measured: add freeze[middle]" in html) is told


def test_hostile_names_are_text_everywhere(tmp_path: Path, clips: dict[str, np.ndarray]) -> None:
    summary = make_summary(class_names=[HOSTILE, "b"], groups=[HOSTILE], names=("shuffle", "identity"))
    summary["model"] = HOSTILE
    summary["static_floor"]["perturbation"] = HOSTILE
    summary["perturbations"][1]["name"] = HOSTILE
    summary["comparison"] = make_comparison(names=("shuffle",))
    summary["comparison"]["perturbations"][0]["name"] = HOSTILE
    section = ablation_section(summary, {"clean": clips["clean"], HOSTILE: clips["reverse"]})
    path = tmp_path / "report.html"
    write_report(path, HOSTILE, [section])
    page = Page(path.read_text(encoding="utf-8"))
    check_safe_and_alone(page)
    assert page.text.count("alert(1)") > 8


def test_html_that_is_not_markup_is_escaped(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "t", [Section("a", "b", "<script>x</script>")])  # type: ignore[arg-type]
    check_safe_and_alone(Page((tmp_path / "r.html").read_text(encoding="utf-8")))


def test_missing_numbers_are_dashes(tmp_path: Path) -> None:
    summary = without_numbers(make_summary(names=("shuffle", "reverse")))
    write_report(tmp_path / "r.html", "t", [ablation_section(summary, {})])
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "None" not in page.text and "nan" not in page.text


def test_four_hundred_classes_stay_small(tmp_path: Path, clips: dict[str, np.ndarray]) -> None:
    summary = make_summary(class_names=[f"a class with a name {i}" for i in range(400)], groups=())
    path = tmp_path / "r.html"
    write_report(path, "t", [ablation_section(summary, clips)])
    assert path.stat().st_size < 3e6
    assert path.read_text(encoding="utf-8").count('<th scope="row">a class with a name') == 400


def test_templates_are_installed_with_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["vidformers.report"]
    root = Path(str(resources.files("vidformers.report")))
    packed = {file for pattern in patterns for file in root.glob(pattern)}
    assert packed == {file for file in (root / "templates").rglob("*") if file.is_file()}
