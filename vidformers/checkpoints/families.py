"""The families that `load_weights` knows, by the name of their model class."""

from vidformers.checkpoints import pytorchvideo, slowfast, torchvision, vision_transformer
from vidformers.checkpoints.adapt import adapt
from vidformers.checkpoints.family import Family

FAMILIES: dict[str, Family] = {
    "MViT": Family((torchvision.SOURCE, pytorchvideo.SOURCE, slowfast.SOURCE), adapt),
    "VisionTransformer": Family(vision_transformer.SOURCES, vision_transformer.adapt),
}
