"""The networks there are to train: those in prototxt/, and folders of py-faster-rcnn's files."""

import os
from dataclasses import dataclass
from pathlib import Path

from .. import prototxt
from ..engine.errors import DataError, ModelFileError, closest
from ..engine.prototxt import read_net, read_solver
from ..solvers.nets import find_file

ONE_FILE = "faster_rcnn.prototxt"
"""The name of a definition that holds a network in all its stages."""

METHODS = {
    "alt_opt": ("stage1_rpn", "stage1_fast_rcnn", "stage2_rpn", "stage2_fast_rcnn"),
    "end2end": ("end2end",),
    "fast_rcnn": ("fast_rcnn",),
    "rpn": ("rpn",),
}
"""How a detector is trained, and the stages of training of each."""

STAGES = {"rpn": ("rpn",), "fast_rcnn": ("fast_rcnn",), "end2end": ("rpn", "fast_rcnn")}
"""What is trained in a stage, and Caffe's stages that select it in a definition of ours."""

_FROZEN = {  # the first layers need no training after ImageNet's or crops' (Fast R-CNN, 4.5)
    "vgg16": ("conv1_1", "conv1_2", "conv2_1", "conv2_2"),
    "vgg_cnn_m_1024": ("conv1",),
    "caffenet": ("conv1",),
    "squeezenet": ("conv1",),
}
_PY_FASTER_RCNN = "py-faster-rcnn's data/scripts/fetch_imagenet_models.sh"
_PRETRAINED = {
    "vgg16": ("VGG16.v2.caffemodel", _PY_FASTER_RCNN),
    "zf": ("ZF.v2.caffemodel", _PY_FASTER_RCNN),
    "vgg_cnn_m_1024": ("VGG_CNN_M_1024.v2.caffemodel", _PY_FASTER_RCNN),
    "caffenet": ("CaffeNet.v2.caffemodel", "Fast R-CNN's data/scripts/fetch_imagenet_models.sh"),
    "squeezenet": (
        "squeezenet_v1.0.caffemodel", "SqueezeNet_v1.0/ of github.com/forresti/SqueezeNet"
    ),
}  # fmt: skip
"""The file of each network's ImageNet weights, and where it comes from."""

_METHOD_FOLDERS = {
    "alt_opt": "faster_rcnn_alt_opt", "rpn": "faster_rcnn_alt_opt",
    "end2end": "faster_rcnn_end2end", "fast_rcnn": "fast_rcnn",
}  # fmt: skip


@dataclass(frozen=True)
class Definition:
    """A net: the path of its prototxt, and Caffe's stages that it is opened in."""

    path: str
    stages: tuple = ()

    @property
    def folder(self):
        """The folder of the prototxt, where other files that it names are looked for."""
        return os.path.dirname(os.path.abspath(self.path))


@dataclass(frozen=True)
class TrainingStage:
    """One stage of training.

    Attributes:
        name: "stage1_rpn" to "stage2_fast_rcnn" for alt_opt, else as `kind`.
        kind: what is trained: "rpn", "fast_rcnn" or "end2end".
        net: its `Definition`.
        solver: the path of the solver file.
    """

    name: str
    kind: str
    net: Definition
    solver: str


@dataclass(frozen=True)
class Network:
    """All files of one network and method.

    Attributes:
        name: of the network: a folder in prototxt/, or the folder that was given.
        method: a key of METHODS.
        training: its `TrainingStage`s, in order.
        test: the `Definition` of the detector; for "rpn" that of the RPN alone.
        rpn_test: the `Definition` that proposes regions, or None for "fast_rcnn", "end2end" of
            py-faster-rcnn.
        freezes: whether the schedule freezes layers. py-faster-rcnn's files say themselves which.
        frozen: layers that do not learn where training begins with weights, or pretrained ones.
    """

    name: str
    method: str
    training: tuple
    test: Definition
    rpn_test: Definition | None
    freezes: bool
    frozen: tuple = ()


def names():
    """The networks in prototxt/ that there are detectors of, sorted."""
    return sorted(p.parent.name for p in prototxt.FOLDER.glob(f"*/{ONE_FILE}"))


