"""What the detection tools' command lines have in common: device, config, seed, the detector.

Flags are py-faster-rcnn's. `--set` takes pairs up to the next flag and may be repeated.
"""

import argparse
import dataclasses
import os
import sys
import time

from ..engine import device as devices
from ..engine import precision
from ..engine.errors import DeviceError
from . import config

_WAIT = 10  # seconds between looks for a file


def make_parser(description, usage=None):
    """An ArgumentParser that shows defaults and takes no abbreviated flags.

    An abbreviation that works today becomes ambiguous with the next flag.
    """
    return argparse.ArgumentParser(
        description=description, usage=usage, allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip


def at_least(least):
    """The `type` of a flag whose values are whole numbers from `least` on."""

    def number(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            expected = f"expected a whole number of at least {least}, found {text!r}"
            raise argparse.ArgumentTypeError(expected)
        return value

    return number


def add_common_flags(parser, training=False):
    """Add --gpu, --cpu, --precision, --cfg, --set, --data_dir, --seed; for `training`, also
    several GPUs, and --rand."""
    device = parser.add_mutually_exclusive_group()
    if training:
        device.add_argument(
            "--gpu", metavar="N,...",
            help="the number of the GPU (0 if there is one, otherwise the CPU); several, as in "
            "0,1, or 'all' train together, each on its part of the images",
        )  # fmt: skip
        parser.add_argument(
            "--ranks", type=int, default=0, metavar="N",
            help="processes that train together, each on its part of the images and with a share "
            "of the cores (one a GPU of --gpu, otherwise one)",
        )  # fmt: skip
    else:
        device.add_argument(
            "--gpu", type=int, metavar="N",
            help="the number of the GPU (0 if there is one, otherwise the CPU)",
        )  # fmt: skip
    device.add_argument("--cpu", action="store_true", help="run on the CPU")
    parser.add_argument(
        "--precision", choices=precision.MATHS,
        help=f"how products are computed on a GPU ({precision.VARIABLE}, or float32)",
    )  # fmt: skip
    parser.add_argument("--cfg", metavar="FILE", help="a YAML file of settings")
    parser.add_argument(
        "--set", nargs="+", action="extend", dest="set_cfgs", metavar="KEY VALUE", default=[],
        help="settings, for example: --set TEST.NMS 0.5 TEST.SCALES [480]",
    )  # fmt: skip
    parser.add_argument("--data_dir", metavar="FOLDER", help="of the data sets (DATA_DIR)")
    seed = parser.add_mutually_exclusive_group()
    seed.add_argument("--seed", type=int, metavar="N", help="what random numbers depend on")
    if training:
        seed.add_argument("--rand", action="store_true", help="another seed in every new run")


def resolve_config(args, base=None):
    """The Config of a command line: `base` (defaults if None), then --cfg, --set, then other flags.

    Raises: DataError for a file, key or value that does not fit.
    """
    cfg = base or config.Config()
    if args.cfg:
        cfg = config.load(args.cfg, cfg)
    if args.set_cfgs:
        cfg = config.set_from_list(cfg, args.set_cfgs)
    if args.data_dir is not None:
        cfg = dataclasses.replace(cfg, DATA_DIR=args.data_dir)
    if args.seed is not None:
        cfg = dataclasses.replace(cfg, RNG_SEED=args.seed)
    return cfg


def choose_precision(args):
    """Have nets compute as --precision says, if it is there."""
    if args.precision:
        precision.choose(args.precision)


def resolve_device(args):
    """The device of a command line: the GPU asked for, else GPU 0 if it can be used, else the CPU.

    Nets then compute with --precision.

    Raises: DeviceError if a GPU was asked for by number and cannot be used.
    """
    choose_precision(args)
    if args.cpu:
        return devices.CPU
    if args.gpu is not None:
        return devices.gpu_device(args.gpu)
    try:
        if devices.gpu_count():
            return devices.gpu_device(0)
        reason = "no GPU found"
    except DeviceError as error:
        reason = str(error)
    print(f"Using the CPU ({reason}).", file=sys.stderr)
    return devices.CPU


# ---- the detector


def add_model_flags(parser):
    """Add --def, --net and --wait."""
    parser.add_argument(
        "--def", dest="prototxt", metavar="FILE",
        help="the definition, or the name of a network in prototxt/ (not needed for a detector "
        "that training has written with its .prototxt and .yml)",
    )  # fmt: skip
    parser.add_argument(
        "--net", required=True, metavar="FILE", help="the weights, or a trained detector's prototxt"
    )
    # NOTE: py-faster-rcnn waits unless told otherwise; for a misspelt name, that is for ever.
    parser.add_argument(
        "--wait", nargs="?", const=True, default=False, type=_switch, metavar="BOOL",
        help="wait until the file --net is there",
    )  # fmt: skip


_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _switch(text):
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}") from None


def model_and_config(args):
    """The `opening.Model` and the Config of a command line with all these flags."""
    model = model_of(args, resolve_config(args).DATA_DIR)
    return model, resolve_config(args, model.cfg)


def model_of(args, data_dir="data"):
    """The `opening.Model` of a command line with `add_model_flags`.

    Args: data_dir: where published detectors lie.
    """
    from .opening import find_model

    if args.wait and not os.path.exists(args.net):
        print(f"Waiting for {args.net} ...", file=sys.stderr)
        while not os.path.exists(args.net):
            time.sleep(_WAIT)
    if args.prototxt:
        return find_model(args.prototxt, args.net)
    return find_model(args.net, data_dir=data_dir)
