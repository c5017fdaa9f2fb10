"""The dynamic position bias against its definition, one pair of tokens at a time."""

import pytest
import torch

from vidformers.layers.position_bias import DynamicBias


@pytest.mark.parametrize(("group", "temporal"), [((3, 2, 4), True), ((1, 3, 2), False), ((1, 2, 2), True)])
def test_by_loops(group: tuple[int, int, int], temporal: bool) -> None:
    torch.manual_seed(0)
    bias = DynamicBias(6, 2, temporal=temporal).double()
    for parameter in bias.parameters():
        torch.nn.init.normal_(parameter)
    found = bias(group)
    tokens = [(t, h, w) for t in range(group[0]) for h in range(group[1]) for w in range(group[2])]
    assert found.shape == (2, len(tokens), len(tokens))
    for i, query in enumerate(tokens):
        for j, key in enumerate(tokens):
            offset = [float(q - k) for q, k in zip(query, key, strict=True)]
            x = bias.pos_proj(torch.tensor(offset[0 if temporal else 1 :], dtype=torch.float64))
            for layer in (bias.pos1, bias.pos2, bias.pos3):
                norm, _, linear = layer
                x = linear(norm(x).clamp(min=0))
            torch.testing.assert_close(found[:, i, j], x)


def test_without_temporal_offsets_there_is_one_time_step() -> None:
    with pytest.raises(ValueError, match="temporal=True"):
        DynamicBias(4, 2, temporal=False)((2, 2, 2))
