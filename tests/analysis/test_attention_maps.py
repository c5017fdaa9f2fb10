"""Rollout and relevance against answers known in closed form, and against dense matrices written by hand."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import vidformers as vf
from tests.models.tiny import tiny, tiny_clip
from vidformers.analysis import attention_maps
from vidformers.analysis.attention_maps import relevance, rollout, weighted_attention
from vidformers.analysis.token_replay import even_coverage
from vidformers.layers import group_attention
from vidformers.layers.attention import attention, attention_probabilities, replaced_attention
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.partition import partition
from vidformers.layers.subsampled_attention import SubsampledAttention
from vidformers.models.hiera import MaskUnitAttention

TINY = vf.list_models("*_tiny")
WITH_LEARNED_TOKENS = {"cpvt_tiny", "msg_tiny", "mvit_tiny", "pvt_tiny", "vit_tiny"}


def set_attention(monkeypatch: pytest.MonkeyPatch, matrix: Callable[[int, int], Tensor]) -> None:
    """Every attention is matrix(queries, keys)."""

    def probabilities(q: Tensor, k: Tensor, bias: object, scale: float) -> Tensor:
        return matrix(q.shape[2], k.shape[2]).expand(*q.shape[:3], k.shape[2])

    monkeypatch.setattr(attention_maps, "attention_probabilities", probabilities)


def vit(**arguments: object) -> nn.Module:
    """4 blocks, patches of 2 x 8 x 8: 2 x 4 x 4 of them in a clip of 4 x 32 x 32."""
    return tiny("vit_tiny", **arguments).eval()


CLIP = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
PIXELS = 2 * 8 * 8  # of a patch


def test_uniform_attention_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    set_attention(monkeypatch, lambda n, m: torch.full((n, m), 1 / m))
    by_mean = rollout(vit(class_token=False), CLIP)
    torch.testing.assert_close(by_mean, torch.full((2, 4, 32, 32), 1 / (32 * PIXELS)))
    # A class token keeps half of itself in each block; of the rest all 33 tokens have equal parts.
    share = (1 - 0.5**4) / 33
    by_token = rollout(vit(class_token=True), CLIP)
    torch.testing.assert_close(by_token, torch.full((2, 4, 32, 32), share / PIXELS))


def test_who_looks_at_himself_alone_sees_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    set_attention(monkeypatch, lambda n, m: torch.eye(n))
    assert rollout(vit(class_token=True), CLIP).abs().max() == 0
    torch.testing.assert_close(
        rollout(vit(class_token=False), CLIP), torch.full((2, 4, 32, 32), 1 / (32 * PIXELS))
    )


@pytest.mark.parametrize("attended", [0, 21])
def test_one_token_that_all_look_at(monkeypatch: pytest.MonkeyPatch, attended: int) -> None:
    set_attention(monkeypatch, lambda n, m: torch.eye(m)[attended].expand(n, m))
    expected = torch.full((32,), 0.5**4 / 32)
    expected[attended] += 1 - 0.5**4
    t, h, w = attended // 16, attended // 4 % 4, attended % 4
    found = rollout(vit(class_token=False), CLIP)
    patches = found.unflatten(1, (2, 2)).unflatten(3, (4, 8)).unflatten(5, (4, 8)).sum(dim=(2, 4, 6))
    torch.testing.assert_close(patches[0].flatten(), expected)
    inside = found[0, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8]
    torch.testing.assert_close(inside, torch.full_like(inside, float(expected[attended]) / PIXELS))


@pytest.mark.parametrize("name", TINY)
def test_rows_sum_to_one_in_every_family(name: str) -> None:
    found = rollout(tiny(name), tiny_clip(name))
    assert found.shape == tiny_clip(name)[:, 0].shape and found.isfinite().all() and found.min() >= 0
    total = found.sum(dim=(1, 2, 3))
    if name in WITH_LEARNED_TOKENS:
        assert (total > 0.2).all() and (total < 0.999).all()
    else:
        torch.testing.assert_close(total, torch.ones(2))


@pytest.mark.parametrize("name", TINY)
def test_relevance_in_every_family(name: str) -> None:
    model, clip = tiny(name), tiny_clip(name)
    found = relevance(model, clip, [0, 1])
    assert found.shape == clip[:, 0].shape and found.isfinite().all() and found.min() >= 0
    assert found.flatten(1).amax(dim=1).min() > 0
    # Clips do not see each other, and classes differ.
    alone, other = relevance(model, clip[1:], [1]), relevance(model, clip[1:], [0])
    assert (alone - found[1:]).abs().max() < 1e-3 * found[1].max()
    assert (other - found[1:]).abs().max() > 1e-2 * found[1].max()


# One attention a block, added to its input: what a weighted matrix has in each row is added to what arrives.
CHAINS = (
    "crossformer_tiny", "hiera_tiny", "maxvit_tiny", "pvt_v2_tiny", "shuffle_tiny", "swin_tiny",
    "twins_pcpvt_tiny", "twins_svt_tiny", "uniformer_tiny",
)  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_no_relevance_is_lost(name: str) -> None:
    """Through pooling, padding, shifts and merging: (1 + c) for every attention whose rows sum to c."""
    arguments = {"pad_mask": "all"} if name in ("swin_tiny", "twins_svt_tiny") else {}
    model, clip = tiny(name, **arguments), tiny_clip(name)
    with torch.no_grad(), attention_maps.as_it_predicts(model):
        matrices = attention_maps._recorded(model, clip)[1]
    found = attention_maps._of_weighted(model, clip, [0.25 * matrix for matrix in matrices])
    kinds = (GroupAttention, SubsampledAttention, MaskUnitAttention)
    number = sum(isinstance(module, kinds) for module in model.modules())
    expected = torch.full((2,), 1.25**number - 1)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), expected)


def test_gradient_weighted_matrices() -> None:
    model = vit()
    recorded: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        recorded.append(attention_probabilities(q, k, bias, scale))
        recorded[-1].retain_grad()
        return recorded[-1] @ v

    with replaced_attention(attend):
        logits = model(CLIP)
    (logits[0, 3] + logits[1, 2]).backward()
    expected = [(p.grad * p).clamp(min=0).detach() for p in recorded]
    torch.testing.assert_close(weighted_attention(model, CLIP, [3, 2]), expected)
    # The last block's patches are not read: the class token's row is all that there is.
    assert expected[-1][:, :, 1:].abs().max() == 0 and expected[-1][:, :, 0].max() > 0


def cells(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    weight: Tensor | None = None,
) -> Tensor:
    """Dense matrix (outputs, inputs) of pooling: rows of weights over the cells that exist, summing to 1."""
    out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    matrix = torch.zeros(math.prod(out), math.prod(size))
    for row, place in enumerate(itertools.product(*map(range, out))):
        for offset in itertools.product(*map(range, kernel)):
            cell = [o * s - p + k for o, s, p, k in zip(place, stride, padding, offset, strict=True)]
            if all(0 <= c < n for c, n in zip(cell, size, strict=True)):
                column = (cell[0] * size[1] + cell[1]) * size[2] + cell[2]
                matrix[row, column] = 1 if weight is None else weight[offset]
    if weight is not None:  # every cell gives as much, at the border too
        matrix = matrix / matrix.sum(dim=0).clamp(min=1e-6)
    return matrix / matrix.sum(dim=1, keepdim=True)


def even(kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Weights under a kernel that give each cell the same over all its places: a box of the stride, smeared
    out to the size of the kernel."""
    weights = torch.ones(1)
    for size, step in zip(kernel, stride, strict=True):
        side = torch.ones(size)
        if size > step:
            side = nn.functional.conv1d(
                torch.ones(1, 1, step), torch.ones(1, 1, size - step + 1), padding=size - step
            )
        weights = weights[..., None] * side.view(-1)
    return weights[0]


