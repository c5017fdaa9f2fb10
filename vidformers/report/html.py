"""report.html: one file with everything in it, that opens without a network on a light or a dark screen."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from vidformers.analysis.perturbations import KINDS
from vidformers.analysis.statistics import LEVEL
from vidformers.files import write_text_atomically
from vidformers.report.figures import Panel, ablation_panels, panel_svg
from vidformers.report.strips import render_strips
from vidformers.report.summary import (
    Summary,
    group_names,
    interval,
    is_told,
    kind,
    percent,
    shown_perturbations,
    signed,
)
from vidformers.report.text import summary_lines


@dataclass(frozen=True)
class Section:
    """A part of the report. id: unique, a letter and then letters, digits, hyphens. html: trusted markup."""

    id: str
    title: str
    html: Markup


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _interval(value: Sequence[float | None] | None, digits: int = 1) -> str:
    ends = interval(value)
    return _minus(f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}") if ends else ""


def _fixed(value: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return _minus(f"{round(value, digits) or 0.0:.{digits}f}")  # "or": no negative zero


def _p(value: float | None) -> str:
    return "–" if value is None else "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def _code(text: str) -> Markup:
    """`names` in backticks as <code>, all escaped; elsewhere real minus signs, no break before %."""
    marked = [
        Markup("<code>{}</code>").format(part)
        if i % 2
        else re.sub(r"(?<!\w)-(?=\d)", "−", part).replace(" %", "\N{NO-BREAK SPACE}%")
        for i, part in enumerate(text.split("`"))
    ]
    return Markup("").join(marked)


@cache
def environment() -> jinja2.Environment:
    """The templates of the report with their filters."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vidformers.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    made.filters |= {
        "percent": percent,
        "signed": lambda value: _minus(signed(value)),
        "interval": _interval,
        "fixed": _fixed,
        "p": _p,
        "sort_value": lambda value: "" if value is None else value,
        "code": _code,
        "meaning": lambda name: KINDS[kind(name)].meaning if kind(name) in KINDS else "",
    }
    made.tests["told"] = is_told
    return made


def _group_columns(summary: Summary) -> list[dict[str, Any]]:
    """For each group its name, what holds of its clean clips, and its row of every perturbation."""
    columns = []
    for name in group_names(summary):
        cells = {
            row["name"]: next((group for group in row["groups"] or () if group["group"] == name), None)
            for row in summary["perturbations"]
        }
        first = next(cell for cell in cells.values() if cell)
        columns.append(
            {"name": name, "clean": first["clean_top1"], "chance": first["chance"], "cells": cells}
        )
    return columns


def _class_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each class with a cell for each of the perturbations `rows`."""
    by_label: dict[int, dict[str, Any]] = {}
    for column, row in enumerate(rows):
        for one in row["per_class"]:
            entry = by_label.setdefault(one["label"], {**one, "cells": [{"delta": None}] * len(rows)})
            entry["cells"][column] = {
                "delta": one["delta"],
                "interval": _interval(one["delta_interval"]),
                "told": one["p_value_bh"] is not None and one["p_value_bh"] < LEVEL,
                "swap_rate": one["swap_rate"],
            }
    return [by_label[label] for label in sorted(by_label)]


def rendered(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Panels as the templates take figures."""
    return [
        {
            "title": panel.title,
            "caption": panel.caption,
            "wide": panel.width > 5,
            "svg": Markup(panel_svg(panel)),
        }
        for panel in panels
    ]


def ablation_section(summary: Summary, clips: Mapping[str, np.ndarray]) -> Section:
    """The temporal ablation: its ten lines, figures, strips of frames and tables.

    clips: one video as the model was shown it, name of the perturbation -> uint8 (T, h, w, 3), the clean one
    first; empty if there is none to show.
    """
    perturbations = shown_perturbations(summary)
    shown = {row["name"] for row in perturbations}
    strips = {name: clip for i, (name, clip) in enumerate(clips.items()) if i == 0 or name in shown}
    with_classes = [row for row in perturbations if row["per_class"]]
    html = (
        environment()
        .get_template("ablation.html")
        .render(
            lines=summary_lines(summary),
            figures=rendered(ablation_panels(summary)),
            strips=render_strips(strips) if strips else "",
            comparison=summary.get("comparison"),
            static_floor=summary["static_floor"],
            perturbations=perturbations,
            groups=_group_columns(summary),
            class_perturbations=with_classes,
            classes=_class_rows(with_classes),
        )
    )
    return Section("temporal-dependence", "Temporal dependence", Markup(html))


def write_report(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write report.html with the sections in their order: no request leaves it, and no script runs in it but
    its own (its content security policy names that one's hash).
    """
    templates = environment()
    assert templates.loader is not None
    script, style = (templates.loader.get_source(templates, f"report.{end}")[0] for end in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = templates.get_template("page.html").render(
        title=title,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
    write_text_atomically(path, page + "\n")
