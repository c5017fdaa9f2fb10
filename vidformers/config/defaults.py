"""The schema: every key a run can set, with its default, its meaning, and the values it may take.

Names are PySlowFast's wherever the meaning is the same. A key's type is the type of its default; lists hold
numbers. The defaults are a plausible fine-tuning run of a video transformer, not PySlowFast's (which are for
ResNets): a PySlowFast file gets PySlowFast's own defaults, see `pyslowfast.py`.
"""

from collections.abc import Mapping

from fvcore.common.config import CfgNode

_C = CfgNode()

# ------------------------------------------------------------ MODEL
_C.MODEL = CfgNode()
# Registered model name, one of vidformers.list_models().
_C.MODEL.NAME = "mvit_b_16x4"
# Number of classes of the classifier; 0 = as many as the training videos have.
_C.MODEL.NUM_CLASSES = 400
# Constructor arguments of the model that differ from its registered size, by their lower-case names.
_C.MODEL.ARGS = CfgNode(new_allowed=True)
# "soft_cross_entropy" (for MixUp), "cross_entropy", or "bce_logit" (a sigmoid a class, for sets of labels).
_C.MODEL.LOSS_FUNC = "cross_entropy"
# Parameters that are not trained: beginnings of their names, or "backbone" for all but the classifier.
_C.MODEL.FREEZE = []
# Train through torch.compile (validation and testing run the model as it is).
_C.MODEL.COMPILE = False

# ------------------------------------------------------------ DATA
_C.DATA = CfgNode()
# Folder of the dataset's lists or annotations, and of its videos; see README, Datasets. Not for "motion".
_C.DATA.PATH_TO_DATA_DIR = ""
# Put before relative video paths of a list; with official annotations the folder of the videos, "" = found.
_C.DATA.PATH_PREFIX = ""
# Character between path and label in a list.
_C.DATA.PATH_LABEL_SEPARATOR = " "
# Which of the three official splits of "ucf101" and "hmdb51"; 1 for every other dataset.
_C.DATA.SPLIT_NUMBER = 1
# Video reader: "pyav", "decord", "torchcodec" or "frames" (a folder of extracted frames in place of a file).
_C.DATA.DECODING_BACKEND = "pyav"
# Frame rate (1/s) at which the folders of "frames" were extracted.
_C.DATA.FRAMES_FPS = 30.0
# Folder that keeps the frame index of each video, scanned once (relative to the lists); "" = none.
_C.DATA.INDEX_CACHE = ""
# Seconds after which a video that is still being read counts as unreadable ("timeout"); 0 = never.
_C.DATA.READ_TIMEOUT = 120.0
# Pixels a frame may have; a video with more counts as unreadable ("frames too large") by its header.
_C.DATA.MAX_FRAME_PIXELS = 36000000
# Frames in a clip; the model is built for this number.
_C.DATA.NUM_FRAMES = 16
# A clip spans NUM_FRAMES x SAMPLING_RATE frames of a video that runs at TARGET_FPS.
_C.DATA.SAMPLING_RATE = 4
# Frame rate (1/s) in which SAMPLING_RATE counts; videos of another rate are sampled proportionally.
_C.DATA.TARGET_FPS = 30.0
# Where clips lie: "slowfast" (PySlowFast), "uniform" (MMAction2) or "segment" (TSN: one frame a segment).
_C.DATA.TEMPORAL_SAMPLING = "slowfast"
# "slowfast" test views: the last one ends with the video (True), or view v starts at v/V of it (False).
_C.DATA.USE_OFFSET_SAMPLING = True
# Height and width (pixels) of training clips; the model is built for this size.
_C.DATA.TRAIN_CROP_SIZE = 224
# Height and width (pixels) of test clips.
_C.DATA.TEST_CROP_SIZE = 224
# Range of the short side (pixels) before a random training crop; 1-crop testing uses its minimum.
_C.DATA.TRAIN_JITTER_SCALES = [256, 320]
# Random-resized-crop instead: range of the crop's area relative to the frame; [] = off.
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = []
# Random-resized-crop: range of the crop's aspect ratio (width/height); [] = off.
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = []
# Random-resized-crop: the box moves during the clip, straight from one random box to another.
_C.DATA.TRAIN_JITTER_MOTION_SHIFT = False
# Draw the inverse of the short side uniformly from the inverse of TRAIN_JITTER_SCALES.
_C.DATA.INV_UNIFORM_SAMPLE = False
# Flip training clips left-right with probability 1/2.
_C.DATA.RANDOM_FLIP = True
# Mean of the red, green and blue channel, subtracted from values in 0..1.
_C.DATA.MEAN = [0.45, 0.45, 0.45]
# Standard deviation of the red, green and blue channel, by which the difference is divided.
_C.DATA.STD = [0.225, 0.225, 0.225]
# Test frames are resized as "uint8" (rounded to bytes) or "float" (exact, as PySlowFast; 4 x the memory).
_C.DATA.RESIZE_MODE = "uint8"
# How the views of a video are combined: "sum" (mean of the probabilities) or "max".
_C.DATA.ENSEMBLE_METHOD = "sum"
# Training stops when more than this fraction of its videos cannot be read.
_C.DATA.MAX_BAD_VIDEO_FRACTION = 0.01

