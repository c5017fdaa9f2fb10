"""MViT's arguments, one by one: what each changes, and the errors for those that cannot be."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.golden_json import load_json
from tests.models.test_models import tiny
from vidformers.layers import mlp
from vidformers.layers.attention import by_definition
from vidformers.models import MViT, create_model
from vidformers.models.mvit import MultiscaleBlock

V2 = {
    "dim_mul_in_attention": True,
    "residual_pooling": True,
    "rel_pos_spatial": True,
    "rel_pos_temporal": True,
    "position_embedding": "none",
    "pool_q_stride": ((0, 1, 1, 1), (1, 1, 2, 2), (2, 1, 1, 1), (3, 1, 2, 2)),
}


def mvit(**arguments: Any) -> MViT:
    model = tiny("mvit_tiny", **arguments)
    assert isinstance(model, MViT)
    return model


def clip(num_frames: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, num_frames, height, width, generator=torch.Generator().manual_seed(1))


IMPOSSIBLE = [
    ({"num_frames": 9}, "num_frames=9 is not divisible by the patch stride 2 along this axis; use 8 or 10"),
    ({"num_frames": 1}, "use 2"),
    ({"image_size": 33}, r"image_size \(height\)=33 .* use 32 or 36"),
    ({"image_size": (32, 30)}, r"image_size \(width\)=30 .* use 28 or 32"),
    ({"patch_padding": (2, 3, 3)}, "use padding 1 on this axis"),
    (
        {"patch_kernel": (3, 16, 16), "patch_stride": (2, 16, 16), "patch_padding": (1, 8, 8)},
        r"gives 3 tokens along H \(height\) where size / stride is 2.* use padding 0",
    ),
    ({"embed_dim": 5, "num_heads": 2}, "block 0 .* multiples of 2"),
    ({"depth": 2}, "head_mul names block 3, but the last one it can name is 2"),
    ({"pool_kv_stride": ((9, 1, 2, 2),), "pool_kv_stride_adaptive": None}, "pool_kv_stride names block 9"),
    ({"pool_kv_stride": ((0, 1, 2, 2),)}, "not both"),
    ({"pool_mode": "mean"}, "pool_mode='mean' is not one of 'conv'"),
    ({"pool_mode": "conv_unshared"}, "needs pool_first=True"),
    ({"position_embedding": "absolute"}, "not one of 'none', 'joint'"),
    ({"position_embedding": "sincos", "embed_dim": 24}, "divisible by 16, got 24; use 16 or 32"),
    ({"norm": "batchnorm"}, "norm='batchnorm' is not one of 'layernorm'"),
    ({"residual_pooling_class_token": True}, "needs residual_pooling=True"),
    ({"class_token": False, "class_token_log_frames": True}, "needs class_token=True"),
    (
        {"pool_q_stride": ((1, 0, 2, 2),)},
        r"pool_q_stride has the entry \(1, 0, 2, 2\)",
    ),
    ({"pool_q_stride": ((1, 2, 2),)}, r"pool_q_stride has the entry \(1, 2, 2\); each must be \(block, t"),
    ({"pool_q_stride": 2}, "pool_q_stride=2 must be a sequence of"),
    ({"dim_mul": ((1,),)}, r"dim_mul has the entry \(1,\); each must be \(block, factor\)"),
    ({"dim_mul": (1, 2.0)}, "dim_mul has the entry 1; each"),
    ({"dim_mul": ((1, 0.0),)}, r"dim_mul has the entry \(1, 0.0\)"),
    ({"head_mul": ((1.0, 2.0),)}, r"head_mul has the entry \(1.0, 2.0\)"),
    ({"pool_kv_stride_adaptive": (1, 0, 0)}, "pool_kv_stride_adaptive=.* three whole numbers .* at least 1"),
    ({"pool_kv_stride_adaptive": 8}, "pool_kv_stride_adaptive=8 must be three whole"),
    ({"pool_kvq_kernel": 3}, "pool_kvq_kernel=3 must be three whole"),
    ({"pool_kvq_kernel": (3, 3)}, r"pool_kvq_kernel=\(3, 3\) must be three whole"),
    ({"pool_kvq_kernel": (2, 2, 2)}, "pool_kvq_kernel makes .* use odd kernels"),
    ({"pool_kvq_kernel": (4, 4, 4)}, "pool_kvq_kernel makes .* use odd kernels"),
    ({"patch_kernel": (7, 7)}, r"patch_kernel=\(7, 7\) must be three whole"),
    ({"patch_stride": 4}, "patch_stride=4 must be three whole"),
    ({"patch_padding": (0, -1, 0)}, "patch_padding=.* of at least 0"),
    ({"image_size": (32,)}, r"image_size=\(32,\) must be .* or \(height, width\)"),
    ({"image_size": 32.0}, "image_size=32.0 must be a whole number of pixels"),
    ({"embed_dim": 0}, "embed_dim=0 must be a whole number of at least 1"),
    ({"num_heads": 0}, "num_heads=0 must be"),
    ({"depth": 0}, "depth=0 must be"),
    ({"num_classes": 0}, "num_classes=0 must be"),
    ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and below 1"),
    ({"drop_path_rate": 1.5}, "drop_path_rate=1.5 must be"),
    ({"dropout_rate": -0.1}, "dropout_rate=-0.1 must be"),
    ({"head_dropout_rate": 1}, "head_dropout_rate=1 must be"),
    ({"block_widths": (4, 8, 8, 16)}, r"give dim_mul=\(\) with it"),
    ({"block_widths": (4, 8), "dim_mul": ()}, r"block_widths=\(4, 8\) must be 4 whole numbers"),
    (
        {"block_widths": (4, 9, 8, 16), "dim_mul": ()},
        "block 2 .* attention width 9.* block_widths",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), IMPOSSIBLE)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mvit(**arguments)


def test_wrong_inputs() -> None:
    model = mvit()
    with pytest.raises(ValueError, match=r"got shape \(2, 4, 4, 32, 32\)"):
        model(torch.zeros(2, 4, 4, 32, 32))
    with pytest.raises(ValueError, match=r"got shape \(3, 32, 32\)"):
        model(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"got torch\.uint8; scale and normalise it first"):
        model(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("size", "message"),
    [((1, 32, 32), "T .*got 1,"), ((4, 15, 32), "H .*got 15,"), ((4, 32, 14), "W .*got 14,")],
)
def test_too_small_an_input_names_the_axis(size: tuple[int, int, int], message: str) -> None:
    patches = {"patch_kernel": (2, 16, 16), "patch_stride": (2, 16, 16), "patch_padding": (0, 0, 0)}
    with pytest.raises(ValueError, match=f"too small along {message}.*needs at least"):
        mvit(**patches)(clip(*size))


@pytest.mark.parametrize("size", [(8, 32, 32), (2, 48, 64), (5, 33, 47), (1, 16, 16)])
@pytest.mark.parametrize(
    "arguments",
    [{"position_embedding": p} for p in ("none", "joint", "separable")]
    + [{"position_embedding": "sincos", "embed_dim": 16}, V2, {**V2, "class_token": False}],
    ids=lambda a: a["position_embedding"] + ("_v2" if "residual_pooling" in a else ""),
)
def test_other_input_sizes(arguments: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = mvit(**arguments).eval()
    with torch.no_grad():
        features = model.forward_features(clip(*size))
    assert torch.isfinite(features).all()
    grid = [(size[0] - 1) // 2 + 1, (size[1] - 1) // 4 + 1, (size[2] - 1) // 4 + 1]
    assert list(features.shape[1:4]) == [grid[0], (grid[1] - 1) // 4 + 1, (grid[2] - 1) // 4 + 1]


@pytest.mark.parametrize("num_frames", [4, 5])
@pytest.mark.parametrize("image_size", [35, (32, 34)])
def test_patches_that_leave_a_rest_drop_it(num_frames: int, image_size: Any) -> None:
    """As torchvision, PyTorchVideo and PySlowFast do, where the convolution without padding drops it too."""
    patches = {"patch_kernel": (2, 4, 4), "patch_stride": (2, 4, 4), "patch_padding": (0, 0, 0)}
    model = mvit(num_frames=num_frames, image_size=image_size, **patches).eval()
    assert model.grid == (2, 8, 8)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    x = clip(num_frames, *size)
    torch.testing.assert_close(model(x), model(x[:, :, :4, :32, :32]))


def test_a_pool_kernel_that_fits_only_some_input_sizes() -> None:
    model = mvit(image_size=44, pool_kvq_kernel=(1, 3, 3), pool_q_stride=((1, 1, 3, 3),))
    assert model(clip(4, 44, 44)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"\(2, 12, 12\) tokens .* \(2, 4, 4\), and .* \(2, 5, 5\)"):
        model(clip(4, 48, 48))


@pytest.mark.parametrize("grid", [(4, 8, 8), (2, 12, 6), (5, 7, 9)])
def test_separable_embedding_of_another_size_is_pyslowfasts(grid: tuple[int, int, int]) -> None:
    """Its model sums the two and resizes the sum: bilinear in space (not bicubic), linear in time."""
    model = mvit().double()
    with torch.no_grad():
        space, time = model.pos_embed_spatial.normal_(), model.pos_embed_temporal.normal_()
        plane = space.transpose(1, 2).unflatten(2, (8, 8))
        plane = F.interpolate(plane, size=grid[1:], mode="bilinear").flatten(2).transpose(1, 2)
        line = F.interpolate(time.transpose(1, 2), size=grid[0], mode="linear").transpose(1, 2)
        expected = (line[:, :, None] + plane[:, None]).flatten(1, 2)
        position = model._position(grid)
    torch.testing.assert_close(position[:, 1:], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(position[:, :1], model.pos_embed_class)


def test_position_embedding_is_interpolated_smoothly() -> None:
    """A separable embedding that is linear in time stays so on twice the frames."""
    model = mvit(num_frames=8)
    with torch.no_grad():
        model.pos_embed_spatial.zero_()
        model.pos_embed_temporal[:] = torch.arange(4.0)[None, :, None]
        position = model._position((8, 8, 8))[0, 1:].unflatten(0, (8, 64))
    expected = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0])
    torch.testing.assert_close(position[:, 0, 0], expected)


@pytest.mark.parametrize("pool_mode", ["conv", "avg", "max"])
@pytest.mark.parametrize("pool_first", [False, True])
def test_pool_modes(pool_mode: str, pool_first: bool) -> None:
    """Also on 2x2 and 1x1 maps in the last blocks, smaller than the kernels."""
    model = mvit(pool_mode=pool_mode, pool_first=pool_first, image_size=16)
    logits = model(clip(4, 16, 16))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert model.blocks[0].attn.fused_qkv == (not pool_first)
    assert hasattr(model.blocks[0].attn.pool_k, "weight") == (pool_mode == "conv")


def test_unpooled_blocks_have_no_pools() -> None:
    model = mvit(pool_q_stride=(), pool_kv_stride_adaptive=None, dim_mul=(), head_mul=())
    assert not any("pool" in name or "attn.norm" in name for name, _ in model.named_parameters())
    assert model.eval().forward_features(clip()).shape == (2, 2, 8, 8, 4)


def test_adaptive_strides() -> None:
    """Keys keep the size 7 x 7 in all stages; in a stage's first block the input is still the larger map."""
    model = create_model("mvit_b_16x4", embed_dim=4, num_frames=2)
    assert [b.attn.key_grid[1] for b in model.blocks] == [7, 14, 7, 14, *[7] * 10, 14, 7]
    assert model.blocks[1].attn.pool_k.stride == (1, 4, 4)
    assert model.blocks[15].attn.pool_k.stride == (1, 1, 1)


