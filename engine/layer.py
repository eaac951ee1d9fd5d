"""The base of all layers, built in or a user's own, and the registry of layer types."""

import importlib

from .blob import Blob, BlobVec
from .blobproto import blob_to_array
from .errors import LayerError, closest
from .fillers import check_filler, lazy_fill
from .phase import Phase

_registry = {}


def register(type_name):
    """Class decorator: make a layer type known under its prototxt name."""

    def add(cls):
        if type_name in _registry:
            raise LayerError(
                f"layer type {type_name!r}", "one class", f"{_registry[type_name]} and {cls}",
                "Register your own layer under another name.",
            )  # fmt: skip
        _registry[type_name] = cls
        cls.type_name = type_name
        return cls

    return add


def layer_types():
    """The sorted names of all registered layer types."""
    _load_built_ins()
    return sorted(_registry)


def layer_class(type_name, where="layer"):
    """The class registered for a layer type; an unknown type names the closest known ones."""
    _load_built_ins()
    try:
        return _registry[type_name]
    except KeyError:
        hint = closest(type_name, _registry) or f"Known types: {', '.join(sorted(_registry))}."
        raise LayerError(where, "a known layer type", repr(type_name), hint) from None


def assigns_gradients(node):
    """Whether backward of a `Node` surely writes the gradients asked for: all of ours do.

    A layer without `backward`, and a user's, may leave a gradient as it is, and mean zero.
    """
    package = f"{__package__.rpartition('.')[0]}.layers."
    kind = type(node.layer)
    ours = node.type != "Python" and kind.__module__.startswith(package)
    return ours and kind.backward is not Layer.backward


def _load_built_ins():
    # The built-ins register themselves when their package is imported; the engine knows the
    # package, not the layers.
    importlib.import_module("..layers", __package__)


