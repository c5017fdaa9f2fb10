"""MViT's reference cases: PySlowFast's, torchvision's and PyTorchVideo's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

import torch
import yaml

from vidformers.config.pyslowfast import mvit_arguments, rev_mvit_arguments
from vidformers.models import MViT, RevMViT


def arguments(
    case: Mapping[str, Any], num_frames: int | None
) -> tuple[type[MViT] | type[RevMViT], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames`, those of the video model of an image case."""
    source = case["source"].partition(":")[0]
    model_class: type[MViT] | type[RevMViT] = MViT
    if source == "slowfast":
        tree = yaml.safe_load(case["yaml"])
        if tree["MVIT"].get("REV", {}).get("ENABLE"):
            model_class, found = RevMViT, rev_mvit_arguments(tree)
        else:
            found = mvit_arguments(tree)
    elif source == "torchvision":
        found = torchvision_arguments(case["kwargs"])
    elif source == "pytorchvideo":
        found = pytorchvideo_arguments(case["kwargs"], case["state_dict"])
    else:
        raise ValueError(f"cases of {source!r} are not supported yet")
    if num_frames is not None:
        if case["input"].ndim == 4:
            found = inflated_arguments(found, num_frames)
        else:
            found["num_frames"] = num_frames
    return model_class, found


def inflated_arguments(image: Mapping[str, Any], num_frames: int) -> dict[str, Any]:
    """Arguments of the video model that an image MViT becomes: tubelets of 2 frames if the number is even."""
    has_relative_position = image.get("rel_pos_spatial", False) or image.get("rel_pos_temporal", False)
    tubelet = 2 if num_frames % 2 == 0 else 1
    _, *kernel = image["patch_kernel"]
    _, *stride = image["patch_stride"]
    _, *padding = image["patch_padding"]
    overlapping = kernel[0] > stride[0]
    video = {
        **image,
        "num_frames": num_frames,
        "patch_kernel": (3 if overlapping else tubelet, *kernel),
        "patch_stride": (tubelet, *stride),
        "patch_padding": (1 if overlapping else 0, *padding),
        "rel_pos_temporal": has_relative_position,
    }
    if "buffer_layers" not in image:  # reversible models have no class token
        video["class_token_log_frames"] = image.get("class_token", True)
    pool_kernel = image["pool_kvq_kernel"]
    # Only convolutions can be inflated: a temporal average would meet the padding at the clip's ends.
    # (A kernel of ones is no layer where nothing is strided over.)
    has_kernel = pool_kernel is not None and max(pool_kernel) > 1
    if has_kernel and image.get("pool_mode", "conv").startswith("conv"):
        video["pool_kvq_kernel"] = (max(3, pool_kernel[0]), *pool_kernel[1:])
    return video


def torchvision_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """torchvision.models.video.MViT's arguments -> ours. ValueError if `block_setting` has no such form."""
    blocks = kwargs["block_setting"]
    head_mul = []
    for i, block in enumerate(blocks):
        if i > 0 and block["num_heads"] != blocks[i - 1]["num_heads"]:
            head_mul.append((i, block["num_heads"] / blocks[i - 1]["num_heads"]))
    pools = {"q": [], "kv": []}
    kernels = []
    for i, block in enumerate(blocks):
        for letter, strides in pools.items():
            if block[f"stride_{letter}"]:
                strides.append((i, *block[f"stride_{letter}"]))
                kernels.append((tuple(block[f"kernel_{letter}"]), tuple(block[f"stride_{letter}"])))
    if len({kernel for kernel, _ in kernels}) <= 1:
        pool_kernel = kernels[0][0] if kernels else None
    elif all(kernel == tuple(s + 1 if s > 1 else 1 for s in stride) for kernel, stride in kernels):
        pool_kernel = None
    else:
        raise ValueError("pooling kernels that differ other than by stride + 1 are not supported")
    return {
        "num_frames": kwargs["temporal_size"],
        "image_size": tuple(kwargs["spatial_size"]),
        "num_classes": kwargs.get("num_classes", 400),
        "patch_kernel": kwargs.get("patch_embed_kernel", (3, 7, 7)),
        "patch_stride": kwargs.get("patch_embed_stride", (2, 4, 4)),
        "patch_padding": kwargs.get("patch_embed_padding", (1, 3, 3)),
        "embed_dim": blocks[0]["input_channels"],
        "depth": len(blocks),
        "num_heads": blocks[0]["num_heads"],
        "dim_mul": (),
        "head_mul": head_mul,
        "block_widths": [block["output_channels"] for block in blocks],
        "dim_mul_in_attention": kwargs.get("proj_after_attn", False),
        "pool_kvq_kernel": pool_kernel,
        "pool_q_stride": pools["q"],
        "pool_kv_stride": pools["kv"],
        "residual_pooling": kwargs.get("residual_pool", False),
        "residual_pooling_class_token": (
            kwargs.get("residual_pool", False) and kwargs.get("residual_with_cls_embed", False)
        ),
        "position_embedding": "none" if kwargs.get("rel_pos_embed") else "separable",
        "rel_pos_spatial": kwargs.get("rel_pos_embed", False),
        "rel_pos_temporal": kwargs.get("rel_pos_embed", False),
        "norm_eps": kwargs.get("norm_eps", 1e-6),
    }