def test_tables_of_mvit_v2_l_are_interpolated() -> None:
    """The published model has 37 rows where its 20 x 20 map needs 39 (PySlowFast rounds sizes down)."""
    with torch.device("meta"):
        model = create_model("mvit_v2_l_40x3")
    for block in model.blocks[8:45]:
        assert block.attn.rel_pos_h.shape[0] == 37
    assert model.blocks[8].attn.query_grid == model.blocks[43].attn.query_grid == (20, 20, 20)
    assert model.blocks[47].attn.rel_pos_h.shape[0] == 17
    assert model.blocks[47].attn.query_grid == (20, 10, 10)


def test_pooled_output_depends_on_the_head_rule() -> None:
    x = clip()
    outputs = []
    for arguments in ({}, {"mean_pooling": True}, {"class_token": False}):
        outputs.append(mvit(**arguments).eval()(x))
    assert not torch.allclose(outputs[0], outputs[1])
    model = mvit(class_token=False).eval()
    features = model.forward_features(x)
    torch.testing.assert_close(model(x), model.head(features.mean(dim=(1, 2, 3))))


def test_widths_follow_the_heads() -> None:
    """PySlowFast would round 24 * 1.5 to 35 for 3 heads, and fail; torchvision's block settings have 36."""
    growth = {"dim_mul": ((1, 1.5),), "head_mul": ((1, 1.5),)}
    model = mvit(embed_dim=24, num_heads=2, dim_mul_in_attention=True, **growth)
    assert [block.attn.proj.in_features for block in model.blocks] == [24, 36, 36, 36]
    assert [block.attn.num_heads for block in model.blocks] == [2, 3, 3, 3]
    # Its rule where it works: a multiple of head_mul * heads, rather than of the heads.
    model = mvit(
        embed_dim=12, num_heads=2, dim_mul_in_attention=True, dim_mul=((1, 1.5),), head_mul=((1, 2.0),)
    )
    assert model.blocks[1].attn.proj.in_features == 24  # 20 would do for 4 heads


