"""A trained detector as three files: STEM.caffemodel, STEM.prototxt, and STEM.yml.

The prototxt has every count filled in and the proposals' limits, so that `caffe.Net` opens the pair
without anything else; the yml holds the class names and the config that it was trained with.
"""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..engine import weights as weight_files
from ..engine.errors import ModelFileError, NetError
from ..engine.files import read_limited
from ..engine.prototxt import format_text
from . import config
from .adapt import JOINT, deploy_net
from .datasets.record import BACKGROUND
from .roles import find_roles, parameter_count, predictor

_ENDINGS = ("caffemodel", "yml", "prototxt")
_MAX_YML_BYTES = 4 * 2**20


class Bundle(NamedTuple):
    """What `load` found: the paths of prototxt and weights, class names, the Config."""

    prototxt: str
    weights: str
    classes: tuple
    cfg: config.Config


def save(stem, net, net_param, classes, cfg, stages=JOINT):
    """Write a detector's three files, or none.

    Args:
        stem: their path without an ending.
        net: a net (of the engine) that has all weights of the detector.
        net_param: the adapted definition (`adapt.deploy_net` is done here).
        classes: names, the first of which is "__background__".
        cfg: the Config. stages: what the detector consists of.

    Returns: the path of the prototxt.
    Raises: NetError if net, definition and classes do not fit together; ModelFileError if the
        files cannot be written.
    """
    definition = deploy_net(net_param, cfg, stages)
    classes = _checked_classes(list(classes), f"detector {stem}")
    _check_fit(stem, net, definition, classes)
    folder, name = Path(stem).absolute().parent, Path(stem).name
    header = (
        f"# A detector of {len(classes) - 1} classes. Its weights are {name}.caffemodel, its class "
        f"names\n# and settings {name}.yml.\n"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as place:
            weight_files.save(net, os.path.join(place, f"{name}.caffemodel"))
            _write(Path(place, f"{name}.prototxt"), header + format_text(definition))
            _write(Path(place, f"{name}.yml"), _yml(classes, cfg))
            # All are complete: now they get their names, the one that is opened first as the last.
            for ending in _ENDINGS:
                os.replace(os.path.join(place, f"{name}.{ending}"), folder / f"{name}.{ending}")
    except OSError as e:
        raise ModelFileError(
            stem, "to write a detector here", e.strerror or str(e), "Check the folder and the disk."
        ) from e
    return str(folder / f"{name}.prototxt")


def load(path):
    """Find a detector's files and read its class names and config.

    Args: path: of any of the three files, or the stem.
    Returns: a `Bundle`.
    Raises: ModelFileError if a file is missing, or the yml is not one of these.
    """
    files = _files(path)
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        raise ModelFileError(
            path, ", ".join(files), f"no {', '.join(missing)}",
            "The three files of a detector belong together.",
        )  # fmt: skip
    weights, yml, definition = files
    return Bundle(definition, weights, *_read_yml(yml))


def exists(path):
    """Whether all files of a detector are there; `path` as in `load`."""
    return all(os.path.isfile(file) for file in _files(path))


def _files(path):
    stem = os.fspath(path)
    for ending in _ENDINGS:
        if stem.endswith(f".{ending}"):
            stem = stem.removesuffix(f".{ending}")
            break
    return [f"{stem}.{ending}" for ending in _ENDINGS]


def _check_fit(stem, net, definition, classes):
    wanted = {layer.name for layer in definition.layer if parameter_count(layer)}
    lacking = sorted(wanted - set(net.params))
    if lacking:
        raise NetError(f"detector {stem}", "a net with all its layers", f"no {', '.join(lacking)}")
    for layer in find_roles(definition).cls_score:
        scores = predictor(layer).num_output
        if scores != len(classes):
            raise NetError(
                f"detector {stem}, layer {layer.name!r}", f"{len(classes)} scores, one for each "
                "class and the background", f"{scores}", "Adapt the definition to the classes.",
            )  # fmt: skip


def _checked_classes(classes, where):
    good = all(isinstance(name, str) and name for name in classes)
    if not good or len(classes) < 2 or classes[0] != BACKGROUND or len(set(classes)) < len(classes):
        raise ModelFileError(
            where, f"different class names in text, the first of them {BACKGROUND}", f"{classes}"
        )
    return tuple(classes)


def _yml(classes, cfg):
    import yaml

    content = {"classes": list(classes), "config": config.to_dict(cfg)}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _read_yml(path):
    import yaml

    data = read_limited(path, "a detector's class names and config (.yml)", _MAX_YML_BYTES)
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ModelFileError(path, "YAML", " ".join(str(e).split())) from None
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise ModelFileError(path, "a mapping with classes and config", "another kind of file")
    cfg = config.merge(config.Config(), content.get("config") or {}, path)
    return _checked_classes(content["classes"], path), cfg


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
