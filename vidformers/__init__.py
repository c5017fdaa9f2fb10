"""Train, evaluate and understand spatiotemporal transformers for video recognition.

The public names below are imported when first used, so that importing the package costs little and a broken
optional dependency harms only what needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidformers.checkpoints import LoadInfo as LoadInfo
    from vidformers.checkpoints import load_weights as load_weights
    from vidformers.config import load_config as load_config
    from vidformers.data.readers import open_video as open_video
    from vidformers.engine.explain import explain as explain
    from vidformers.engine.model import build_model as build_model
    from vidformers.engine.predict import Prediction as Prediction
    from vidformers.engine.predict import Predictor as Predictor
    from vidformers.engine.predict import predict as predict
    from vidformers.engine.timeline import Timeline as Timeline
    from vidformers.engine.timeline import predict_timeline as predict_timeline
    from vidformers.exporting import export as export
    from vidformers.hub import from_pretrained as from_pretrained
    from vidformers.hub import push_to_hub as push_to_hub
    from vidformers.hub import save_pretrained as save_pretrained
    from vidformers.models import create_model as create_model
    from vidformers.models import list_models as list_models
    from vidformers.models import model_arguments as model_arguments
    from vidformers.models import model_class as model_class
    from vidformers.models import register_model as register_model
    from vidformers.quantization import quantize_int8 as quantize_int8

__version__ = "0.1.0"

_HOME = {
    "LoadInfo": "vidformers.checkpoints",
    "Prediction": "vidformers.engine.predict",
    "Predictor": "vidformers.engine.predict",
    "Timeline": "vidformers.engine.timeline",
    "build_model": "vidformers.engine.model",
    "create_model": "vidformers.models",
    "explain": "vidformers.engine.explain",
    "export": "vidformers.exporting",
    "from_pretrained": "vidformers.hub",
    "list_models": "vidformers.models",
    "load_config": "vidformers.config",
    "load_weights": "vidformers.checkpoints",
    "model_arguments": "vidformers.models",
    "model_class": "vidformers.models",
    "open_video": "vidformers.data.readers",
    "predict": "vidformers.engine.predict",
    "predict_timeline": "vidformers.engine.timeline",
    "push_to_hub": "vidformers.hub",
    "quantize_int8": "vidformers.quantization",
    "register_model": "vidformers.models",
    "save_pretrained": "vidformers.hub",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vidformers' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