def test_growth_after_the_last_block() -> None:
    """In the attention there is none: PySlowFast ignores such an entry. In the MLP it is the last block's."""
    growth = {"dim_mul": ((1, 2.0), (4, 2.0)), "head_mul": ((1, 2.0),)}
    assert mvit(dim_mul_in_attention=True, **growth).norm.normalized_shape == (8,)
    assert mvit(**growth).norm.normalized_shape == (16,)


@pytest.mark.parametrize("in_attention", [False, True])
def test_block_widths(in_attention: bool) -> None:
    """Widths that PySlowFast's rounding cannot give: 4 heads after 2, but 20 is no multiple of 8."""
    widths = (8, 20, 20, 12)
    model = mvit(
        embed_dim=8,
        num_heads=2,
        dim_mul=(),
        head_mul=((1 if in_attention else 2, 2.0),),
        block_widths=widths,
        dim_mul_in_attention=in_attention,
    )
    assert [block.mlp.fc2.out_features for block in model.blocks] == list(widths)
    attention = [8, 20, 20, 12] if in_attention else [8, 8, 20, 20]
    assert [block.attn.proj.in_features for block in model.blocks] == attention
    model(clip()).sum().backward()


def test_layer_scale_exists_only_when_asked_for() -> None:
    plain, scaled = mvit().eval(), mvit(layer_scale_init_value=1.0).eval()
    gammas = set(scaled.state_dict()) - set(plain.state_dict())
    assert gammas == {f"blocks.{i}.gamma_{j}" for i in range(4) for j in (1, 2)}
    scaled.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(scaled(clip()), plain(clip()))
    with torch.no_grad():
        scaled.blocks[2].gamma_1.mul_(0.5)
    assert not torch.allclose(scaled(clip()), plain(clip()))


