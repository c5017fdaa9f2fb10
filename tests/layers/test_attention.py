"""The fused attention core, and the relative position bias, against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from vidformers.layers import chunked_attention as chunked
from vidformers.layers.attention import attention, attention_eager, by_definition, replaced_attention
from vidformers.layers.rel_pos import (
    decomposed_bias,
    relative_attention,
    relative_index,
    resize_rows,
)


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


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
@pytest.mark.parametrize(
    ("query_grid", "key_grid"), [((3, 5, 4), (2, 3, 5)), ((2, 4, 4), (2, 4, 4)), ((1, 3, 3), (3, 1, 2))]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_folded_relative_position_equals_the_bias(
    class_token, axes, query_grid, key_grid, dtype, tolerance, monkeypatch
):
    monkeypatch.setattr(chunked, "LOGITS_AT_A_TIME", 100)
    monkeypatch.setattr(chunked, "FEWEST_QUERIES", 4)
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    first, d = int(class_token), 6
    num_queries, num_keys = first + math.prod(query_grid), first + math.prod(key_grid)
    q, k, v = random(2, 3, num_queries, d), random(2, 3, num_keys, d), random(2, 3, num_keys, d)
    tables = [
        random(2 * max(a, b) - 1, d) if axis in axes else None
        for axis, a, b in zip("thw", query_grid, key_grid, strict=True)
    ]
    logit = 0.7 if class_token else 0.0  # the class key's own
    scale = 0.3
    bias = F.pad(decomposed_bias(q[:, :, first:], tables, query_grid, key_grid), (first, 0, first, 0))
    if class_token:
        bias = bias + F.pad(bias.new_full((1,), logit), (0, num_keys - 1))
    expected = attention_eager(q, k, v, bias, scale)
    settings = {"scale": scale, "class_token": class_token, "class_key_logit": logit}

    def folded():
        return relative_attention(q, k, v, tables, query_grid, key_grid, **settings)

    def in_chunks():
        tokens = (x.transpose(1, 2).flatten(2) for x in (q, k, v))
        out = chunked.chunked_attention(*tokens, tables, query_grid, key_grid, num_heads=3, **settings)
        return out.unflatten(-1, (3, d)).transpose(1, 2)

    with by_definition():
        torch.testing.assert_close(folded(), expected, atol=tolerance, rtol=tolerance)
    weight = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(dtype)
    leaves = [q, k, v, *(table for table in tables if table is not None)]
    gradients = torch.autograd.grad((expected * weight).sum(), leaves)
    for compute in (folded, in_chunks):
        with torch.no_grad():
            torch.testing.assert_close(compute(), expected, atol=tolerance, rtol=tolerance)
        out = compute()
        torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)
        for ours, theirs in zip(torch.autograd.grad((out * weight).sum(), leaves), gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=20 * tolerance, rtol=20 * tolerance)


def test_chunks_step_aside() -> None:
    """For other devices and precisions, and for those who count, export or explain attention."""
    q = torch.randn(1, 5, 4)
    assert chunked.suits_chunks(q) and chunked.suits_chunks(q.double())
    assert not chunked.suits_chunks(q.bfloat16()) and not chunked.suits_chunks(q.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not chunked.suits_chunks(q)
    with by_definition():
        assert not chunked.suits_chunks(q)
    with replaced_attention(attention_eager):
        assert not chunked.suits_chunks(q)
