"""Model families, one class and one file each, and the registry of their published sizes."""

from vidformers.models.cpvt import CPVT
from vidformers.models.crossformer import CrossFormer
from vidformers.models.gg_transformer import GGTransformer
from vidformers.models.hiera import Hiera
from vidformers.models.masked_autoencoder import MaskedAutoencoder
from vidformers.models.masked_mvit import MaskedMViT
from vidformers.models.maxvit import MaxViT
from vidformers.models.msg_transformer import MSGTransformer
from vidformers.models.mvit import MViT
from vidformers.models.pvt import PVT
from vidformers.models.pvt_v2 import PVTv2
from vidformers.models.registry import create_model, list_models, model_arguments, model_class, register_model
from vidformers.models.rev_mvit import RevMViT
from vidformers.models.shuffle_transformer import ShuffleTransformer
from vidformers.models.swin import Swin
from vidformers.models.twins import TwinsPCPVT, TwinsSVT
from vidformers.models.uniformer import UniFormer
from vidformers.models.vision_transformer import VisionTransformer

__all__ = [
    "CPVT",
    "PVT",
    "CrossFormer",
    "GGTransformer",
    "Hiera",
    "MSGTransformer",
    "MViT",
    "MaskedAutoencoder",
    "MaskedMViT",
    "MaxViT",
    "PVTv2",
    "RevMViT",
    "ShuffleTransformer",
    "Swin",
    "TwinsPCPVT",
    "TwinsSVT",
    "UniFormer",
    "VisionTransformer",
    "create_model",
    "list_models",
    "model_arguments",
    "model_class",
    "register_model",
]