def pytorchvideo_arguments(
    kwargs: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """create_multiscale_vision_transformers' arguments -> ours.

    The widths are read off the weights: PyTorchVideo rounds them by another rule than PySlowFast.
    """
    for name, supported in (("depthwise_conv", True), ("bias_on", True), ("enable_patch_embed", True)):
        if kwargs.get(name, supported) != supported:
            raise ValueError(f"{name}={kwargs[name]} is not supported")
    depth = kwargs.get("depth", 16)
    embed_dim, *widths = (state_dict[f"blocks.{i}.norm1.weight"].shape[0] for i in range(depth))
    widths.append(state_dict["norm_embed.weight"].shape[0])
    spatial_size = kwargs["spatial_size"]
    use_2d = kwargs.get("use_2d_patch", False)
    first = {"kernel": (1,), "stride": (1,), "padding": (0,)} if use_2d else {}
    class_token = kwargs.get("cls_embed_on", True)
    residual_pooling = kwargs.get("residual_pool", False)
    kernel = kwargs.get("pool_kvq_kernel")
    return {
        "num_frames": kwargs["temporal_size"],
        "image_size": spatial_size if isinstance(spatial_size, int) else tuple(spatial_size),
        "in_channels": kwargs.get("input_channels", 3),
        "num_classes": kwargs.get("head_num_classes", 400),
        "patch_kernel": (*first.get("kernel", ()), *kwargs.get("conv_patch_embed_kernel", (3, 7, 7))),
        "patch_stride": (*first.get("stride", ()), *kwargs.get("conv_patch_embed_stride", (2, 4, 4))),
        "patch_padding": (*first.get("padding", ()), *kwargs.get("conv_patch_embed_padding", (1, 3, 3))),
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": kwargs.get("num_heads", 1),
        "mlp_ratio": kwargs.get("mlp_ratio", 4.0),
        "qkv_bias": kwargs.get("qkv_bias", True),
        "dim_mul": (),
        "head_mul": kwargs.get("atten_head_mul") or (),
        "block_widths": widths,
        "dim_mul_in_attention": kwargs.get("dim_mul_in_att", False),
        "pool_mode": kwargs.get("pooling_mode", "conv"),
        "pool_first": kwargs.get("pool_first", False),
        "separate_qkv": "blocks.0.attn.q.weight" in state_dict,
        "pool_kvq_kernel": tuple(kernel) if kernel is not None else None,
        "pool_q_stride": kwargs.get("pool_q_stride_size") or (),
        "pool_kv_stride": kwargs.get("pool_kv_stride_size") or (),
        "pool_kv_stride_adaptive": kwargs.get("pool_kv_stride_adaptive"),
        "residual_pooling": residual_pooling,
        "residual_pooling_class_token": residual_pooling and class_token,
        "class_token": class_token,
        "position_embedding": "separable" if kwargs.get("sep_pos_embed", True) else "joint",
        "norm_stem": kwargs.get("enable_patch_embed_norm", False),
    }