def find(net, method, solvers=()):
    """The files of a network.

    Args:
        net: a name of `names()` in any case; a folder that holds faster_rcnn.prototxt and solver
            files as those in prototxt/ do, or the path of such a definition; or a folder of
            py-faster-rcnn's files for one network, such as models/pascal_voc/VGG16.
        method: a key of METHODS.
        solvers: solver files in place of those that lie there, which need not lie there then: one,
            or one a stage. The nets that they name are not looked at.

    Returns: a `Network`.
    Raises: ModelFileError for an unknown name (with those there are) and for missing files;
        DataError for another number of solver files.
    """
    solvers = _one_a_stage(solvers, method)
    name = os.fspath(net)
    if name.lower() in names():
        folder = prototxt.FOLDER / name.lower()
        return _one_file(folder / ONE_FILE, method, solvers)
    path = Path(name)
    if path.is_file():
        return _one_file(path, method, solvers)
    if (path / ONE_FILE).is_file():
        return _one_file(path / ONE_FILE, method, solvers)
    if path.is_dir():
        return _py_faster_rcnn(path, method, solvers)
    raise ModelFileError(
        "network", f"one of {', '.join(names())}, or a folder of definitions", repr(name),
        closest(name, names()),
    )  # fmt: skip


def find_by_solvers(solvers, method):
    """The files of the network that solver files name in `net` or `train_net`.

    That is one definition with all stages; or as in py-faster-rcnn one of a single stage, beside
    which the nets for use lie, so that each stage needs a solver file of its own.

    Args: solvers: paths, one, or one a stage; method: a key of METHODS.
    Returns: a `Network`.
    Raises: SolverError if the net that a solver file names is not found; ModelFileError if it
        names none, and for missing files; DataError for another number of solver files.
    """
    nets = [_net_of(path) for path in solvers]
    if any(map(_has_stages, nets)):
        if len(set(nets)) > 1:
            raise DataError("--solver", "files that name the same net", " and ".join(nets))
        return _one_file(Path(nets[0]), method, _one_a_stage(solvers, method))
    count = len(METHODS[method])
    if len(solvers) != count:
        raise DataError(
            "--solver", f"{count} files, one a stage, because {nets[0]} is the net of one",
            f"{len(solvers)}", "Or name the network with --net.",
        )  # fmt: skip
    return _py_faster_rcnn(Path(nets[0]).parent, method, solvers, nets)


def _one_a_stage(solvers, method):
    """Solver files, one for each stage; None where there are none."""
    if method not in METHODS:
        raise ModelFileError(
            "method", f"one of {', '.join(METHODS)}", repr(method), closest(str(method), METHODS)
        )
    count = len(METHODS[method])
    if len(solvers) not in (0, 1, count):
        raise DataError("--solver", f"one file, or {count}, one a stage", f"{len(solvers)}")
    if len(solvers) == count:
        return list(solvers)
    return [solvers[0] if solvers else None] * count


def _net_of(solver):
    """The absolute path of the net that a solver file trains."""
    param = read_solver(solver)
    fields = ("net", "train_net", "net_param", "train_net_param")
    given = [field for field in fields if param.HasField(field)]
    if given not in (["net"], ["train_net"]):
        raise ModelFileError(
            solver, "one field net or train_net", " and ".join(given) or "none",
            "Write the path of the net there, or name the network with --net.",
        )  # fmt: skip
    (field,) = given
    folder = os.path.dirname(os.path.abspath(solver))
    return find_file(getattr(param, field), folder, f"{solver}, field {field}")


def _has_stages(path):
    """Whether a definition is one of ours, which holds a network in all its stages."""
    rules = (rule for layer in read_net(path).layer for rule in (*layer.include, *layer.exclude))
    return any({*rule.stage, *rule.not_stage} & {"rpn", "fast_rcnn"} for rule in rules)


