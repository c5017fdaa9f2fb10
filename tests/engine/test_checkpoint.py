import io
from pathlib import Path
from typing import Any

import pytest
import torch

from vidformers import files
from vidformers.engine import checkpoint
from vidformers.engine.checkpoint import (
    checkpoint_path,
    export_sharded,
    keep_last,
    list_checkpoints,
    load_newest_checkpoint,
    save_checkpoint,
    save_sharded,
)


def test_the_newest_readable_checkpoint_is_used_and_a_damaged_one_is_named(tmp_path, capsys):
    for epoch in (1, 2, 10):
        save_checkpoint(checkpoint_path(tmp_path, epoch), {"epoch": epoch, "model": {"w": torch.ones(3)}})
    assert [path.name for path in list_checkpoints(tmp_path)][-1] == "checkpoint_epoch_00010.pyth"
    newest = checkpoint_path(tmp_path, 10)
    newest.write_bytes(newest.read_bytes()[:200])
    path, state = load_newest_checkpoint(tmp_path)
    assert path == checkpoint_path(tmp_path, 2) and state["epoch"] == 2
    assert "checkpoint_epoch_00010.pyth cannot be read" in capsys.readouterr().out


def test_no_checkpoint_is_no_error_but_only_damaged_ones_are(tmp_path):
    assert load_newest_checkpoint(tmp_path / "nowhere") is None
    checkpoint_path(tmp_path, 3).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"None of the 1 checkpoints .* can be read"):
        load_newest_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = checkpoint_path(tmp_path, 1)
    save_checkpoint(path, {"epoch": 1})

    def disk_full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"epoch": 1})
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_a_damaged_newest_one_does_not_take_the_place_of_a_readable_one(tmp_path):
    for epoch, step in ((1, 0), (2, 0)):
        save_checkpoint(checkpoint_path(tmp_path, epoch, step), {"epoch": epoch})
    checkpoint_path(tmp_path, 2).write_bytes(b"damaged")
    written = checkpoint_path(tmp_path, 1, 3)  # the run went on from epoch 1
    save_checkpoint(written, {"epoch": 1, "step": 3})
    keep_last(tmp_path, 1, written=written)
    path, _ = load_newest_checkpoint(tmp_path)
    assert path == written and not checkpoint_path(tmp_path, 1).exists()
    save_checkpoint(checkpoint_path(tmp_path, 2), {"epoch": 2})
    keep_last(tmp_path, 1, written=checkpoint_path(tmp_path, 2))
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 2)]


def test_a_finished_sharded_run_has_a_file_to_test_and_a_folder_to_resume_from(tmp_path):
    for epoch in range(1, 9):  # whatever order the file system lists them in
        folder = tmp_path / str(epoch)
        sharded, whole = (checkpoint_path(folder, epoch, sharded=kind) for kind in (True, False))
        for path in (sharded, whole) if epoch % 2 else (whole, sharded):
            save_checkpoint(path / "run.pyth" if path is sharded else path, {"epoch": epoch, "files": {}})
        assert load_newest_checkpoint(folder)[0] == whole
        assert load_newest_checkpoint(folder, sharded=True)[0] == sharded


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_a_sharded_checkpoint_takes_the_place_of_a_damaged_one(tmp_path):
    path = checkpoint_path(tmp_path, 1, sharded=True)
    path.mkdir()
    (path / "half").write_text("damaged")
    save_sharded(path, {"model": {"w": torch.ones(3)}}, {"epoch": 1})
    assert load_newest_checkpoint(tmp_path)[1] == {"epoch": 1} and not (path / "half").exists()


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "another byte": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "gone": lambda path: path.unlink(),
}


def flipped(content: bytes) -> bytes:
    """One bit of a tensor of ones is another."""
    place = content.index(torch.ones(64).numpy().tobytes()) + 99
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize(
    ("file", "damage"),
    [(file, damage) for file in ("__0_0.distcp", ".metadata") for damage in DAMAGE]
    + [("whole", "cut short"), ("whole", "another byte")],
)
def test_any_damage_is_found_before_the_checkpoint_is_used(file, damage, tmp_path, capsys):
    tensors = {"model": {"w": torch.ones(64)}}
    for epoch in (1, 2):
        path = checkpoint_path(tmp_path, epoch, sharded=file != "whole")
        if file == "whole":
            save_checkpoint(path, {"epoch": epoch, **tensors})
        else:
            save_sharded(path, tensors, {"epoch": epoch})
    broken = path if file == "whole" else path / file
    if file == ".metadata" and damage == "another byte":
        broken.write_bytes(broken.read_bytes()[:-9] + b"x" + broken.read_bytes()[-8:])
    else:
        DAMAGE[damage](broken)
    found, state = load_newest_checkpoint(tmp_path)
    assert state["epoch"] == 1 and "00001" in found.name
    said = capsys.readouterr().out
    assert f"{path} cannot be read" in said and (file == "whole" or file in said)
    if file == "__0_0.distcp":
        with pytest.raises(ValueError, match=r"__0_0.distcp is damaged or missing"):
            export_sharded(path, tmp_path / "weights.pyth")


def test_two_processes_may_write_the_same_text_at_the_same_time(tmp_path, monkeypatch):
    fsync, path = files.os.fsync, tmp_path / "list.json"

    def meanwhile(number):
        monkeypatch.setattr(files.os, "fsync", fsync)
        files.write_text_atomically(path, "theirs")

    monkeypatch.setattr(files.os, "fsync", meanwhile)
    files.write_text_atomically(path, "ours")
    assert path.read_text() == "ours" and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_torch_writes_stays_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch makes a RuntimeError of it, which would read as a full disk."""

    class Interrupted(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell():  # the file has been begun
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(checkpoint, "open", lambda path, mode: Interrupted(path, mode), raising=False)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "checkpoint_epoch_00001.pyth", {"a": torch.zeros(5)})
    assert not list(tmp_path.iterdir())
