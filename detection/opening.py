"""Opening a detector's net for testing: its files by a name or a path, weights, settings."""

import os
from pathlib import Path
from typing import NamedTuple

from ..engine import weights as weight_files
from ..engine.context import Context
from ..engine.errors import DataError, ModelFileError, NetError
from ..engine.net import Net
from ..engine.phase import Phase
from ..engine.prototxt import read_net
from . import bundle, networks
from .adapt import adapt_net
from .config import Config, layer_settings
from .cutting import net_in_use
from .limits import limits_of, set_limits
from .roles import find_roles

STAGES = ("rpn", "fast_rcnn")
RESULTS = ("rois", "scores", "cls_score", "cls_prob", "bbox_pred")
"""What is read after a pass (test.py)."""
_PUBLISHED = {  # in DATA_DIR/faster_rcnn_models
    "vgg16": "VGG16_faster_rcnn_final.caffemodel",
    "zf": "ZF_faster_rcnn_final.caffemodel",
}


class Model(NamedTuple):
    """The files of a detector: paths of the definition and the weights; class names and Config
    if they are known."""

    definition: str
    weights: str
    classes: tuple | None = None
    cfg: Config | None = None

    @property
    def name(self):
        """What results are called: the weights' file name without its ending."""
        return Path(self.weights).name.split(".caffemodel")[0]


def find_model(definition, weights=None, data_dir="data"):
    """A detector's files.

    Args:
        definition: the path of a prototxt, the name of a network in prototxt/, or without
            `weights` any of the three files of a trained detector.
        weights: the path of a weights file. Without, a network of which py-faster-rcnn has
            published a detector has that one, if it lies in data_dir/faster_rcnn_models.
    Returns: a `Model`.
    Raises: ModelFileError if there are no such files.
    """
    definition = os.fspath(definition)
    if bundle.exists(definition):
        found = Model(*bundle.load(definition))
        return found if weights is None else found._replace(weights=os.fspath(weights))
    name = definition.lower()
    if name not in networks.names():
        if weights is None:
            return Model(*bundle.load(definition))  # which says what is missing
        return Model(definition, os.fspath(weights))
    path = networks.find(name, "end2end").test.path
    return Model(path, os.fspath(weights) if weights else _published_weights(name, data_dir))


def _published_weights(name, data_dir):
    if name not in _PUBLISHED:
        hint = f"Published ones are known of {', '.join(_PUBLISHED)}."
        raise ModelFileError(f"detector {name}", "the path of its weights", "none", hint)
    path = os.path.join(data_dir, "faster_rcnn_models", _PUBLISHED[name])
    if not os.path.isfile(path):
        raise ModelFileError(
            f"weights of detector {name}", path, "no such file",
            "py-faster-rcnn's data/scripts/fetch_faster_rcnn_models.sh fetches it. Or give the "
            "path of weights, or of a detector that you have trained.",
        )  # fmt: skip
    return path


# ---- nets


def open_net(definition, weights, cfg, classes=None, stages=STAGES, device=None):
    """A TEST net with its weights, in little memory: of its blobs, only inputs, outputs and what
    testing reads can be looked at after a pass.

    Args:
        definition: the path of a prototxt.
        weights: the path of a weights file, or None for a net that is filled otherwise.
        cfg: the Config that its layers see; TEST's limits of proposals count, whatever the
            definition says.
        classes: how many classes, with the background; counts in the file are adapted to them and
            to the config's anchors. None for what the file says.
        stages: which parts. ("rpn",) opens the region proposal network alone, of any definition
            that has one, with the outputs rois and scores; ("fast_rcnn",) the region head alone,
            with the inputs data and rois.
        device: where to compute; the default device if None.
    Raises: ModelFileError, NetError; the latter also if a layer has no weights in the file.
    """
    definition = os.fspath(definition)
    param = read_net(definition)
    wanted = classes, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS
    if any(value is not None for value in wanted):
        count = classes if find_roles(param).cls_score else None
        param, _ = adapt_net(param, count, *wanted[1:], where=definition)
    param = net_in_use(param, stages, definition)
    there = {top for layer in param.layer for top in layer.top}
    folder = os.path.dirname(os.path.abspath(definition))
    net = Net(
        param, Phase.TEST, stages=stages, device=device, keep="minimal",
        context=Context(cfg.RNG_SEED, layer_settings(cfg), folder),
        kept=[name for name in RESULTS if name in there],
    )  # fmt: skip
    set_limits(net, limits_of(cfg.TEST))
    if weights is not None:
        copy_all_weights(net, os.fspath(weights))
    return net


def open_for_dataset(model, dataset, cfg, stages=STAGES, device=None):
    """The net of a `Model` as `open_net` does, for the classes of a data set.

    Raises: DataError if the detector is known to have others.
    """
    classes = None
    if "fast_rcnn" in stages:
        classes = len(dataset.classes)
        if model.classes is not None and tuple(model.classes) != dataset.classes:
            raise DataError(
                f"data set {dataset.name}", f"the detector's classes {', '.join(model.classes)}",
                ", ".join(dataset.classes), "Test it on the data that it was trained for.",
            )  # fmt: skip
    return open_net(model.definition, model.weights, cfg, classes, stages, device)


def copy_all_weights(net, path):
    """Copy weights from a file, which must have those of all layers.

    A net that is to detect would give noise with random ones.
    """
    report = weight_files.copy_from(net, path)
    if report.missing:
        raise NetError(
            path, f"weights of all layers of net {net.name!r}",
            f"none of {', '.join(report.missing)}",
            "Is it a file of the trained detector, and not of the network it was begun with?",
        )  # fmt: skip