def _one_file(path, method, solvers):
    folder, name = path.parent, path.resolve().parent.name
    training = []
    for stage, solver in zip(METHODS[method], solvers):
        kind = _kind(stage)
        solver = solver or _existing(
            folder / f"{kind}_solver.prototxt", f"the solver file of {kind}"
        )
        training.append(TrainingStage(stage, kind, Definition(str(path), STAGES[kind]), solver))
    used = {"rpn": "rpn", "fast_rcnn": "fast_rcnn"}.get(method, "end2end")
    return Network(
        name, method, tuple(training),
        test=Definition(str(path), STAGES[used]),
        rpn_test=None if method == "fast_rcnn" else Definition(str(path), STAGES["rpn"]),
        freezes=True, frozen=_FROZEN.get(name, ()),
    )  # fmt: skip


def _kind(stage):
    return stage.removeprefix("stage1_").removeprefix("stage2_")


def _existing(path, what):
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*") if p.is_file()))
        hint = f"In the folder there are: {there}." if there else ""
        raise ModelFileError(path, what, "no such file", hint)
    return str(path)


# ---- py-faster-rcnn's files: one a stage, which also say what is frozen


def _py_faster_rcnn(folder, method, solvers, nets=None):
    """Args: nets: those to train, one a stage; without, those of the usual names."""
    inner = folder / _METHOD_FOLDERS[method]
    place = inner if nets is None and inner.is_dir() else folder
    nets = nets or [None] * len(solvers)
    if _METHOD_FOLDERS[method] == "faster_rcnn_alt_opt":
        stages = METHODS[method] if method == "alt_opt" else ("stage1_rpn",)
        training = [
            _alt_opt_stage(place, stage, method, *files)
            for stage, *files in zip(stages, solvers, nets)
        ]
        rpn_test = Definition(_existing(place / "rpn_test.pt", "the RPN for use"))
        test = rpn_test
        if method == "alt_opt":
            test = Definition(_existing(place / "faster_rcnn_test.pt", "the detector for use"))
    else:
        net = nets[0] or _existing(place / "train.prototxt", "the net to train")
        solver = solvers[0] or _existing(place / "solver.prototxt", "its solver file")
        training = [TrainingStage(method, method, Definition(net), solver)]
        test = Definition(_existing(place / "test.prototxt", "the detector for use"))
        rpn_test = None
    # Of a folder for one method, such as a solver file names, the network is the one around it.
    own = folder.resolve()
    name = own.parent if own.name in _METHOD_FOLDERS.values() else folder
    return Network(str(name), method, tuple(training), test, rpn_test, freezes=False)


def _alt_opt_stage(folder, stage, method, solver, net):
    net = net or _existing(folder / f"{stage}_train.pt", f"the net of {stage}")
    if solver is None:
        solvers = sorted(folder.glob(f"{stage}_solver*.pt"))
        if len(solvers) != 1:
            found = ", ".join(p.name for p in solvers) or "none"
            raise ModelFileError(folder, f"one solver file {stage}_solver*.pt", found)
        solver = str(solvers[0])
    name = stage if method == "alt_opt" else _kind(stage)
    return TrainingStage(name, _kind(stage), Definition(net), solver)


# ---- ImageNet weights


def pretrained(name, data_dir="data"):
    """The path of a network's ImageNet weights, which lie in data_dir/imagenet_models.

    Args: name: of a built-in network, in any case, or a folder of that name or within it.
    Raises: DataError if they are not there: says which file, and where to get it.
    """
    parts = [part.lower() for part in reversed(Path(name).resolve().parts)]
    key = next((part for part in parts if part in _PRETRAINED), None)
    folder = Path(data_dir) / "imagenet_models"
    if key is None:
        raise DataError(
            f"ImageNet weights of {name}", "the path of a .caffemodel", "none",
            f"Give it; those of {', '.join(sorted(_PRETRAINED))} are known by name.",
        )  # fmt: skip
    file, source = _PRETRAINED[key]
    path = folder / file
    if not path.is_file():
        raise DataError(
            f"ImageNet weights of {name}", f"{path}", "no such file",
            f"It comes from {source}. Or give the path of weights, or begin without any.",
        )  # fmt: skip
    return str(path)