class Layer:
    """One computation of a net, in four verbs that subclasses define:

    `setup(bottom, top)` once; `reshape(bottom, top)` before every forward pass, setting the
    shapes of the tops; `forward(bottom, top)`, which fills `top[i].array`;
    `backward(top, propagate_down, bottom)`, which assigns `bottom[i].grad` where
    `propagate_down[i]` and adds to the gradients of parameters in `self.blobs`.

    What the net checks and needs to know is declared as class attributes.
    """

    # Counts of bottoms and tops: exact, or bounds. None is no condition.
    num_bottom = None
    min_bottom = None
    max_bottom = None
    num_top = None
    min_top = None
    max_top = None
    equal_counts = False  # as many tops as bottoms
    in_place = True  # whether a top may be a bottom
    auto_top = False  # tops that the prototxt leaves out are made, unnamed
    is_loss = False  # the first top has a loss weight of 1 unless the prototxt says otherwise
    # Bottoms that even `force_backward` does not ask a gradient for (labels, indices).
    no_force_backward = ()
    # Whether `backward` may ever be called: the net clears it where its plan leaves a layer out,
    # so that `forward` need not keep what only `backward` reads.
    needs_backward = True
    fuses_relu = False  # there is `forward_relu`, which applies max(x, 0) to the tops as well
    # There is `backward_relu` for a bottom that is the result of a ReLU in place, whose gradient it
    # computes as well.
    fuses_relu_gradient = False
    is_scale = False  # the layer multiplies by learned coefficients
    is_plain_relu = False  # the layer computes max(x, 0) in place, and nothing else
    is_identity = False  # forward the layer gives out what it gets, one blob
    shares_bottom = False  # set by the net: the top of an identity is in the bottom's memory
    can_hold_bottoms = False  # the values of the bottoms may lie in the memory of the top's
    holds_bottoms = False  # set by the net: they may here
    _doubt = None  # (whether any check has failed, on the device; what was expected; hint)
    _stream = None  # the name that random numbers follow from, where it is not the layer's own
    # Whether the values of the tops come from the host alone, by `top.data` or `top.set_data`, or
    # from the user.
    writes_on_host = False
    # How often a pass over the layer waits for a GPU, at most, because its work cannot do without
    # numbers from there. Declared, so that a test finds any other wait (see transfers.py).
    synchronisations = 0
    state_blobs = ()  # blobs beside the parameters that a solver's snapshot must keep

    def __init__(self, param, context=None, device=None, dtype="float32"):
        """Args: `param`, a LayerParameter; the rest as in `Net`."""
        self.param = param
        self.name = param.name
        self.type = param.type
        self.phase = Phase(param.phase)
        self.context = context
        self.device = device
        self.dtype = dtype
        self.param_propagate_down = []
        self.blobs = BlobVec(self.param_propagate_down, dtype, device)

    @classmethod
    def create(cls, param, context, device, dtype):
        """The object that runs a LayerParameter of this type."""
        return cls(param, context, device, dtype)

    def setup(self, bottom, top):
        """Read parameters, make parameter blobs. Called once, before the first reshape."""

    def reshape(self, bottom, top):
        """Set the shapes of the tops from those of the bottoms, or say what does not fit."""

    def forward(self, bottom, top):
        """Compute the tops' values from the bottoms'."""

    def backward(self, top, propagate_down, bottom):
        """Compute the bottoms' gradients from the tops'."""

    def fuses_scale(self, scale):
        """Whether there is `forward_scale`, which does the work of a layer `scale` and a ReLU."""
        return False

    def folds_scale(self, scale):
        """Whether this and a layer `scale` only multiply and add what no gradient asks for."""
        return False

    def fuses_scale_gradient(self, scale):
        """Whether there is `backward_scale`, which begins with that of a layer `scale`."""
        return False

    def fuses_norm(self, norm, scale):
        """Whether there is `forward_norm`, which does the work of a BatchNorm and a Scale too."""
        return False

    # ---- services for subclasses

    def add_param(self, shape, filler=None):
        """Append a parameter blob, to be filled by a FillerParameter (zero without one).

        In Caffe's way, parameters given in the prototxt itself (`blobs { ... }`) count instead.
        The filler runs only when the values are first looked at: loading weights saves it.
        """
        index = len(self.blobs)
        blob = self._blob(shape)
        self.blobs.append(blob)
        self.param_propagate_down.append(True)
        if index < len(self.param.blobs):
            self._take_given_values(blob, index)
        elif filler is not None:
            where = f"{self._where()} parameter {index}"
            check_filler(filler, blob.shape, where)
            rng_key = ("fill", self._stream or self.name, index)
            blob.fill_data(lazy_fill(filler, blob.shape, self.context.random, rng_key))
        return blob

    def _take_given_values(self, blob, index):
        values = blob_to_array(self.param.blobs[index])
        if values.size != blob.count:
            raise self.error(
                f"blobs[{index}] of shape {blob.shape}", f"shape {values.shape}",
                "Correct the blobs in the prototxt or leave them out.",
            )  # fmt: skip
        blob.set_data(values)

    def _blob(self, shape=(0,)):
        """A blob of this layer's dtype and device, for parameters or intermediate results."""
        return Blob(shape, self.dtype, self.device)

    def axis_of(self, blob, axis):
        """The non-negative index of an axis given in a parameter, or this layer's error."""
        n = len(blob.shape)
        if not -n <= axis < n:
            raise self.error(f"an axis in [{-n}, {n - 1}] for bottom shape {blob.shape}", axis)
        return axis % n

    def random(self, *key):
        """A generator for this layer and this pass; further `key`s tell several apart."""
        name = self._stream or self.name
        return self.context.random.generator("layer", name, self.context.passes, *key)

    def random_key(self, *key):
        """(seed, stream) for kernels that compute the numbers of `random(*key)` themselves."""
        name = self._stream or self.name
        return self.context.random.key("layer", name, self.context.passes, *key)

    def refuse_gradient(self, propagate_down, index, what):
        """Raise if a gradient is asked for bottom `index`, called `what`, which has none."""
        if propagate_down[index]:
            flags = " ".join(
                f"propagate_down: {'true' if p and j != index else 'false'}"
                for j, p in enumerate(propagate_down)
            )
            raise self.error(
                f"no gradient to be asked for bottom {index} ({what})", "that one is",
                f"There is none. Write `{flags}` in this layer; if the net has force_backward, "
                "leave that out.",
            )  # fmt: skip

    def check(self, wrong, expected, found, hint=""):
        """Raise this layer's error if any of the booleans `wrong`, an array, is true.

        On a GPU nobody waits for the answer: the error comes when the net next reads numbers
        (`Net.check`), and until then the layer must do with wrong ones.

        Args: found: a function that says what was found; asked on the CPU alone.
        """
        if self.device.is_host:
            if wrong.any():
                raise self.error(expected, found(), hint)
            return
        wrong = wrong.any()
        if self._doubt is not None:
            wrong |= self._doubt[0]
        self._doubt = wrong, expected, hint

    def error(self, expected, found, hint=""):
        """The exception to raise when this layer cannot work with what it was given."""
        return LayerError(self._where(), expected, found, hint)

    def _where(self):
        return f"layer {self.name!r} ({self.type})"
