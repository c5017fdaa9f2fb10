"""The families that `load_weights` knows, by the name of their model class."""

from vidformers.checkpoints import pytorchvideo, slowfast, swin, torchvision, vision_transformer
from vidformers.checkpoints.adapt import adapt
from vidformers.checkpoints.family import Family

FAMILIES: dict[str, Family] = {
    "MViT": Family((torchvision.SOURCE, pytorchvideo.SOURCE, slowfast.SOURCE), adapt),
    "Swin": Family((swin.OFFICIAL, swin.TIMM, swin.TORCHVISION), swin.adapt),
    "VisionTransformer": Family(vision_transformer.SOURCES, vision_transformer.adapt),
}
