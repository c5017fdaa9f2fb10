import pytest
import torch

from vidformers.engine.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    load_newest_checkpoint,
    save_checkpoint,
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
