"""The settings of training and testing a detector, under py-faster-rcnn's names and defaults.

A `Config` is a value: it is passed to what needs it, and `merge` makes a new one. What layers read
(`layer_settings`) goes to them through their net's context. Sections and keys that py-faster-rcnn
does not have: ANCHOR_SCALES, ANCHOR_RATIOS, SOLVER, PRETRAIN, and in TRAIN USE_DIFFICULT and
USE_VFLIPPED.
"""

import ast
import dataclasses
import types
import typing
from dataclasses import dataclass, field

from ..engine.errors import ModelFileError, closest
from ..layers.anchor_target import AnchorTargetSettings
from ..layers.proposal import ProposalLimits, ProposalSettings
from ..layers.proposal_target import ProposalTargetSettings


@dataclass(frozen=True)
class Train(AnchorTargetSettings, ProposalTargetSettings):
    """Training. The keys of the layers AnchorTarget and ProposalTarget are described there.

    Attributes:
        SCALES: lengths of an image's shorter side in pixels, one drawn for each image.
        MAX_SIZE: the most pixels of the longer side.
        IMS_PER_BATCH: images a batch. ASPECT_GROUPING: batch wide ones with wide ones.
        USE_FLIPPED: also show each image mirrored. USE_VFLIPPED: also show all these upside down,
            where images have no top, as those of a microscope.
        USE_DIFFICULT: learn from difficult objects.
        BBOX_REG: learn bounding-box regression; BBOX_THRESH: from RoIs of at least this overlap.
        BBOX_NORMALIZE_TARGETS: divide the targets by their standard deviations; those of the data,
            or with BBOX_NORMALIZE_TARGETS_PRECOMPUTED those given.
        PROPOSAL_METHOD: where Fast R-CNN's RoIs come from: selective_search, rpn or gt.
        SNAPSHOT_ITERS: iterations between snapshots that a run can be resumed from.
        SNAPSHOT_INFIX, USE_PREFETCH: read from old files, not used.
        HAS_RPN: whether batches are for a net that proposes regions; set for each stage.
        RPN_NMS_THRESH, RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N, RPN_MIN_SIZE: the layer Proposal's.
    """

    SCALES: tuple[int, ...] = (600,)
    MAX_SIZE: int = 1000
    IMS_PER_BATCH: int = 2
    ASPECT_GROUPING: bool = True
    USE_FLIPPED: bool = True
    USE_VFLIPPED: bool = False
    USE_DIFFICULT: bool = False
    USE_PREFETCH: bool = True
    BBOX_REG: bool = True
    BBOX_THRESH: float = 0.5
    BBOX_NORMALIZE_TARGETS: bool = True
    PROPOSAL_METHOD: str = "selective_search"
    HAS_RPN: bool = False
    SNAPSHOT_ITERS: int = 10000
    SNAPSHOT_INFIX: str = ""
    RPN_NMS_THRESH: float = 0.7
    RPN_PRE_NMS_TOP_N: int = 12000
    RPN_POST_NMS_TOP_N: int = 2000
    RPN_MIN_SIZE: float = 16


@dataclass(frozen=True)
class Test:
    """Testing.

    Attributes:
        SCALES, MAX_SIZE: as in training, but all scales are used.
        NMS: overlap above which the worse of two detections of a class is dropped.
        BBOX_REG: apply the bounding-box regression.
        SVM: scores are those of linear SVMs (R-CNN, SPPnet), not probabilities.
        PROPOSAL_METHOD: where RoIs come from if the net has no RPN. HAS_RPN: not used; the inputs
            of the net tell.
        RPN_NMS_THRESH, RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N, RPN_MIN_SIZE: the layer Proposal's.
    """

    SCALES: tuple[int, ...] = (600,)
    MAX_SIZE: int = 1000
    NMS: float = 0.3
    SVM: bool = False
    BBOX_REG: bool = True
    HAS_RPN: bool = False
    PROPOSAL_METHOD: str = "selective_search"
    RPN_NMS_THRESH: float = 0.7
    RPN_PRE_NMS_TOP_N: int = 6000
    RPN_POST_NMS_TOP_N: int = 300
    RPN_MIN_SIZE: float = 16


