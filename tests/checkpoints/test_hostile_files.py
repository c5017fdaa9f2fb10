"""Weights from strangers: nothing that is in a file runs, and none asks for more memory than it is."""

import builtins
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidformers.checkpoints.read import read_checkpoint
from vidformers.data.datasets.webdataset import read_index, scan_shard
from vidformers.data.records import read_label_file
from vidformers.engine.checkpoint import checkpoint_path, load_newest_checkpoint, save_checkpoint
from vidformers.engine.ready_model import ready_model
from vidformers.hub import from_pretrained
from vidformers.models import create_model


class Writer:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path, function: object) -> None:
        self.path, self.function = path, function

    def __reduce__(self):
        if self.function is os.system:
            return os.system, (f"touch {self.path}",)
        if self.function is exec:
            return exec, (f"open({str(self.path)!r}, 'w').close()",)
        return builtins.open, (str(self.path), "w")


def protocols(path: Path, payload: object) -> dict[str, Path]:
    """The payload beside honest weights, as each kind of file that torch has had."""
    state = {"model_state": {"weight": torch.ones(2)}, "extra": payload}
    files = {name: path / f"{name}.pth" for name in ("zip", "legacy", "pickle")}
    torch.save(state, files["zip"])
    torch.save(state, files["legacy"], _use_new_zipfile_serialization=False)
    files["pickle"].write_bytes(pickle.dumps(payload))
    return files


@pytest.mark.parametrize("function", [os.system, exec, open])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, function: object) -> None:
    target = tmp_path / "written"
    for name, path in protocols(tmp_path, Writer(target, function)).items():
        with pytest.raises(
            ValueError, match=r"refused because it holds Python objects|not a readable PyTorch"
        ):
            read_checkpoint(str(path))
        assert not target.exists(), name
    # What is refused does run where it is not refused: the file is as hostile as it should be.
    with open(tmp_path / "pickle.pth", "rb") as file:
        pickle.load(file)
    assert target.exists()


def test_a_run_does_not_resume_from_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "written"
    save_checkpoint(checkpoint_path(tmp_path, 1), {"epoch": 1})
    torch.save({"epoch": 2, "model": Writer(target, os.system)}, checkpoint_path(tmp_path, 2))
    assert load_newest_checkpoint(tmp_path)[1]["epoch"] == 1
    assert "cannot be read" in capsys.readouterr().out and not target.exists()


def bomb(path: Path) -> Path:
    """40 MB of zeros in 40 KB."""
    torch.save({"weight": torch.zeros(10_000_000), "epoch": 3}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch, capsys) -> None:
    path = bomb(tmp_path / "bomb.pth")
    newest = bomb(checkpoint_path(tmp_path, 3))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match=r"refused because its [\d,]+ bytes say that they unpack to 40,0"):
        read_checkpoint(str(path))
    with pytest.raises(ValueError, match="None of the 1 checkpoints"):
        load_newest_checkpoint(tmp_path)
    assert f"{newest} cannot be read" in " ".join(capsys.readouterr().out.split())


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absurd.pth"
    for place in (
        {"w": torch.zeros(1).expand(10**6, 10**6)},
        {"model": {"w": torch.zeros(2).expand(9999, 2)}},
    ):
        torch.save(place, path)
        with pytest.raises(ValueError, match=r"refused because a tensor in it says that it is \("):
            read_checkpoint(str(path))
    # Two names of one tensor, as tied weights are, are no lie.
    tied = torch.rand(5000)
    torch.save({"a": tied, "b": tied, "c": [tied]}, path)
    assert read_checkpoint(str(path))["b"].shape == (5000,)


def test_lists_without_end_are_looked_through_once(tmp_path: Path) -> None:
    endless: list = []
    endless.append(endless)
    thousand_million: list = [1]
    for _ in range(40):
        thousand_million = [thousand_million, thousand_million]
    for kind in (True, False):
        path = tmp_path / "lists.pth"
        torch.save(
            {"w": torch.ones(2), "a": endless, "b": thousand_million},
            path,
            _use_new_zipfile_serialization=kind,
        )
        assert read_checkpoint(str(path))["w"].shape == (2,)


class Bytes:
    """Unpickled by torch, which allows it, this is 64 GB of zeros in 20 bytes."""

    def __reduce__(self):
        return bytearray, (1 << 36,)


def test_a_pickle_that_has_bytes_made_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    paths = protocols(tmp_path, Bytes())
    for name in ("zip", "legacy"):  # a pickle of protocol 4 names it in another way, which torch refuses
        with pytest.raises(ValueError, match="refused because it holds a bytearray"):
            read_checkpoint(str(paths[name]))
    torch.save({"epoch": 1, "x": Bytes()}, checkpoint_path(tmp_path, 1))
    with pytest.raises(ValueError, match="None of the 1 checkpoints"):
        load_newest_checkpoint(tmp_path)
    assert "it holds a bytearray" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", ["meta", "sparse", "quantized"])
