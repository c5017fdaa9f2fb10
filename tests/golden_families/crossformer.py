"""CrossFormer's reference cases: the official repository's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import CrossFormer

# Official options that change no result, and those whose other values no published model has.
_WITHOUT_EFFECT = {
    "drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "use_checkpoint",
    "norm_layer",
    "init_scale",
}
_FIXED = {"ape": False, "patch_norm": True, "use_cpe": False, "qk_scale": None, "group_type": "constant"}


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[CrossFormer], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames`, those of the video model of an image case."""
    image = official_arguments(case["kwargs"])
    return CrossFormer, image if num_frames is None else inflated_arguments(image, num_frames)


def official_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The official CrossFormer's arguments -> ours of the image model. ValueError for unknown ones."""
    given = {name: value for name, value in kwargs.items() if name not in _WITHOUT_EFFECT}
    for name, value in _FIXED.items():
        if given.pop(name, value) != value:
            raise ValueError(f"CrossFormer cases with {name}={kwargs[name]!r} are not supported")
    depths = given.pop("depths", (2, 2, 6, 2))
    patch_kernels = given.pop("patch_size", (4,))
    merge_kernels = given.pop("merge_size", [[2]] * (len(depths) - 1))
    adaptive = given.pop("adaptive_interval", False)
    intervals = [0] * len(depths) if adaptive else given.pop("crs_interval", (8, 4, 2, 1))
    groups = given.pop("group_size", 7)
    ours = {
        "num_frames": 1,
        "image_size": given.pop("img_size", 224),
        "in_channels": given.pop("in_chans", 3),
        "num_classes": given.pop("num_classes", 1000),
        "patch_kernels": [(1, k, k) for k in patch_kernels],
        "patch_stride": (1, patch_kernels[0], patch_kernels[0]),
        "merge_kernels": [[(1, k, k) for k in kernels] for kernels in merge_kernels],
        "embed_dim": given.pop("embed_dim", 96),
        "depths": depths,
        "num_heads": given.pop("num_heads", (3, 6, 12, 24)),
        "group_size": [(1, g, g) for g in ([groups] * len(depths) if isinstance(groups, int) else groups)],
        "interval": [(1, i, i) for i in intervals],
        "mlp_ratio": given.pop("mlp_ratio", 4.0),
        "qkv_bias": given.pop("qkv_bias", True),
        "pad_side": "both" if given.pop("pad_type", 0) else "end",
        "pad_mask": "time" if given.pop("no_mask", False) else "all",
        "cooling_kernel": (1, 3, 3) if given.pop("use_acl", False) else None,
        "norm_eps": given.pop("norm_eps", 1e-5),
    }
    given.pop("crs_interval", None)
    if given:
        raise ValueError(f"CrossFormer cases with {', '.join(sorted(given))} are not supported")
    return ours


def inflated_arguments(image: Mapping[str, Any], num_frames: int) -> dict[str, Any]:
    """Arguments of the video model: tubelets of 2 frames if their number is even, overlapping in time where
    the kernels are large; groups of 2 time steps, the long-distance ones at every second step."""
    tubelet = 2 if num_frames % 2 == 0 else 1
    taps = [tubelet * (1 if i < 2 else 2) for i in range(len(image["patch_kernels"]))]
    return {
        **image,
        "num_frames": num_frames,
        "patch_kernels": [(t, *k[1:]) for t, k in zip(taps, image["patch_kernels"], strict=True)],
        "patch_stride": (tubelet, *image["patch_stride"][1:]),
        "group_size": [(2, *g[1:]) for g in image["group_size"]],
        "interval": [(2, *i[1:]) for i in image["interval"]],
        "cooling_kernel": image["cooling_kernel"] and (3, 3, 3),
    }