@dataclass(frozen=True)
class Solver:
    """What replaces settings of the solver files; None leaves a file's setting alone.

    Attributes:
        ALT_OPT_ITERS: iterations of the four stages of alternating training.
        END2END_ITERS, FAST_RCNN_ITERS, RPN_ITERS: of the methods of train_net.
        TYPE, BASE_LR, MOMENTUM, WEIGHT_DECAY, CLIP_GRADIENTS, ITER_SIZE: the solver file's
            fields. RPN_BASE_LR: base_lr where an RPN alone is trained, instead of BASE_LR.
        STEPS: where the learning rate is multiplied by GAMMA, as fractions of the iterations.
        WARMUP_ITERS: over how many iterations the learning rate rises linearly from
            WARMUP_FACTOR times its value.
    """

    ALT_OPT_ITERS: tuple[int, ...] | None = None
    END2END_ITERS: int | None = None
    FAST_RCNN_ITERS: int | None = None
    RPN_ITERS: int | None = None
    TYPE: str | None = None
    BASE_LR: float | None = None
    RPN_BASE_LR: float | None = None
    MOMENTUM: float | None = None
    WEIGHT_DECAY: float | None = None
    CLIP_GRADIENTS: float | None = None
    ITER_SIZE: int | None = None
    STEPS: tuple[float, ...] | None = None
    GAMMA: float = 0.1
    WARMUP_ITERS: int = 0
    WARMUP_FACTOR: float = 0.1


@dataclass(frozen=True)
class Pretrain:
    """Classification of crops, which trains a network's convolutions before detection begins.

    It is done where a net has no weights to begin with and ITERS is above 0 (see pretrain.py).

    Attributes:
        ITERS: iterations.
        CROP_SIZES: sides of the crops in pixels; batches take turns.
        MOSAIC_SIZE: the side of the images that crops are put together to, rounded down to a
            multiple of the crops'. BATCH_SIZE: such images in a batch.
        BASE_LR: the learning rate to begin with (Adam's).
    """

    ITERS: int = 0
    CROP_SIZES: tuple[int, ...] = (32, 48, 64)
    MOSAIC_SIZE: int = 192
    BATCH_SIZE: int = 4
    BASE_LR: float = 5e-4


@dataclass(frozen=True)
class Config:
    """All settings.

    Attributes:
        ANCHOR_SCALES, ANCHOR_RATIOS: of the anchors, the scales in units of 16 pixels, the ratios
            height / width; None for what the prototxt says.
        PIXEL_MEANS: blue, green, red, subtracted from every image, of shape (1, 1, 3).
        DEDUP_BOXES: RoIs that coincide on features of this scale are computed once; 0: never.
        RNG_SEED: of all random numbers.
        DATA_DIR: where data sets lie. EXP_DIR: the folder in output/ that results go to.
        ROOT_DIR, MODELS_DIR, MATLAB, USE_GPU_NMS, GPU_ID, EPS: read from old files, not used.
    """

    TRAIN: Train = field(default_factory=Train)
    TEST: Test = field(default_factory=Test)
    SOLVER: Solver = field(default_factory=Solver)
    PRETRAIN: Pretrain = field(default_factory=Pretrain)
    ANCHOR_SCALES: tuple[float, ...] | None = None
    ANCHOR_RATIOS: tuple[float, ...] | None = None
    PIXEL_MEANS: tuple = (((102.9801, 115.9465, 122.7717),),)
    DEDUP_BOXES: float = 1 / 16
    RNG_SEED: int = 3
    EPS: float = 1e-14
    DATA_DIR: str = "data"
    EXP_DIR: str = "default"
    ROOT_DIR: str | None = None
    MODELS_DIR: str | None = None
    MATLAB: str | None = None
    USE_GPU_NMS: bool = True
    GPU_ID: int = 0


