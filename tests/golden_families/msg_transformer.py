"""MSG-Transformer's reference cases: the official repository's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import MSGTransformer

# Official options that change no result, and those whose other values no published model has.
_WITHOUT_EFFECT = {"drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint", "norm_layer"}
_FIXED = {"ape": False, "patch_norm": True, "qk_scale": None}


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[MSGTransformer], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames`, those of the video model of an image case."""
    image = official_arguments(case["kwargs"])
    return MSGTransformer, image if num_frames is None else inflated_arguments(image, num_frames)


def official_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The official MSGTransformer's arguments -> ours of the image model. ValueError for unknown ones."""
    given = {name: value for name, value in kwargs.items() if name not in _WITHOUT_EFFECT}
    for name, value in _FIXED.items():
        if given.pop(name, value) != value:
            raise ValueError(f"MSG-Transformer cases with {name}={kwargs[name]!r} are not supported")
    depths = given.pop("depths", (2, 2, 6, 2))
    patch = given.pop("patch_size", 4)
    window = given.pop("window_size", 7)
    manipulation = given.pop("manip_type", "shuf")
    if manipulation not in ("shuf", "none"):
        raise ValueError(f"MSG-Transformer cases with manip_type={manipulation!r} are not supported")
    ours = {
        "num_frames": 1,
        "image_size": given.pop("img_size", 224),
        "in_channels": given.pop("in_chans", 3),
        "num_classes": given.pop("num_classes", 1000),
        "patch_kernel": (1, 7, 7),
        "patch_stride": (1, patch, patch),
        "merge_kernel": (1, 3, 3),
        "embed_dim": given.pop("embed_dim", 96),
        "depths": depths,
        "num_heads": given.pop("num_heads", (3, 6, 12, 24)),
        "window_size": (1, window, window),
        "region_size": [(1, s, s) for s in given.pop("shuffle_size", (4, 4, 2, 1))],
        "shuffle_messengers": manipulation == "shuf",
        "mlp_ratio": given.pop("mlp_ratio", 4.0),
        "qkv_bias": given.pop("qkv_bias", True),
        "norm_eps": given.pop("norm_eps", 1e-5),
    }
    if given:
        raise ValueError(f"MSG-Transformer cases with {', '.join(sorted(given))} are not supported")
    return ours


def inflated_arguments(image: Mapping[str, Any], num_frames: int) -> dict[str, Any]:
    """Arguments of the video model: tubelets of 2 frames if their number is even, windows of 2 time steps,
    regions that span 2 windows in time as far as the channels allow, and merges over 3 time steps."""
    tubelet = 2 if num_frames % 2 == 0 else 1
    regions = []
    for i, (_, height, width) in enumerate(image["region_size"]):
        steps = 2 if image["embed_dim"] * 2**i % (2 * height * width) == 0 else 1
        regions.append((steps, height, width))
    return {
        **image,
        "num_frames": num_frames,
        "patch_kernel": (tubelet, *image["patch_kernel"][1:]),
        "patch_stride": (tubelet, *image["patch_stride"][1:]),
        "merge_kernel": (3, 3, 3),
        "window_size": (2, *image["window_size"][1:]),
        "region_size": regions,
    }
