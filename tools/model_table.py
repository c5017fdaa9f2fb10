"""Write docs/models.md, the table of every registered model (a minute):

python tools/model_table.py
"""

import argparse
import inspect
import re
from pathlib import Path

import torch

import vidformers as vf
from vidformers.analysis.complexity import count_flops, count_parameters
from vidformers.checkpoints.families import FAMILIES

HEADER = """# Models

Written by `python tools/model_table.py`; do not edit. Parameters and GFLOPs (multiply-adds of one view in
eval mode, as `vidformers.analysis.complexity.count_flops` counts them) are those of the registered name as it
is: its own number of frames, image size and number of classes. `mvit`, `rev_mvit` and the `*_tiny` names
are not published sizes.

"""


def paper_links(model_class: type) -> str:
    """The arXiv numbers that the docstring of the class's module names, as links."""
    text = inspect.getmodule(model_class).__doc__ or ""  # type: ignore[union-attr]
    return ", ".join(f"[{n}](https://arxiv.org/abs/{n})" for n in re.findall(r"\b\d{4}\.\d{5}\b", text))


def row(name: str) -> str:
    """One line of the table; the model is built and counted on the meta device."""
    arguments = vf.model_arguments(name)
    size = arguments["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (1, arguments["in_channels"], arguments["num_frames"], height, width)
    with torch.device("meta"):
        model = vf.create_model(name)
    gflops = count_flops(model, shape)["total"] / 1e9
    clip = "x".join(map(str, shape[2:]))
    return f"| `{name}` | {clip} | {count_parameters(model) / 1e6:.2f} | {gflops:.1f} |"


def table() -> str:
    """The whole page."""
    sections = []
    names = vf.list_models()
    classes = {vf.model_class(name) for name in names}
    for model_class in sorted(classes, key=lambda c: c.__name__):
        sources = ", ".join(dict.fromkeys(s.name for s in FAMILIES[model_class.__name__].sources))
        rows = [row(name) for name in names if vf.model_class(name) is model_class]
        sections.append(
            f"## {model_class.__name__}\n\n"
            f"Paper: {paper_links(model_class) or 'see the docstring'}. "
            f"Weights that load: {sources or 'none published'}.\n\n"
            "| name | clip (T x H x W) | parameters (M) | GFLOPs |\n|---|---|---:|---:|\n"
            + "\n".join(rows)
            + "\n"
        )
    return HEADER + "\n".join(sections)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    page = Path(__file__).parents[1] / "docs" / "models.md"
    parser.add_argument("--out", type=Path, default=page, help="the page to write (%(default)s)")
    path = parser.parse_args().out
    path.parent.mkdir(exist_ok=True)
    path.write_text(table(), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
