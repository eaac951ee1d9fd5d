"""Python: layers written by the user, found by module and class name."""

import contextlib
import importlib
import os
import sys

from ..engine.blob import BlobVec
from ..engine.errors import DemitasseError, LayerError
from ..engine.layer import Layer, register

ENVIRONMENT_VARIABLE = "CAFFE_ALLOW_PYTHON_LAYERS"
_allowed = set()
# Module names of py-faster-rcnn and others that resolve to a module of ours: name -> module.
module_aliases = {
    "rpn.anchor_target_layer": f"{__package__}.anchor_target",
    "rpn.proposal_layer": f"{__package__}.proposal",
    "rpn.proposal_target_layer": f"{__package__}.proposal_target",
    "roi_data_layer.layer": f"{__package__}.roi_data",
}


def allow_python_layers(*modules):
    """Let prototxt files import these modules (and what is in them) for `type: "Python"` layers.

    A prototxt is untrusted input, so a module that the program has not imported itself must be
    allowed by name: here, by `--allow-python-layer`, or in CAFFE_ALLOW_PYTHON_LAYERS (separated
    by commas or colons).
    """
    _allowed.update(modules)


# ---- the user's side


class PythonLayer(Layer):
    """The base class of users' layers: `caffe.Layer`.

    Subclasses define `setup`, `reshape`, `forward` and `backward`, of which only `forward` must be
    there, and `backward` if a gradient is asked for. Beside what every layer has, pycaffe's names
    are there: `param_str` (and fast-rcnn's `param_str_`), `phase`, `self.blobs.add_blob(*shape)`.
    """

    def __init__(self, param, *args, **kwargs):
        super().__init__(param, *args, **kwargs)
        self.param_str = self.param_str_ = param.python_param.param_str
        self.__where = _where(param)

    def forward(self, bottom, top):
        """Compute the tops' values from the bottoms'; subclasses must."""
        raise LayerError(
            self.__where, "a method forward(self, bottom, top)", f"none in {type(self)}"
        )

    def backward(self, top, propagate_down, bottom):
        """Compute the bottoms' gradients; subclasses must if one is asked for."""
        # NOTE: Caffe fails on a missing backward even if there is nothing to compute.
        if any(propagate_down) or self.blobs:
            raise LayerError(
                self.__where, "a method backward(self, top, propagate_down, bottom)",
                f"none in {type(self)}",
                "Define it, or stop the gradient with `propagate_down: false` in the prototxt.",
            )  # fmt: skip


@register("Python")
class PythonLayerFactory(Layer):
    """Resolves `python_param { module layer }` to the user's class (Caffe: PythonLayer)."""

    @classmethod
    def create(cls, param, context, device, dtype):
        names = param.python_param
        folder = context.folder if context is not None else None
        user_class = find_class(names.module, names.layer, _where(param), folder)
        if not issubclass(user_class, PythonLayer):
            return user_class(param, context, device, dtype)
        with _noted(f"in making {_where(param)}"):
            # In Caffe's way the only argument is the parameter: users override __init__.
            layer = user_class(param)
        if not isinstance(getattr(layer, "blobs", None), BlobVec):
            raise LayerError(
                _where(param), f"{user_class}.__init__ to call super().__init__(param)", "no call"
            )
        layer.context, layer.device, layer.dtype = context, device, dtype
        layer.blobs.attach(dtype, device)
        return layer


def _where(param):
    return f"layer {param.name!r} (Python)"


@contextlib.contextmanager
def _noted(note):
    """Adds a note to exceptions of users' code."""
    try:
        yield
    except DemitasseError:
        raise
    except Exception as e:
        e.add_note(note)
        raise


# ---- finding it


def find_class(module_name, class_name, where, folder=None):
    """The layer class `class_name` of a module that is ours, imported already, or allowed.

    Args:
        where: how errors name the layer.
        folder: a folder (the prototxt's) where a module that is nowhere on sys.path may lie.

    Raises:
        LayerError: the module is not allowed or not found, or has no such layer class.
    """
    if not class_name or not all(part.isidentifier() for part in module_name.split(".")):
        # The importer would take a name with slashes for a path.
        raise LayerError(
            where, 'python_param { module: "a.module" layer: "AClass" }',
            f"module {module_name!r}, layer {class_name!r}",
        )  # fmt: skip
    if not _is_allowed(module_name):
        if module_name not in module_aliases:
            raise LayerError(
                where, "a module that the program has imported or allowed", repr(module_name),
                f"If you trust it: caffe.allow_python_layers({module_name!r}), "
                f"--allow-python-layer {module_name}, or {ENVIRONMENT_VARIABLE}={module_name}.",
            )  # fmt: skip
        # Our own, under the name it is known by elsewhere; the user's counts first.
        module_name = module_aliases[module_name]
    module = sys.modules.get(module_name) or _import(module_name, where, folder)
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Layer)):
        what = "no such name" if found is None else f"{found!r}"
        raise LayerError(where, f"a subclass of caffe.Layer {module_name}.{class_name}", what)
    return found


def _is_allowed(module):
    if module in sys.modules:
        return True
    given = os.environ.get(ENVIRONMENT_VARIABLE, "").replace(",", ":").split(":")
    names = _allowed.union(n.strip() for n in given)
    parts = module.split(".")
    return any(".".join(parts[: k + 1]) in names for k in range(len(parts)))


def _import(module_name, where, folder):
    importlib.invalidate_caches()  # the file may be younger than the importer's last look
    try:
        with _searching(folder), _noted(f"in importing {module_name!r} for {where}"):
            return importlib.import_module(module_name)
    except ImportError as e:
        raise LayerError(
            where, f"to import {module_name!r}", f"{type(e).__name__}: {e}",
            "Put it beside the prototxt, or its folder on PYTHONPATH.",
        ) from e  # fmt: skip


@contextlib.contextmanager
def _searching(folder):
    """Has imports look into `folder` too: last, so that it cannot shadow what is installed."""
    if not folder:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        # Not pop(): the module may have changed the path itself.
        for k in reversed(range(len(sys.path))):
            if sys.path[k] == folder:
                del sys.path[k]
                break