def test_tensors_that_are_no_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    """Copied into a model they end in errors of torch that name no file."""
    tensor = torch.zeros(4, 4)
    odd = {
        "meta": tensor.to("meta"),
        "sparse": tensor.to_sparse(),
        "quantized": torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint8),
    }[kind]
    torch.save({"model": {"weight": odd}}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd.pth was refused because a tensor in it is sparse, quantized"):
        read_checkpoint(str(tmp_path / "odd.pth"))


PROTOCOL = {
    "num_frames": 4, "sampling_rate": 1, "num_temporal_views": 1, "num_spatial_crops": 1, "short_side": 32,
    "crop_size": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_arguments": {"embed_dim": 40_000}}, "bytes cannot fill"),
        ({"model_arguments": {"depth": 50_000}}, "bytes cannot fill"),
        ({"model_arguments": {"depth": 10**9}}, "bytes cannot fill"),
        ({"model_arguments": {"num_frames": 10**9}}, "bytes cannot fill"),
        ({"protocol": {"num_temporal_views": 10**9}}, "wanted whole numbers from 1 to 10000"),
        ({"protocol": {"crop_size": "large"}}, "wanted whole numbers from 1 to 10000"),
        ({"protocol": {"num_frames": 9999, "short_side": 9999}}, "take 5998 GB"),
    ],
)
def test_a_header_that_asks_for_all_memory_is_refused(tmp_path: Path, said: dict, message: str) -> None:
    """The weights of a tiny model that say that they are of an absurd one, or to be tested absurdly."""
    path = tmp_path / "model.safetensors"
    arguments = {"num_classes": 2, "embed_dim": 8}
    state = create_model("mvit_tiny", **arguments).state_dict()
    header = {"model_name": "mvit_tiny", "model_arguments": arguments, "protocol": PROTOCOL}
    save_file(state, path, metadata={"vidformers": json.dumps(header)})
    assert not from_pretrained(path).training
    said = {key: {**header[key], **value} for key, value in said.items()}
    save_file(state, path, metadata={"vidformers": json.dumps({**header, **said})})
    for read in (from_pretrained, lambda path: ready_model(None, weights=path)):
        with pytest.raises(ValueError, match=message):
            read(path)


def test_json_nested_without_end(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    save_file(
        {"w": torch.ones(1)},
        tmp_path / "deep.safetensors",
        metadata={"vidformers": f'{{"model_arguments": {deep}}}'},
    )
    with pytest.raises(ValueError, match=r"metadata of .*deep.safetensors cannot be understood"):
        read_checkpoint(str(tmp_path / "deep.safetensors"))
    for read in (read_index, read_label_file):
        (tmp_path / "deep.json").write_text(deep)
        with pytest.raises(ValueError, match=r"deep.json"):
            read(str(tmp_path / "deep.json"))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_of_more_than_all_memory(tmp_path: Path, kind: bytes) -> None:
    """tarfile makes room for a name of that length before it reads it."""
    header = tarfile.TarInfo("a.mp4")
    header.type, header.size = kind, 1 << 62
    (tmp_path / "shard.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(ValueError, match=r"shard.tar' is no whole tar file"):
        scan_shard(str(tmp_path / "shard.tar"))


def test_an_old_file_that_announces_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pth"
    torch.save({"w": torch.zeros(10)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    number = b"cpuq\x06K\nN"  # the ten elements of the storage
    assert content.count(number) == 1
    huge = b"cpuq\x06" + b"\x8a\x06" + (2**44).to_bytes(6, "little") + b"N"
    path.write_bytes(content.replace(number, huge))
    with pytest.raises(ValueError, match="not a readable PyTorch checkpoint"):
        read_checkpoint(str(path))


@pytest.mark.parametrize("name", ["huge header", "huge tensor", "overlapping", "no JSON", "cut short"])
def test_safetensors_are_as_long_as_they_say(tmp_path: Path, name: str) -> None:
    def header(**entries: object) -> bytes:
        text = json.dumps(entries).encode()
        return struct.pack("<Q", len(text)) + text

    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    content = {
        "huge header": struct.pack("<Q", 2**60) + b"{}",
        "huge tensor": header(w={"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}),
        "overlapping": header(a=tensor, b=tensor) + bytes(8),
        "no JSON": struct.pack("<Q", 4) + b"abcd",
        "cut short": header(w=tensor) + bytes(7),
    }[name]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_checkpoint(str(path))
    path.write_bytes(header(w=tensor) + bytes(8))
    assert read_checkpoint(str(path))["w"].shape == (2,)


def test_archives_that_are_no_checkpoints_are_not_unpacked(tmp_path: Path, monkeypatch) -> None:
    """Members that would leave the folder: nothing is unpacked, so nothing does."""
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / "inner"
    inner.mkdir()
    evil = tmp_path / "evil.txt"
    evil.write_text("evil")
    with zipfile.ZipFile(inner / "a.pth", "w") as archive:
        archive.write(evil, "../escaped.txt")
        archive.write(evil, "/tmp/trust_escaped.txt")
    with tarfile.open(inner / "b.pth", "w") as tar:
        tar.add(evil, "../escaped.txt")
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ValueError, match="not a readable PyTorch checkpoint"):
            read_checkpoint(str(inner / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.txt", "inner"]
    assert not Path("/tmp/trust_escaped.txt").exists()


def test_our_own_files_are_not_refused(tmp_path: Path) -> None:
    model = create_model("mvit_tiny", num_classes=2)
    save_checkpoint(tmp_path / "own.pyth", {"model": model.state_dict(), "epoch": 1})
    assert len(read_checkpoint(str(tmp_path / "own.pyth"))["model"]) == len(model.state_dict())
