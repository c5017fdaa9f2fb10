"""The fused attention core, and the relative position bias, against their formulas."""

import pytest
import torch

from vidformers.layers.attention import attention, attention_eager
from vidformers.layers.rel_pos import cached_index, decomposed_bias, relative_index, resize_rows


@pytest.mark.parametrize("bias_shape", [None, (2, 3, 5, 7), (1, 1, 1, 7)])
def test_fused_attention_equals_eager(bias_shape: tuple[int, ...] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, n, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (5, 7, 7)
    )
    bias = None if bias_shape is None else torch.randn(bias_shape, generator=generator, dtype=torch.float64)
    results = []
    for function in (attention, attention_eager):
        out = function(q, k, v, bias, 0.3)
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    torch.testing.assert_close(results[0], results[1], atol=1e-12, rtol=0)


def test_relative_index() -> None:
    assert relative_index(3, 3).tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    # Two keys, each as long as two queries.
    assert relative_index(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    # 5 queries on 3 keys: steps of 5/3, truncated.
    assert relative_index(5, 3)[0].tolist() == [3, 1, 0]


def test_indices_are_kept() -> None:
    index = cached_index(6, 3, torch.device("cpu"))
    assert cached_index(6, 3, torch.device("cpu")) is index
    torch.testing.assert_close(index, relative_index(6, 3))
    assert cached_index(6, 3, torch.device("meta")).is_meta


def test_resize_rows() -> None:
    table = torch.arange(6.0)[:, None].expand(6, 2)
    assert resize_rows(table, 6) is table
    torch.testing.assert_close(resize_rows(table, 3), torch.tensor([0.5, 2.5, 4.5])[:, None].expand(3, 2))


@pytest.mark.parametrize("axes", ["thw", "t", "hw", "w"])
def test_decomposed_bias_equals_its_definition(axes: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query_grid, key_grid = (3, 4, 5), (3, 2, 3)
    tables = [
        torch.randn(2 * max(q, k) - 1, 6, generator=generator) if axis in axes else None
        for axis, q, k in zip("thw", query_grid, key_grid, strict=True)
    ]
    indices = [relative_index(q, k) for q, k in zip(query_grid, key_grid, strict=True)]
    q = torch.randn(2, 2, 60, 6, generator=generator)
    bias = decomposed_bias(q, tables, query_grid, key_grid)
    assert bias.shape == (2, 2, 60, 18)

    queries = [(t, h, w) for t in range(3) for h in range(4) for w in range(5)]
    keys = [(t, h, w) for t in range(3) for h in range(2) for w in range(3)]
    expected = torch.zeros_like(bias)
    for n, query in enumerate(queries):
        for m, key in enumerate(keys):
            for axis, table in enumerate(tables):
                if table is not None:
                    row = table[indices[axis][query[axis], key[axis]]]
                    expected[:, :, n, m] += q[:, :, n] @ row
    torch.testing.assert_close(bias, expected, atol=1e-5, rtol=0)
