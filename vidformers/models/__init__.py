"""Model families, one class and one file each, and the registry of their published sizes."""

from vidformers.models.mvit import MViT
from vidformers.models.registry import create_model, list_models, model_arguments, model_class, register_model
from vidformers.models.swin import Swin
from vidformers.models.vision_transformer import VisionTransformer

__all__ = [
    "MViT",
    "Swin",
    "VisionTransformer",
    "create_model",
    "list_models",
    "model_arguments",
    "model_class",
    "register_model",
]
