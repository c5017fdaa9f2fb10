"""Each rule of inflation keeps the function on clips of equal frames."""

import pytest
import torch
from torch import nn

from vidformers.checkpoints.inflate import dpb_column, inflate, resize_table, tile_position
from vidformers.layers.conv import Conv3d
from vidformers.layers.position_bias import TableBias


@pytest.mark.parametrize("time_padding,rule", [("replicate", "mean"), ("zero", "centre")])
@pytest.mark.parametrize("num_frames", [1, 4, 5])
def test_padded_convolutions(time_padding: str, rule: str, num_frames: int) -> None:
    image = nn.Conv2d(2, 4, 3, 2, 1)
    model = nn.Sequential(Conv3d(2, 4, (3, 3, 3), (2, 2, 2), (1, 1, 1), time_padding=time_padding))
    adapted = inflate({f"0.{n}": p for n, p in image.state_dict().items()}, model)
    assert adapted.inflated == ["0.weight"]
    model.load_state_dict(adapted.state)
    assert (model[0].weight[:, :, 0].abs().max() == 0) == (rule == "centre")
    x = torch.randn(1, 2, 7, 8)
    out = model(x.unsqueeze(2).expand(-1, -1, num_frames, -1, -1))
    torch.testing.assert_close(out, image(x).unsqueeze(2).expand_as(out))


def test_tables_repeat_and_resize() -> None:
    image, model = TableBias((1, 3, 3), 2), nn.Sequential(TableBias((2, 3, 3), 2))
    adapted = inflate({"0.table": image.table.detach()}, model)
    assert adapted.inflated == ["0.table"]
    model.load_state_dict(adapted.state)
    expected = image((1, 3, 3)).repeat(1, 2, 2)  # every pair of frames has the image's numbers
    torch.testing.assert_close(model[0]((2, 3, 3)), expected)

    wider = nn.Sequential(TableBias((1, 4, 4), 2))
    adapted = inflate({"0.table": image.table.detach()}, wider)
    assert (adapted.resized, adapted.inflated) == (["0.table"], [])
    assert adapted.state["0.table"].shape == (49, 2)
    # 5 x 7 x 7 tokens have as many offsets as 20 x 20: it is the kernels that tell a video model's.
    clips = nn.Sequential(Conv3d(2, 4, (2, 3, 3)), TableBias((8, 7, 7), 2))
    state = {"0.weight": clips[0].weight.detach(), "1.table": torch.randn(9 * 13 * 13, 2)}
    adapted = inflate(state, clips)
    assert (adapted.resized, adapted.inflated) == (["1.table"], [])
    expected = resize_table(state["1.table"], (9, 13, 13), (15, 13, 13))
    torch.testing.assert_close(adapted.state["1.table"], expected)
    # a ramp stays a ramp
    ramp = torch.linspace(0, 1, 5)[:, None]
    longer = resize_table(ramp, (5, 1, 1), (9, 1, 1))
    assert longer[4].item() == pytest.approx(0.5)
    assert (longer.diff(dim=0) >= 0).all()


def test_dynamic_position_bias_ignores_the_frame() -> None:
    image = nn.Linear(2, 4)
    video = nn.Sequential(nn.Linear(3, 4))
    adapted = inflate({f"0.{n}": p for n, p in image.state_dict().items()}, video)
    assert adapted.inflated == ["0.weight"]
    video.load_state_dict(adapted.state)
    offsets = torch.tensor([[5.0, 2.0, -1.0]])
    torch.testing.assert_close(video(offsets), image(offsets[:, 1:]))
    assert dpb_column(torch.ones(4, 2))[:, 0].abs().max() == 0


def test_tiled_positions_keep_the_prefix_once() -> None:
    embedding = torch.arange(4.0).view(1, 4, 1)
    assert tile_position(embedding, 2, num_prefix=1).flatten().tolist() == [0, 1, 2, 3, 1, 2, 3]
