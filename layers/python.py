"""Python: layers written by the user, found by module and class name."""

import importlib
import os
import sys

from ..engine.errors import DemitasseError, LayerError
from ..engine.layer import Layer, register

ENVIRONMENT_VARIABLE = "CAFFE_ALLOW_PYTHON_LAYERS"
_allowed = set()
# Module names of py-faster-rcnn and others that resolve to a module of ours: name -> module.
module_aliases = {}


def allow_python_layers(*modules):
    """Let prototxt files import these modules (and what is in them) for `type: "Python"` layers.

    A prototxt is untrusted input, so a module that the program has not imported itself must be
    allowed by name: here, by `--allow-python-layer`, or in CAFFE_ALLOW_PYTHON_LAYERS (separated
    by commas or colons).
    """
    _allowed.update(modules)


def _is_allowed(module):
    if module in sys.modules:
        return True
    given = os.environ.get(ENVIRONMENT_VARIABLE, "").replace(",", ":").split(":")
    names = _allowed.union(n for n in given if n)
    parts = module.split(".")
    return any(".".join(parts[: k + 1]) in names for k in range(len(parts)))


class _ParamBlobs(list):
    """A layer's parameter blobs with pycaffe's `add_blob`."""

    def __init__(self, layer):
        super().__init__()
        self._layer = layer

    def add_blob(self, *shape):
        """Append a parameter blob of the given shape, filled with zeros."""
        return self._layer.add_param(shape)


class PythonLayer(Layer):
    """The base class of users' layers: `caffe.Layer`.

    Subclasses define the four verbs. Beside what every layer has, pycaffe's names are there:
    `param_str` (and fast-rcnn's `param_str_`), `phase`, and `self.blobs.add_blob(*shape)`.
    """

    def __init__(self, param, context=None, device=None, dtype="float32", *args, **kwargs):
        super().__init__(param, context, device, dtype)
        self.param_str = self.param_str_ = param.python_param.param_str
        self.blobs = _ParamBlobs(self)


@register("Python")
class PythonLayerFactory(Layer):
    """Resolves `python_param { module layer }` to the user's class (Caffe: PythonLayer)."""

    @classmethod
    def create(cls, param, context, device, dtype):
        where = f"layer {param.name!r} (Python)"
        user_class = find_class(param.python_param.module, param.python_param.layer, where)
        return user_class(param, context, device, dtype)


def find_class(module_name, class_name, where):
    """The layer class `class_name` of a module that is ours, imported already, or allowed."""
    if not module_name or not class_name:
        raise LayerError(
            where, "python_param { module: ... layer: ... }",
            f"module {module_name!r}, layer {class_name!r}",
        )  # fmt: skip
    module_name = _resolve(module_name)
    if not _is_allowed(module_name):
        raise LayerError(
            where, "a module that the program has imported or allowed", repr(module_name),
            f"If you trust it: caffe.allow_python_layers({module_name!r}), "
            f"--allow-python-layer {module_name}, or {ENVIRONMENT_VARIABLE}={module_name}.",
        )  # fmt: skip
    try:
        module = importlib.import_module(module_name)
    except DemitasseError:
        raise
    except ImportError as e:
        raise LayerError(
            where, f"to import {module_name!r}", f"{type(e).__name__}: {e}",
            "Put its folder on PYTHONPATH; the prototxt's own folder is looked in as well.",
        ) from e  # fmt: skip
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Layer)):
        what = "no such name" if found is None else f"{found!r}"
        raise LayerError(where, f"a subclass of caffe.Layer {module_name}.{class_name}", what)
    return found


def _resolve(module_name):
    """Our own module for a name it is known under elsewhere, unless the user has theirs."""
    if module_name in sys.modules or module_name in _allowed:
        return module_name
    return module_aliases.get(module_name, module_name)