def layer_settings(cfg):
    """The settings that layers of a net read from its context, in a list."""
    return [
        _part(AnchorTargetSettings, cfg.TRAIN),
        _part(ProposalTargetSettings, cfg.TRAIN),
        ProposalSettings(
            train=_part(ProposalLimits, cfg.TRAIN), test=_part(ProposalLimits, cfg.TEST)
        ),
    ]


def _part(kind, section):
    return kind(**{f.name: getattr(section, f.name) for f in dataclasses.fields(kind)})


# ---- from files and command lines


def load(path, base=None):
    """A Config from a YAML file; what it does not mention is as in `base`, or the default.

    Raises:
        ModelFileError: no such file, not YAML, an unknown key, or a value of the wrong type.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            mapping = yaml.safe_load(file)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise ModelFileError(f"config {path}", "a file to read", reason) from None
    except yaml.YAMLError as e:
        raise ModelFileError(f"config {path}", "YAML", f"{e}") from None
    return merge(base or Config(), {} if mapping is None else mapping, f"config {path}")


def merge(cfg, mapping, where="config"):
    """A copy of a Config (or of a section of one) with the values of a nested mapping.

    Raises:
        ModelFileError: an unknown key (names the closest), or a value of the wrong type.
    """
    if not isinstance(mapping, dict):
        raise ModelFileError(where, "a mapping of keys to values", repr(mapping))
    kinds = typing.get_type_hints(type(cfg))
    changes = {}
    for key, value in mapping.items():
        if key not in kinds:
            hint = closest(str(key), kinds) or f"Known keys: {', '.join(kinds)}."
            raise ModelFileError(where, "a known key", repr(key), hint)
        at = f"{where}, {key}"
        current = getattr(cfg, key)
        if dataclasses.is_dataclass(current):
            changes[key] = merge(current, value, at)
        else:
            changes[key] = _converted(value, kinds[key], at)
    return dataclasses.replace(cfg, **changes)


def set_from_list(cfg, words):
    """A copy of a Config with `--set`'s KEY VALUE KEY VALUE ... (TRAIN.SCALES "[480, 600]").

    Raises:
        ModelFileError: an odd number of words, an unknown key, or a value of the wrong type.
    """
    if len(words) % 2:
        raise ModelFileError("--set", "pairs of KEY VALUE", f"{len(words)} words")
    for key, text in zip(words[::2], words[1::2]):
        mapping = _literal(text)
        for part in reversed(key.split(".")):
            mapping = {part: mapping}
        cfg = merge(cfg, mapping, "--set")
    return cfg


def to_dict(cfg):
    """A Config as a nested dictionary of what YAML can hold; `merge` reads it back."""
    return _plain(dataclasses.asdict(cfg))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _literal(text):
    """What a word of the command line stands for: a number, list, ... or else itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _converted(value, kind, where):
    """`value` as the type that a key is annotated with."""
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = typing.get_args(kind)[0]
    if kind is tuple or typing.get_origin(kind) is tuple:
        return _as_tuple(value, kind, where)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and isinstance(value, str):
        value, number = _number(value)  # YAML takes 1e-3 for a word
    if kind is float and number:
        return float(value)
    if kind is int and number and value % 1 == 0:  # neither inf nor NaN
        return int(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise ModelFileError(where, f"a value of type {kind.__name__}", repr(value))


def _number(text):
    try:
        return float(text), True
    except ValueError:
        return text, False


def _as_tuple(value, kind, where):
    of = (typing.get_args(kind) or (None,))[0]
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise ModelFileError(where, "a list", repr(value), "Write [a, b, c].")
    if of is None:
        return tuple(_as_tuple(v, kind, where) if isinstance(v, list | tuple) else v for v in value)
    return tuple(_converted(v, of, where) for v in value)