@pytest.mark.parametrize(("size", "step"), [(7, 4), (3, 2), (3, 1), (5, 4), (4, 4), (2, 1), (3, 8)])
def test_places_of_a_kernel_leave_no_grid(size: int, step: int) -> None:
    kernel, stride = (3, size, size), (2, step, step)
    assert torch.equal(even_coverage(kernel, stride), even(kernel, stride))
    places = torch.ones(1, 1, 20, 20)
    covered = nn.functional.conv_transpose2d(places, even_coverage((size, size), (step, step))[None, None],
                                             stride=step)  # fmt: skip
    inside = covered[0, 0, size:-size, size:-size]
    assert inside.numel() and (inside.unique().numel() == 1 or size < step)


def with_class_token(matrix: Tensor) -> Tensor:
    return torch.block_diag(torch.ones(1, 1), matrix)


def dense_mvit(model: nn.Module, clip: Tensor, matrices: Sequence[Tensor], *, skip: float) -> Tensor:
    """skip x (what the pooled skip keeps) + skip-weighted attention to pooled keys, multiplied out."""
    embed = model.patch_embed
    weights = even(embed.kernel, embed.stride)
    total = with_class_token(cells(clip.shape[2:], embed.kernel, embed.stride, embed.padding, weights))
    _, grid = embed(clip)
    for block, matrix in zip(model.blocks, matrices, strict=True):
        kept = keys = torch.eye(math.prod(grid))
        if block.pool_skip is not None:
            kernel = [s + 1 if s > 1 else 1 for s in block.pool_skip.stride]
            weights = even(kernel, block.pool_skip.stride)
            kept = cells(grid, kernel, block.pool_skip.stride, [k // 2 for k in kernel], weights)
        kernel, stride = block.attn.pool_v.kernel_size, block.attn.pool_v.stride
        keys = cells(grid, kernel, stride, [k // 2 for k in kernel], even(kernel, stride))
        attended = matrix.mean(dim=1)[0] @ with_class_token(keys) @ total
        total = skip * with_class_token(kept) @ total + skip * attended
        grid = block.attn.query_grid
    return total[0, 1:].view(clip.shape[2:])


def test_pooling_attention_by_dense_matrices() -> None:
    model = tiny("mvit_v2_s_16x4", class_token=True, pool_kv_stride_adaptive=(1, 8, 8), depth=4,
                 dim_mul=((1, 2.0), (2, 2.0)), head_mul=((1, 2.0), (2, 2.0)),
                 pool_q_stride=((0, 1, 1, 1), (1, 1, 2, 2), (2, 1, 2, 2), (3, 1, 1, 1))).eval()  # fmt: skip
    assert any(block.attn.rel_pos for block in model.blocks)
    clip = CLIP[:1]
    with torch.no_grad():
        matrices = attention_maps._recorded(model, clip)[1]
    torch.testing.assert_close(rollout(model, clip)[0], dense_mvit(model, clip, matrices, skip=0.5))
    weighted = weighted_attention(model, clip, [4])
    # The class token's own skip leads to no pixel, so nothing is taken off here.
    expected = dense_mvit(model, clip, weighted, skip=1.0)
    torch.testing.assert_close(relevance(model, clip, [4])[0], expected, atol=1e-9, rtol=1e-4)


@pytest.mark.parametrize("pad_mask", ["all", "time"])
def test_shifted_windows_by_dense_matrices(monkeypatch: pytest.MonkeyPatch, pad_mask: str) -> None:
    """8 x 8 tokens in windows of 5: padded, shifted, padding seen as a key ("time") or hidden."""
    model = tiny("swin_t", window=(2, 5, 5), depths=(2, 2), num_heads=(1, 2), embed_dim=8, pad_mask=pad_mask)
    clip = CLIP[:1]
    found = rollout(model, clip)[0]
    # Whole windows, of which a mask hides parts: the order in which they are written down below.
    monkeypatch.setattr(group_attention, "has_hidden_padding", lambda *_, **__: True, raising=False)
    with torch.no_grad(), attention_maps.as_it_predicts(model):
        matrices = iter(attention_maps._recorded(model, clip)[1])
    total = cells((4, 32, 32), (2, 4, 4), (2, 4, 4), (0, 0, 0))
    size = [2, 8, 8]
    for stage in range(2):
        if stage:
            total = cells(size, (1, 2, 2), (1, 2, 2), (0, 0, 0)) @ total
            size = [2, 4, 4]
        window = [min(w, n) for w, n in zip((2, 5, 5), size, strict=True)]
        for shift in ((0, 0, 0), tuple(2 if n > 5 else 0 for n in size)):
            numbers = torch.arange(1, 1 + math.prod(size)).view(1, *size, 1)
            groups = partition(numbers, window, shift=shift)[..., 0]  # (G, N), 0 for padding
            by_head = next(matrices).reshape(len(groups), stage + 1, groups.shape[1], groups.shape[1])
            by_group = by_head.mean(dim=1)
            attended = torch.zeros(math.prod(size), math.prod(size))
            for tokens, matrix in zip(groups, by_group, strict=True):
                real = tokens > 0
                rows = matrix[real][:, real]
                attended[(tokens[real] - 1)[:, None], tokens[real] - 1] = rows / rows.sum(dim=1, keepdim=True)
            total = 0.5 * total + 0.5 * attended @ total
    torch.testing.assert_close(found, total.mean(dim=0).view(4, 32, 32))


def planted(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with one patch of a colour, the class, in each frame: clips, labels, where (N, 4, 32, 32)."""
    clips = 0.3 * torch.randn(number, 3, 4, 32, 32, generator=generator)
    labels = torch.randint(2, (number,), generator=generator)
    places = torch.randint(4, (number, 2), generator=generator)
    where = torch.zeros(number, 4, 32, 32, dtype=torch.bool)
    for clip, label, (row, column), mask in zip(clips, labels, places, where, strict=True):
        mask[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = True
        clip[label][mask] += 2
    return clips, labels, where


def test_a_model_of_single_frames_shows_the_patch_that_it_learned() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    model = vf.create_model(
        "vit_tiny", num_frames=4, image_size=32, num_classes=2, embed_dim=32, num_heads=2, depth=2,
        attention="space_only", position_embedding="spatial", patch_kernel=(1, 8, 8), patch_stride=(1, 8, 8),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        clips, labels, _ = planted(16, generator)
        loss = nn.functional.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clips, labels, where = planted(16, generator)
    assert (model(clips).argmax(dim=1) == labels).all()
    found = relevance(model, clips, labels)
    share = (found * where).sum(dim=(1, 2, 3)) / found.sum(dim=(1, 2, 3))
    assert share.min() > 0.5  # a sixteenth of the area


def test_a_model_is_left_as_it_was() -> None:
    model, clip = tiny("rev_mvit_tiny").train(), tiny_clip("rev_mvit_tiny")
    model.norm.eval()
    before = [(module, module.training) for module in model.modules()]
    with torch.inference_mode():
        rollout(model, clip)
        relevance(model, clip, [0, 0])
    assert all(module.training is mode for module, mode in before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.rev_backbone.reversible_backward


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tokens: Tensor) -> Tensor:
        return 2 * tokens

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Odd(nn.Module):
    """One attention, and an operation after it; or none."""

    def __init__(self, operation: str):
        super().__init__()
        self.operation = operation
        self.head = nn.Linear(3, 5)

    def forward(self, clip: Tensor) -> Tensor:
        tokens = clip.flatten(2).transpose(1, 2)[:, None]
        if self.operation:
            tokens = attention(tokens, tokens, tokens, None, 1.0)
        if self.operation == "cumsum":
            tokens = tokens.cumsum(dim=2)
        if self.operation == "hidden":
            tokens = Hidden.apply(tokens)
        return self.head(tokens.mean(dim=(1, 2)))


def test_an_autograd_function_of_its_own_is_seen_through() -> None:
    clip = torch.randn(1, 3, 1, 4, 4)
    torch.testing.assert_close(rollout(Odd("hidden"), clip), rollout(Odd("plain"), clip))
    assert Hidden.apply(torch.ones(1, requires_grad=True)).grad_fn.name() == "HiddenBackward"


def test_what_cannot_be_explained_says_what_can() -> None:
    clip = torch.randn(1, 3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"no rule how cumsum mixes tokens.*Grad-CAM"):
        rollout(Odd("cumsum"), clip)
    with pytest.raises(ValueError, match=r"Odd calls no attention.*Grad-CAM"):
        relevance(Odd(""), clip, [0])
    for wrong in ([5], [-1], [0, 0], 0):
        with pytest.raises(ValueError, match="a class from 0 to 4"):
            relevance(Odd("cumsum"), clip, wrong)