# ------------------------------------------------------------ TRAIN
_C.TRAIN = CfgNode()
# Train.
_C.TRAIN.ENABLE = True
# "kinetics" (lists), "folder" (class folders), "motion" (generated), "ssv2", ...; see README, Datasets.
_C.TRAIN.DATASET = "kinetics"
# Videos in a step, over all processes.
_C.TRAIN.BATCH_SIZE = 8
# Validate every this many epochs, and after the last.
_C.TRAIN.EVAL_PERIOD = 1
# Save a checkpoint every this many epochs, and after the last.
_C.TRAIN.CHECKPOINT_PERIOD = 1
# Save one every this many steps within an epoch too; 0 = only after epochs.
_C.TRAIN.CHECKPOINT_STEPS = 0
# Newest checkpoints that are kept, beside the best weights (best.pyth); 0 = all.
_C.TRAIN.KEEP_CHECKPOINTS = 0
# Continue from the newest checkpoint in OUTPUT_DIR where there is one.
_C.TRAIN.AUTO_RESUME = True
# Weights to start from; "" = random ones. A classifier for another number of classes starts at random.
_C.TRAIN.CHECKPOINT_FILE_PATH = ""
# Arithmetic of forward and backward: "fp32", "bf16" or "fp16" (autocast, with loss scaling).
_C.TRAIN.PRECISION = "fp32"
# Parts in which each process's share of a step goes through the model: less memory, the same gradient.
_C.TRAIN.MICRO_BATCHES = 1
# Split parameters and optimizer state over the processes (FSDP2) instead of copying them to each (DDP).
_C.TRAIN.SHARD = False

# -------------------------------------------------------- PRETRAIN
_C.PRETRAIN = CfgNode()
# Train without labels: a VisionTransformer (VideoMAE) or MViT (MaskFeat) predicts what is hidden of a clip.
_C.PRETRAIN.ENABLE = False
# What is hidden: "tube" (the same places in all frames), "random" (any patches) or "cube" (boxes of them).
_C.PRETRAIN.MASKING = "tube"
# Fraction of the patches that is hidden.
_C.PRETRAIN.MASK_RATIO = 0.9
# Patches (t, h, w) that are hidden or shown together.
_C.PRETRAIN.MASK_UNIT = [1, 1, 1]
# What is predicted of a hidden patch: "pixels", or "hog", histograms of gradients of its first frame.
_C.PRETRAIN.TARGET = "pixels"
# Channels of the decoder, which pre-training alone needs.
_C.PRETRAIN.DECODER_DIM = 384
# Blocks of the decoder. 0, for an MViT alone: one Linear from the last feature map.
_C.PRETRAIN.DECODER_DEPTH = 4
# Attention heads of the decoder.
_C.PRETRAIN.DECODER_HEADS = 6
# Predict pixels (not "hog") relative to the mean and the standard deviation of their patch.
_C.PRETRAIN.NORMALIZE_PIXELS = True

# ------------------------------------------------------------ TEST
_C.TEST = CfgNode()
# Test, after training if both are on.
_C.TEST.ENABLE = True
# As TRAIN.DATASET.
_C.TEST.DATASET = "kinetics"
# Views that go through the model at once.
_C.TEST.BATCH_SIZE = 8
# Temporal clips of a video.
_C.TEST.NUM_ENSEMBLE_VIEWS = 5
# Spatial crops of a clip: 1 = centre; 3 = left, centre, right (top, centre, bottom of a tall video).
_C.TEST.NUM_SPATIAL_CROPS = 1
# Weights to test; "" = those just trained, else TRAIN.CHECKPOINT_FILE_PATH, else random ones.
_C.TEST.CHECKPOINT_FILE_PATH = ""
# Arithmetic of testing: "fp32", "bf16" or "fp16".
_C.TEST.PRECISION = "fp32"
# Explain six videos in report.html: "rollout", "relevance" or "gradcam" (docs/explain.md), or "none".
_C.TEST.EXPLAIN = "none"

