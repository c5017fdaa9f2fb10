"""The configuration that a registered model is published with."""

from fvcore.common.config import CfgNode

from vidformers.config import load_config
from vidformers.config.named import CONFIGS


def published_config(name: str) -> tuple[str, CfgNode] | None:
    """File name and content of the YAML file of configs/ for a registered model; None if there is none.

    It is named like the model, perhaps with the clip after it: swin3d_t_32x2.yaml is that of swin3d_t.
    """
    files = [CONFIGS / f"{name}.yaml", *sorted(CONFIGS.glob(f"{name}_*x*.yaml"))]
    for path in files:
        if path.is_file():
            cfg = load_config(path)
            if name == cfg.MODEL.NAME:
                return path.name, cfg
    return None
