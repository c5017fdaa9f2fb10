"""ViT's reference cases: timm's, TimeSformer's and VideoMAE's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import VisionTransformer

ATTENTIONS = {"divided_space_time": "divided", "joint_space_time": "joint", "space_only": "space_only"}


def arguments(
    case: Mapping[str, Any], num_frames: int | None
) -> tuple[type[VisionTransformer], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames`, those of the video model of an image case."""
    kwargs = case["kwargs"]
    found = {name: kwargs[name] for name in ("embed_dim", "depth", "num_heads", "norm_eps")}
    found |= {name: kwargs[name] for name in ("num_classes", "mlp_ratio", "qkv_bias") if name in kwargs}
    found["image_size"] = kwargs["img_size"]
    found["layer_scale_init_value"] = kwargs.get("init_values") or 0.0
    found |= {"timm": timm, "timesformer": timesformer, "videomae": videomae}[family(case)](kwargs)
    tubelet = kwargs.get("tubelet_size", 1)
    if num_frames is not None:
        found["num_frames"] = num_frames
        if case["input"].ndim == 4 and num_frames > 1:
            tubelet = 2
            found["position_embedding"] = "separable"
            found["class_token_log_frames"] = found.get("class_token", True)
    patch = kwargs["patch_size"]
    height, width = (patch, patch) if isinstance(patch, int) else patch
    found["patch_kernel"] = found["patch_stride"] = (tubelet, height, width)
    return VisionTransformer, found


def family(case: Mapping[str, Any]) -> str:
    """ "timm", "timesformer" or "videomae"."""
    project, _, model = case["source"].partition(":")
    return "timm" if project == "timm" else model.partition("_")[0]


def timm(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_frames": 1,
        "class_token": kwargs.get("class_token", True),
        "mean_pooling": kwargs.get("global_pool", "token") == "avg",
        "position_embedding": "joint",
    }


def timesformer(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    attention = ATTENTIONS[kwargs["attention_type"]]
    return {
        "num_frames": kwargs["num_frames"],
        "attention": attention,
        "position_embedding": "spatial" if attention == "space_only" else "separable",
    }


def videomae(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if not kwargs.get("use_mean_pooling", True):
        raise ValueError("use_mean_pooling=False is not supported: it classifies by the first patch alone")
    return {
        "num_frames": kwargs["all_frames"],
        "key_bias": False,
        "class_token": False,
        "position_embedding": "joint" if kwargs.get("use_learnable_pos_emb") else "sinusoid",
    }
