"""Models to folders and repositories and back, without a network: a folder stands for the hub."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vidformers as vf
from tests.checkpoints.test_metadata import METADATA
from tests.models.tiny import tiny, tiny_clip
from vidformers.checkpoints.save import save_weights

pytest.importorskip("safetensors")
LABELS = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("name", vf.list_models("*_tiny"))
def test_a_folder_gives_the_model_back(name: str, tmp_path: Path) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    vf.save_pretrained(model, tmp_path / "saved", protocol=METADATA.protocol, labels=LABELS)
    again = vf.from_pretrained(tmp_path / "saved")
    assert type(again) is type(model) and not again.training
    assert again.metadata == replace(model.metadata, protocol=METADATA.protocol, labels=tuple(LABELS))
    with torch.no_grad():
        torch.testing.assert_close(again(clip), model(clip), atol=0, rtol=0)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["labels"] == LABELS
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "library_name: vidformers" in card and "5 classes: a, b, c, d, e" in card


def test_a_card_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    vf.save_pretrained(tiny("mvit_tiny"), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_overrides_and_a_new_classifier(tmp_path: Path) -> None:
    model = tiny("mvit_tiny")
    vf.save_pretrained(model, tmp_path, labels=LABELS)
    file = tmp_path / "model.safetensors"
    longer = vf.from_pretrained(file, num_frames=8, drop_path_rate=0.1)
    assert longer(torch.zeros(1, 3, 8, 32, 32)).shape == (1, 5)
    assert longer.metadata.labels == tuple(LABELS)
    other = vf.from_pretrained(file, num_classes=7)
    assert other.num_classes == 7 and other.metadata.labels is None
    assert torch.equal(other.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)
    # What the model has become is what is written.
    several = replace(longer.metadata, multi_label=True)
    save_weights(longer, file, several)
    assert vf.from_pretrained(file).metadata.multi_label
    assert vf.create_model("mvit_tiny", weights=file).training  # a new model is, as torch's are
    model.reset_classifier(3)
    with pytest.raises(ValueError, match="got 5 labels for 3 classes"):
        vf.save_pretrained(model, tmp_path, labels=LABELS)
    vf.save_pretrained(model, tmp_path)
    assert vf.from_pretrained(file).num_classes == 3
    model.reset_classifier(0)
    with pytest.raises(ValueError, match="no classifier"):
        vf.save_pretrained(model, tmp_path)


def test_create_model_reads_weights_of_its_own_name_alone(tmp_path: Path) -> None:
    model, file = tiny("mvit_tiny").eval(), tmp_path / "model.safetensors"
    save_weights(model, file)
    assert torch.equal(
        vf.create_model("mvit_tiny", weights=file).eval()(tiny_clip("mvit_tiny")),
        model(tiny_clip("mvit_tiny")),
    )
    with pytest.raises(ValueError, match=r"holds weights of 'mvit_tiny', not of 'swin_tiny'.*create_model"):
        vf.create_model("swin_tiny", weights=file)
    with pytest.raises(ValueError, match="does not fit"):
        vf.create_model("mvit_tiny", weights=file, embed_dim=32)
    # Of weights that say nothing the name is believed.
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    plain = vf.create_model("mvit_tiny", weights=tmp_path / "plain.pth", **model.metadata.model_arguments)
    assert torch.equal(plain.head.projection.weight, model.head.projection.weight)
    with pytest.raises(ValueError, match="besides the classifier"):
        deeper = {**model.metadata.model_arguments, "depth": 5}
        vf.create_model("mvit_tiny", weights=tmp_path / "plain.pth", **deeper)


def test_weights_that_say_nothing_are_no_pretrained_model(tmp_path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file(tiny("mvit_tiny").state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="does not say which model it is of; use create_model"):
        vf.from_pretrained(tmp_path)
    for name in ("none.safetensors", "none.pyth"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            vf.from_pretrained(tmp_path / name)
    torch.save(tiny("mvit_tiny").state_dict(), tmp_path / "plain.pth")
    with pytest.raises(ValueError, match=r"convert_checkpoint\.py .*plain\.pth new\.safetensors --model"):
        vf.from_pretrained(tmp_path / "plain.pth")
    model = tiny("mvit_tiny")
    del model.metadata
    with pytest.raises(ValueError, match="does not say what it is"):
        vf.save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match=r"ends with \.safetensors"):
        save_weights(model, tmp_path / "weights.pth", METADATA)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through huggingface_hub's own functions, a folder being the server."""
    hub = pytest.importorskip("huggingface_hub")
    server = tmp_path / "server"

    class Api:
        def create_repo(self, repo_id, *, private, exist_ok):
            (server / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return f"https://huggingface.co/{repo_id}"

        def file_exists(self, repo_id, name):
            return (server / repo_id / name).exists()

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, server / repo_id, dirs_exist_ok=True)

    def download(repo_id, name, *, revision=None):
        return str(server / repo_id / name)

    for function in ("create_repo", "file_exists", "upload_folder"):  # they take what is given here
        _same_parameters(getattr(hub.HfApi, function), getattr(Api, function))
    _same_parameters(hub.hf_hub_download, download)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "hf_hub_download", download)

    model = tiny("swin_tiny")
    assert vf.push_to_hub(model, "me/swin", labels=LABELS) == "https://huggingface.co/me/swin"
    assert {p.name for p in (server / "me/swin").iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    again = vf.from_pretrained("me/swin")
    assert torch.equal(again.head.projection.weight, model.head.projection.weight)
    (server / "me/swin/README.md").write_text("mine")
    vf.push_to_hub(model, "me/swin")
    assert (server / "me/swin/README.md").read_text() == "mine"


def _same_parameters(theirs, stand_in) -> None:
    import inspect

    known = list(inspect.signature(theirs).parameters)
    for place, (name, parameter) in enumerate(inspect.signature(stand_in).parameters.items()):
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert name in known
        else:
            assert place < len(known)
