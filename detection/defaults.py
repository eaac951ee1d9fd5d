"""What each method trains with unless it is told otherwise: its data set and its settings."""

import dataclasses
import os
import secrets

from .. import prototxt
from . import config
from .commandline import resolve_config

METHOD_DEFAULTS = {
    "alt_opt": {
        "EXP_DIR": "faster_rcnn_alt_opt",
        "TRAIN": {"BG_THRESH_LO": 0.0, "PROPOSAL_METHOD": "rpn"},
        "TEST": {"HAS_RPN": True},
    },
    "end2end": {
        "EXP_DIR": "faster_rcnn_end2end",
        "TRAIN": {
            "HAS_RPN": True, "PROPOSAL_METHOD": "gt", "IMS_PER_BATCH": 1, "BG_THRESH_LO": 0.0,
            "BBOX_NORMALIZE_TARGETS_PRECOMPUTED": True,
        },
        "TEST": {"HAS_RPN": True},
    },
    "fast_rcnn": {"EXP_DIR": "fast_rcnn"},
    "rpn": {"EXP_DIR": "rpn", "TRAIN": {"HAS_RPN": True}, "TEST": {"HAS_RPN": True}},
}  # fmt: skip
"""How each method's settings differ from the defaults (py-faster-rcnn: experiments/cfgs)."""

EMBEDDED = "shapes"


def default_imdb(args, method):
    """The data set of a run that names none."""
    cfg = resolve_config(args, base_config(method))
    devkit = os.path.join(cfg.DATA_DIR, "VOCdevkit2007")
    if os.path.isdir(devkit):
        return "voc_2007_trainval"
    print(
        f"No VOCdevkit was found ({devkit}), so the embedded data set '{EMBEDDED}' is used; for "
        "real images put one there, or give --imdb voc:FOLDER or --imdb coco:FILE.json:IMAGES."
    )
    return EMBEDDED


def is_embedded(imdb):
    """Whether a data set, or each of several joined by "+", is the embedded one."""
    return all(part.strip().startswith(EMBEDDED) for part in imdb.split("+"))


def base_config(method, imdb=""):
    """The Config of a method before the user's own settings.

    The embedded data set has settings of its own, in prototxt/shapes.yml.
    """
    cfg = config.merge(config.Config(), METHOD_DEFAULTS[method])
    if imdb and is_embedded(imdb):
        cfg = config.load(prototxt.FOLDER / f"{EMBEDDED}.yml", cfg)
    return cfg


def settings(args, method, imdb):
    """The Config of a run: the method's, the user's file (or for the embedded data set ours),
    then --set and other flags."""
    cfg = resolve_config(args, base_config(method, "" if args.cfg else imdb))
    if args.pretrain_iters is not None:
        cfg = config.merge(cfg, {"PRETRAIN": {"ITERS": args.pretrain_iters}}, "--pretrain-iters")
    if args.rand:
        cfg = dataclasses.replace(cfg, RNG_SEED=secrets.randbits(31))
    return cfg
