"""report.html of a run without labels: its losses and its picture."""

import base64
from pathlib import Path

import torch

from tests.report.test_run_report import page_of, train_line, write_log
from vidformers.report import run_report
from vidformers.report.reconstruction import save_reconstruction


def test_a_pretraining_shows_what_it_made_of_what_was_hidden(tmp_path: Path) -> None:
    validations = [
        f'{{"event": "val", "epoch": {epoch}, "loss": {loss}, "mean_patch_loss": 0.5, "num_videos": 10}}'
        for epoch, loss in ((1, 0.375), (2, 0.25), (3, 0.3125))
    ]
    write_log(tmp_path, train_line(1, 1, 2.0), *validations)
    run_report.write_run_report(tmp_path, title="t")
    assert not any(tag == "img" for tag, _ in page_of(tmp_path).elements)
    clips = [[torch.full((3, 2, 8, 8), value) for value in (0.2, 0.5, 0.7)]]
    save_reconstruction(tmp_path / "reconstruction.png", clips)
    run_report.write_run_report(tmp_path, title="t")
    page = page_of(tmp_path)
    (picture,) = (str(attributes["src"]) for tag, attributes in page.elements if tag == "img")
    content = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
    assert content == (tmp_path / "reconstruction.png").read_bytes()
    assert "of what was hidden: 0.2500 after epoch 2, one view each of 10 videos" in page.text
    assert "would have 0.5000" in page.text