@pytest.mark.parametrize("rate", ["drop_path_rate", "dropout_rate", "head_dropout_rate"])
def test_random_rates_act_in_training_only(rate: str) -> None:
    model = mvit(**{rate: 0.5})
    x = clip()
    assert not torch.allclose(model.train()(x), model(x))
    torch.testing.assert_close(model.eval()(x), model(x), rtol=0, atol=0)
    torch.testing.assert_close(model(x), mvit().eval()(x), rtol=0, atol=0)


def test_drop_path_grows_linearly() -> None:
    rates = [block.drop_path.drop_rate for block in mvit(drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_initialisation_is_pyslowfasts() -> None:
    model = mvit(embed_dim=32, head_init_scale=0.5, **{k: v for k, v in V2.items() if k.startswith("rel")})
    assert model.blocks[0].norm1.bias.unique().tolist() == pytest.approx([0.02])
    assert model.blocks[0].norm1.weight.unique().tolist() == [1.0]
    assert model.blocks[0].mlp.fc1.bias.unique().tolist() == pytest.approx([0.02])
    assert model.head.projection.bias.unique().tolist() == pytest.approx([0.01])
    for weight in (model.blocks[3].attn.qkv.weight, model.patch_embed.proj.weight, model.pos_embed_spatial):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.head.projection.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert model.blocks[0].attn.rel_pos_h.std().item() == pytest.approx(0.02, rel=0.3)
    zero = mvit(rel_pos_spatial=True, rel_pos_zero_init=True)
    assert zero.blocks[0].attn.rel_pos_h.abs().max() == 0


def test_sincos_is_fixed_and_has_its_known_values() -> None:
    model = mvit(position_embedding="sincos", embed_dim=32)
    table = model.pos_embed[0]
    assert not model.pos_embed.requires_grad
    assert table[0].abs().max() == 0  # class token
    patches = table[1:].unflatten(0, model.grid)
    t, h, w = 1, 3, 5
    assert patches[t, h, w, 0].item() == pytest.approx(torch.tensor(t).sin().item())  # 8 channels of time
    assert patches[t, h, w, 8].item() == pytest.approx(torch.tensor(w).sin().item())  # 12 of width
    assert patches[t, h, w, 20].item() == pytest.approx(torch.tensor(h).sin().item())  # 12 of height
    assert patches[t, h, w, 26].item() == pytest.approx(torch.tensor(h).cos().item())


def test_a_forward_for_inference_does_not_spoil_training() -> None:
    """The indices of relative positions are kept from one forward to the next."""
    sizes = (4, 40, 24)  # of no other test
    model = mvit(**V2)
    with torch.inference_mode():
        model(clip(*sizes))
    model(clip(*sizes)).sum().backward()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        V2,
        {**V2, "residual_pooling_class_token": True, "class_token_log_frames": True},
        {"pool_mode": "conv_unshared", "pool_first": True, "class_token_log_frames": True},
        {"pool_mode": "max", "separate_qkv": True, "layer_scale_init_value": 0.1},
        {**V2, "depth": 1, "dim_mul": (), "head_mul": (), "pool_q_stride": ((0, 1, 2, 2),)},
        {**V2, "dim_mul": ((4, 2.0),), "head_mul": ((4, 2.0),), "dim_mul_in_attention": False},
    ],
)
def test_the_fast_path_gives_what_the_definition_gives(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without gradients; without, in parts of few tokens, and the last block's class token alone."""
    model = mvit(**arguments).eval().double()
    for parameter in model.parameters():  # norms and tables that do something
        torch.nn.init.normal_(parameter, std=0.3)
    x, names = clip().double(), [name for name, _ in model.named_parameters()]
    with by_definition():
        expected = model(x)
    gradients = torch.autograd.grad(expected.square().sum(), [*model.parameters()])
    monkeypatch.setattr(mlp, "ROWS_AT_A_TIME", 5)
    computed = rows_computed(model, monkeypatch)
    out = model(x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert computed[-1] == 2  # class tokens of two clips
    # Gradients of all parameters, be they zeros.
    ours = torch.autograd.grad(out.square().sum(), [*model.parameters()])
    for name, gradient, reference in zip(names, ours, gradients, strict=True):
        scale = max(1.0, reference.abs().max().item())
        torch.testing.assert_close(gradient / scale, reference / scale, rtol=0, atol=1e-11, msg=name)
    computed.clear()
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    assert computed[-1] == 2
    assert len(computed) == 1 or max(computed[:-1]) == 5


def rows_computed(model: MViT, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the MLPs of the blocks will be given at a time, without a hook that would be seen."""
    rows: list[int] = []

    def record(block: MultiscaleBlock, x: torch.Tensor, **out: torch.Tensor) -> torch.Tensor:
        rows.append(x.shape[:-1].numel())
        return of_rows(block, x, **out)

    of_rows = MultiscaleBlock._of_rows
    monkeypatch.setattr(MultiscaleBlock, "_of_rows", record)
    return rows


@pytest.mark.parametrize("watched", ["norm", "blocks.3", "blocks.3.attn.proj", "blocks.3.norm2", "every"])
def test_who_watches_the_last_block_sees_all_tokens(watched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = mvit(**V2).eval(), []
    monkeypatch.setattr(mlp, "ROWS_AT_A_TIME", 5)
    with torch.no_grad():
        expected = model(clip())
        if watched == "every":
            hook = torch.nn.modules.module.register_module_forward_hook(
                lambda module, _, output: seen.append(output) if module is model.norm else None
            )
        else:
            hook = model.get_submodule(watched).register_forward_hook(
                lambda _, inputs, output: seen.append(output[0] if watched == "blocks.3" else output)
            )
        computed = rows_computed(model, monkeypatch)
        torch.testing.assert_close(model(clip()), expected)
        hook.remove()
    num_tokens = 1 + 2 * 2 * 2
    assert [output.shape[:2] for output in seen] == [(2, num_tokens)]
    assert 2 not in computed[-2:]


@pytest.mark.parametrize("watched", ["proj", "norm2", "drop_path", "mlp.fc1", "mlp.drop"])
def test_who_watches_a_part_of_a_block_sees_all_tokens_once(
    watched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "ROWS_AT_A_TIME", 5)
    model, seen = mvit().eval(), []
    assert model.blocks[0].proj is not None
    model.blocks[0].get_submodule(watched).register_forward_hook(
        lambda _, inputs, output: seen.append(output.shape[:2])
    )
    with torch.no_grad():
        model(clip())
    assert seen == [(2, 1 + 2 * 8 * 8)] * (2 if "drop" in watched else 1)


def test_a_wrapped_or_replaced_last_block_is_called() -> None:
    model = mvit(**V2).eval()
    block, calls = model.blocks[-1], []
    expected = model(clip())

    class Wrapper(torch.nn.Module):
        def forward(self, *inputs: Any) -> Any:
            calls.append(len(inputs))
            return block(*inputs)

    model.blocks[-1] = Wrapper()
    torch.testing.assert_close(model(clip()), expected)
    model.blocks[-1] = block
    block.forward = lambda x, grid: (calls.append(2), MultiscaleBlock.forward(block, x, grid))[1]
    torch.testing.assert_close(model(clip()), expected)
    assert calls == [2, 2]


def test_who_watches_a_projection_sees_all_of_it_once() -> None:
    model, seen = mvit(**V2).eval(), []
    expected = model(clip()).detach()
    for block in model.blocks:
        block.attn.qkv.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[-1]))
    torch.testing.assert_close(model(clip()), expected)
    assert len(seen) == len(model.blocks)


def test_a_forward_of_fake_tensors_leaves_nothing_behind() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    sizes = (4, 24, 56)  # of no other test
    model = mvit(**V2).eval()
    for _ in range(2):  # before and after the indices of these sizes are known
        mode = FakeTensorMode()
        fake = {name: mode.from_tensor(tensor) for name, tensor in model.named_parameters()}
        with mode:
            assert torch.func.functional_call(model, fake, torch.zeros(2, 3, *sizes)).shape == (2, 5)
        assert torch.isfinite(model(clip(*sizes))).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_average_pooling_in_half_precision(dtype: torch.dtype) -> None:
    model = mvit(pool_mode="avg").eval()
    with torch.no_grad():
        exact = model(clip())
        logits = model.to(dtype)(clip().to(dtype))
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), exact, atol=0.02, rtol=0.1)


def test_layer_ids_give_the_reference_learning_rates() -> None:
    case = next(
        c
        for c in load_json("slowfast_data/param_groups.json")["cases"]
        if c["golden_case"] == "mvit_v1_conv_cls_sep" and c["layer_decay"] < 1
    )
    model = mvit(depth=5)
    scales = {
        name: case["layer_decay"] ** (model.num_layers + 1 - model.layer_id(name))
        for name, _ in model.named_parameters()
    }
    assert scales == pytest.approx({name: scale for name, (_, scale) in case["params"].items()})


def test_compiles_to_one_graph() -> None:
    model = mvit(**V2).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip()), model(clip()))
