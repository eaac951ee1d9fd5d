"""From a command line to a training run: which network, data, weights, settings and folder."""

import contextlib
import dataclasses
import hashlib
import logging
import os
from dataclasses import dataclass

from ..engine.errors import DataError
from ..engine.files import open_file
from ..solvers import parallel
from . import config, datasets, networks, run_folder
from .commandline import (
    add_common_flags,
    at_least,
    choose_precision,
    make_parser,
    resolve_device,
)
from .datasets.record import new_digest
from .defaults import default_imdb, is_embedded, settings
from .job import Job

log = logging.getLogger("demitasse.detection")

_WITHOUT_EFFECT = ("GPU_ID", "USE_GPU_NMS", "MATLAB", "MODELS_DIR", "ROOT_DIR")


def training_parser(description):
    """An ArgumentParser with the flags of all training programs."""
    parser = make_parser(description)
    add_common_flags(parser, training=True)
    parser.add_argument(
        "--net", "--net_name", dest="net", metavar="NAME",
        help=f"{', '.join(networks.names())}; or a folder of definitions",
    )  # fmt: skip
    parser.add_argument(
        "--solver", nargs="+", metavar="FILE",
        help="solver files, one, or one a stage; without --net they say which net is trained",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="FILE",
        help="weights to begin with, or none (ImageNet weights in data/imagenet_models; for the "
        "embedded data set none)",
    )  # fmt: skip
    parser.add_argument(
        "--imdb", metavar="NAME",
        help="the data set to train on: voc_2007_trainval, voc:FOLDER, coco:FILE.json:IMAGES, "
        "shapes ... (voc_2007_trainval if data/VOCdevkit2007 is there, otherwise shapes)",
    )  # fmt: skip
    parser.add_argument("--test-imdb", metavar="NAME", help="what to test on (its test split)")
    parser.add_argument("--val-imdb", metavar="NAME", help="what to validate on (its val split)")
    parser.add_argument(
        "--eval-interval", type=at_least(0), default=0, metavar="N",
        help="validate every N iterations; 0: never",
    )  # fmt: skip
    parser.add_argument(
        "--iters", type=at_least(0), nargs="+", metavar="N", help="one, or one a stage"
    )
    parser.add_argument(
        "--pretrain-iters", type=at_least(0), metavar="N",
        help="of the crops that a net without weights begins with, 0 for none (PRETRAIN.ITERS)",
    )  # fmt: skip
    parser.add_argument(
        "--output", "--out", metavar="FOLDER",
        help="of this run (output/EXP_DIR/IMDB, or the next free one)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-stages", action="store_true",
        help="keep the weights of single stages, which are removed at the end",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    return parser


@dataclass(frozen=True)
class Launch:
    """A run that is about to begin: its `job`, `iters` (or None), and the `test_dataset`."""

    job: Job
    iters: list | None
    test_dataset: object


def in_ranks(args, module, argv, work):
    """Run `work(communicator, device)` on the devices of a command line, in several processes if
    it asks for them; returns the exit status.

    Args: args: of `training_parser`; module, argv: the program and its command line.
    """
    place = parallel.place()
    plan = parallel.make_plan(args.ranks, parallel.gpu_numbers(args.gpu), place)
    if plan.size > 1 and not place.started:
        return parallel.launch(module, argv, plan)
    choose_precision(args)
    one = plan.size == 1 and plan.gpus is None
    device = resolve_device(args) if one else plan.device(place)
    with parallel.joined(place, device) as communicator, short_log(), interruptible():
        work(communicator, device)


def prepare(args, method, proposals=(), communicator=parallel.ALONE, device=None):
    """Read all that a run needs, and open its folder.

    Args:
        args: of `training_parser`; method: a key of networks.METHODS.
        proposals: files of proposals that the outcome depends on.
        communicator, device: of `in_ranks`.
    Returns: a `Launch`.
    Raises: DataError and its kin for what is missing, before anything is trained or written.
    """
    imdb = args.imdb or default_imdb(args, method)
    cfg = settings(args, method, imdb)
    network = find_network(args, method)
    weights = initial_weights(args.weights, network, imdb, cfg)
    dataset = datasets.get_imdb(imdb, cfg.DATA_DIR)
    _check_objects(dataset)
    test_dataset = _other_dataset(dataset, args.test_imdb, imdb, "test", cfg.DATA_DIR)
    val_dataset = None
    if args.eval_interval > 0:
        val_dataset = _other_dataset(dataset, args.val_imdb, imdb, "val", cfg.DATA_DIR)
    folder = args.output or os.path.join("output", cfg.EXP_DIR, run_folder.folder_name(imdb))
    what = fingerprint(network, dataset, cfg, weights, args.iters, proposals)
    if communicator.size > 1:
        what["ranks"] = communicator.size
    free = ("config.RNG_SEED",) if args.rand else ()
    run = run_folder.Run.open(folder, what, args.resume, communicator, free)
    # With --rand, that of the run that is resumed, and of several ranks rank 0's.
    cfg = dataclasses.replace(cfg, RNG_SEED=run.settings["config"]["RNG_SEED"])
    job = Job(network, dataset, cfg, run, weights, device, val_dataset, args.eval_interval)
    log.info(
        "Training %s (%s) on %s: %d images, %d classes; seed %d; everything goes to %s",
        network.name, method, dataset.name, len(dataset), len(dataset.classes) - 1, cfg.RNG_SEED,
        run.folder,
    )  # fmt: skip
    return Launch(job, args.iters, test_dataset)


def _check_objects(dataset):
    if not any(len(record.labels) for record in dataset.records):
        raise DataError(
            f"data set {dataset.name}", "objects to learn", f"none in {len(dataset)} images",
            "Annotate some, or name another data set or split with --imdb; tools/check_dataset.py "
            "shows what is in one.",
        )  # fmt: skip


def _other_dataset(dataset, given, imdb, which, data_dir):
    """The data set to test or to validate on (`which`: test, val): the one that is `given`, else
    that split of the one that is trained on."""
    flag = f"--{which}-imdb"
    try:
        other = datasets.get_imdb(given or datasets.split(imdb, which), data_dir)
    except DataError as error:
        if given:
            raise
        raise DataError(f"{error} ({flag} NAME for another data set or split.)") from None
    if other.classes != dataset.classes:
        raise DataError(
            f"data set {other.name}", f"the classes of {dataset.name}: "
            f"{', '.join(dataset.classes[1:])}", ", ".join(other.classes[1:]) or "none",
            f"Name one with the same classes in the same order ({flag}). Those of voc:FOLDER are "
            "all names in its annotations, those of coco:FILE.json its categories.",
        )  # fmt: skip
    return other


# ---- network and weights


def find_network(args, method):
    """The `networks.Network` of a command line; --solver replaces its solver files.

    Without --net, it is the one whose net the solver file names, or VGG16.
    """
    if args.solver and not args.net:
        return networks.find_by_solvers(args.solver, method)
    return networks.find(args.net or "vgg16", method, args.solver or ())


def initial_weights(option, network, imdb, cfg):
    """The path of the weights to begin with, or None for random ones.

    Raises: DataError if real images are to be trained on without ImageNet weights, unless that is
        asked for; ModelFileError if the file is not there.
    """
    if option is not None and option.lower() == "none":
        return None
    if option is not None:
        with open_file(option, "a .caffemodel"):
            return option
    if is_embedded(imdb):
        return None
    try:
        return networks.pretrained(network.name, cfg.DATA_DIR)
    except DataError as error:
        raise DataError(f"{error} (--weights FILE; --weights none for random ones.)") from None


# ---- what a run is


def fingerprint(network, dataset, cfg, weights, iters, proposals=()):
    """All that the outcome of a run depends on, as a nested dictionary."""
    values = config.to_dict(cfg)
    for key in _WITHOUT_EFFECT:
        values.pop(key, None)
    values["TRAIN"].pop("SNAPSHOT_ITERS")
    digests = {f"{stage.name} solver": _digest(stage.solver) for stage in network.training}
    digests |= {f"{stage.name} net": _digest(stage.net.path) for stage in network.training}
    return {
        "method": network.method, "net": network.name, "definitions": digests,
        "imdb": dataset.name, "images": len(dataset), "classes": list(dataset.classes),
        "annotations": dataset.digest(), "weights": None if weights is None else _digest(weights),
        "iters": iters, "proposals": [_digest(path) for path in proposals], "config": values,
    }  # fmt: skip


def _digest(path):
    """What a file's contents are told apart by."""
    with open_file(path, "a file that the run depends on") as file:
        return hashlib.file_digest(file, new_digest).hexdigest()


# ---- running


@contextlib.contextmanager
def short_log():
    """Has the solver and the nets log warnings alone: their reports are as long as the nets are."""
    loggers = [logging.getLogger(name) for name in ("demitasse.solver", "demitasse.net")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def interruptible():
    """Turns Ctrl-C into one line and exit status 130; what has been trained is kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print(str(stop) or "Stopped; --resume continues with the step that was interrupted.")
        raise SystemExit(130) from None