# ------------------------------------------------------- ABLATION
_C.ABLATION = CfgNode()
# Temporal-dependence ablation of the test videos, in TEST's views and batches, after training and testing.
_C.ABLATION.ENABLE = False
# What is done to the order of the frames; `name@tubelet` moves the frames of a token together.
_C.ABLATION.PERTURBATIONS = [
    "identity", "shuffle", "block_shuffle[2]", "block_shuffle[4]", "local_shuffle[2]", "local_shuffle[4]",
    "reverse", "freeze[middle]", "repeat[2]", "hflip", "noise[shuffle]",
]  # fmt: skip
# Draws of each random perturbation for every view of every video.
_C.ABLATION.NUM_DRAWS = 3
# Resamples of the videos behind each interval.
_C.ABLATION.NUM_RESAMPLES = 10000
# Frames that the patch embedding merges, the unit of @tubelet; 0 = read off the model.
_C.ABLATION.TUBELET = 0
# OUTPUT_DIR of another model's ablation of the same videos, for the difference of the differences; "" = none.
_C.ABLATION.COMPARE = ""

# ------------------------------------------------------------ AUG
_C.AUG = CfgNode()
# Use the augmentations of this section.
_C.AUG.ENABLE = False
# Augmented copies of each decoded training clip; the effective batch is this times TRAIN.BATCH_SIZE.
_C.AUG.NUM_SAMPLE = 1
# RandAugment in timm's notation ("rand-m7-n4-mstd0.5-inc1": 4 operations of magnitude 7 +- 0.5); "" = off.
_C.AUG.AA_TYPE = "rand-m7-n4-mstd0.5-inc1"
# Interpolation of RandAugment's geometric operations: "bilinear" or "bicubic".
_C.AUG.INTERPOLATION = "bicubic"
# Brightness, contrast and saturation of a clip change by up to this fraction of themselves; 0 = not.
_C.AUG.COLOR_JITTER = 0.0
# Probability that a box of the clip is erased.
_C.AUG.RE_PROB = 0.25
# What an erased box holds: "pixel" (noise a pixel), "rand" (one random colour) or "const" (zero).
_C.AUG.RE_MODE = "pixel"
# Number of boxes an erased clip loses; their areas share the total.
_C.AUG.RE_COUNT = 1

# ------------------------------------------------------------ MIXUP
_C.MIXUP = CfgNode()
# Mix each clip with another of the batch; needs MODEL.LOSS_FUNC "soft_cross_entropy".
_C.MIXUP.ENABLE = False
# Beta(ALPHA, ALPHA) gives MixUp's weight; 0 = no MixUp.
_C.MIXUP.ALPHA = 0.8
# Beta(CUTMIX_ALPHA, CUTMIX_ALPHA) gives the area of CutMix's box; 0 = no CutMix.
_C.MIXUP.CUTMIX_ALPHA = 1.0
# Probability that a batch is mixed; with 0 only label smoothing remains.
_C.MIXUP.PROB = 1.0
# Probability that a mixed batch gets CutMix rather than MixUp.
_C.MIXUP.SWITCH_PROB = 0.5
# Label smoothing: this much probability is shared equally by all classes.
_C.MIXUP.LABEL_SMOOTH_VALUE = 0.1

