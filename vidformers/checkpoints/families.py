"""The families that `load_weights` knows, by the name of their model class."""

from vidformers.checkpoints import (
    cpvt,
    crossformer,
    hiera,
    maxvit,
    msg_transformer,
    pvt,
    pvt_v2,
    pytorchvideo,
    shuffle_transformer,
    slowfast,
    swin,
    timm_mvit,
    torchvision,
    twins,
    uniformer,
    vision_transformer,
)
from vidformers.checkpoints.adapt import adapt
from vidformers.checkpoints.family import Family
from vidformers.checkpoints.inflate import inflate

FAMILIES: dict[str, Family] = {
    "CPVT": Family((cpvt.SOURCE,), inflate),
    "Hiera": Family((hiera.TIMM, hiera.SOURCE), adapt),
    "GGTransformer": Family((), inflate),  # no weights were ever published
    "MViT": Family(
        (
            torchvision.SOURCE,
            pytorchvideo.SOURCE,
            timm_mvit.SOURCE,
            slowfast.PRETRAINING,
            slowfast.SOURCE,
        ),
        adapt,
    ),
    "MaxViT": Family((maxvit.SOURCE,), inflate),
    "PVT": Family((pvt.SOURCE,), pvt.adapt),
    "PVTv2": Family(pvt_v2.SOURCES, inflate),
    "RevMViT": Family((slowfast.REVERSIBLE,), adapt),
    "ShuffleTransformer": Family((shuffle_transformer.SOURCE,), inflate),
    "Swin": Family((swin.OFFICIAL, swin.TIMM, swin.TORCHVISION), swin.adapt),
    "TwinsPCPVT": Family((twins.PCPVT_SOURCE,), inflate),
    "TwinsSVT": Family((twins.SVT_SOURCE,), inflate),
    "UniFormer": Family((uniformer.SOURCE,), uniformer.adapt),
    "VisionTransformer": Family(vision_transformer.SOURCES, vision_transformer.adapt),
    "CrossFormer": Family((crossformer.SOURCE,), inflate),
    "MSGTransformer": Family((msg_transformer.SOURCE,), msg_transformer.adapt),
}