# ------------------------------------------------------------ SOLVER
_C.SOLVER = CfgNode()
# Learning rate at the end of the warm-up, used as it is (not scaled by batch size or machines).
_C.SOLVER.BASE_LR = 1e-4
# "cosine", or "steps_with_relative_lrs" with STEPS and LRS.
_C.SOLVER.LR_POLICY = "cosine"
# Epochs at which a step begins, the first one 0.
_C.SOLVER.STEPS = []
# Learning rate of each step relative to BASE_LR.
_C.SOLVER.LRS = []
# Epochs of training.
_C.SOLVER.MAX_EPOCH = 30
# Epochs of linear warm-up.
_C.SOLVER.WARMUP_EPOCHS = 0.0
# Learning rate at the start of the warm-up.
_C.SOLVER.WARMUP_START_LR = 1e-6
# Learning rate at the end of the cosine.
_C.SOLVER.COSINE_END_LR = 1e-6
# The cosine starts after the warm-up (True) or at epoch 0, the warm-up hiding its beginning.
_C.SOLVER.COSINE_AFTER_WARMUP = True
# "sgd", "adam" or "adamw".
_C.SOLVER.OPTIMIZING_METHOD = "adamw"
# Momentum of SGD.
_C.SOLVER.MOMENTUM = 0.9
# Dampening of SGD's momentum.
_C.SOLVER.DAMPENING = 0.0
# Nesterov momentum in SGD.
_C.SOLVER.NESTEROV = True
# Decay rates of Adam's two averages.
_C.SOLVER.BETAS = [0.9, 0.999]
# Weight decay of the parameters that have any.
_C.SOLVER.WEIGHT_DECAY = 0.05
# No weight decay for biases and other one-dimensional parameters (normalisation).
_C.SOLVER.ZERO_WD_1D_PARAM = True
# No weight decay for position embeddings and the class token.
_C.SOLVER.ZERO_DECAY_POS_CLS = False
# Learning rate of a layer relative to that of the next deeper one; 1 = equal rates.
_C.SOLVER.LAYER_DECAY = 1.0
# Decay (a step) of an average of the weights, which is validated beside them and tested; 0 = none.
_C.SOLVER.EMA_DECAY = 0.0
# Gradients are clipped to +- this value; None = not.
_C.SOLVER.CLIP_GRAD_VAL = None
# The gradient is scaled down to at most this L2 norm; None = not.
_C.SOLVER.CLIP_GRAD_L2NORM = None

# ------------------------------------------------------------ the run
_C.DATA_LOADER = CfgNode()
# Worker processes that read videos, at most one a CPU core; 0 = in the main process.
_C.DATA_LOADER.NUM_WORKERS = 4
# Megabytes of batches that a process's workers may hold; else they read less ahead, or are fewer.
_C.DATA_LOADER.PREFETCH_MB = 2048
# Copy training batches to the GPU through page-locked memory.
_C.DATA_LOADER.PIN_MEMORY = True

_C.TENSORBOARD = CfgNode()
# Write the training statistics for TensorBoard too (OUTPUT_DIR/tensorboard); needs the extra `tensorboard`.
_C.TENSORBOARD.ENABLE = False

# "auto" (CUDA where there is one), "cpu" or "cuda".
_C.DEVICE = "auto"
# Everything the run writes lies here.
_C.OUTPUT_DIR = "output"
# Seed of weights, sampling and augmentation.
_C.RNG_SEED = 0
# Write a line of training statistics every this many steps.
_C.LOG_PERIOD = 10

# Keys that take one of a few words.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "MODEL.LOSS_FUNC": ("cross_entropy", "soft_cross_entropy", "bce_logit"),
    "DATA.DECODING_BACKEND": ("pyav", "decord", "torchcodec", "frames"),
    "DATA.TEMPORAL_SAMPLING": ("slowfast", "uniform", "segment"),
    "DATA.RESIZE_MODE": ("uint8", "float"),
    "DATA.ENSEMBLE_METHOD": ("sum", "max"),
    "TRAIN.PRECISION": ("fp32", "bf16", "fp16"),
    "TEST.PRECISION": ("fp32", "bf16", "fp16"),
    "TEST.EXPLAIN": ("none", "rollout", "relevance", "gradcam"),
    "PRETRAIN.MASKING": ("tube", "random", "cube"),
    "PRETRAIN.TARGET": ("pixels", "hog"),
    "AUG.INTERPOLATION": ("bilinear", "bicubic"),
    "AUG.RE_MODE": ("pixel", "rand", "const"),
    "SOLVER.LR_POLICY": ("cosine", "steps_with_relative_lrs"),
    "SOLVER.OPTIMIZING_METHOD": ("sgd", "adam", "adamw"),
    "DEVICE": ("auto", "cpu", "cuda"),
}

# Keys that name a file or folder: a leading ~ is the home folder, which shells put in but YAML does not.
PATHS = (
    "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX", "DATA.INDEX_CACHE", "TRAIN.CHECKPOINT_FILE_PATH",
    "TEST.CHECKPOINT_FILE_PATH", "ABLATION.COMPARE", "OUTPUT_DIR",
)  # fmt: skip

# Sections whose keys are not fixed here: they are checked against the model's signature.
OPEN_SECTIONS = frozenset({"MODEL.ARGS"})


def get_defaults() -> CfgNode:
    """A new, unfrozen copy of the schema with its default values."""
    return _C.clone()
