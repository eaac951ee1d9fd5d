"""Nets written in Python (pycaffe: net_spec).

    n = caffe.NetSpec()
    n.data, n.label = L.Data(source="train_lmdb", backend=P.Data.LMDB, batch_size=64, ntop=2)
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.loss = L.SoftmaxWithLoss(n.relu1, n.label)
    print(n.to_proto())

`layers` (L) has a function for every layer type: its arguments are the layer's bottoms, its
keywords the fields of the layer's own parameter message or of LayerParameter, its result the
layer's tops. `params` (P) has the enum values of the parameter messages.
"""

from collections import Counter, OrderedDict

from demitasse.engine.errors import closest

from .proto import caffe_pb2
from .proto_fields import NetSpecError, assign_proto, param_name_dict

_param_names = param_name_dict()


class UnknownTopError(NetSpecError, KeyError):
    """A name that no top of a NetSpec has."""

    __str__ = Exception.__str__  # KeyError's would put the message in quotes


class Top:
    """One output blob: top number `n` of the layer `fn`."""

    def __init__(self, fn, n):
        self.fn = fn
        self.n = n

    def to_proto(self):
        """The NetParameter of all layers needed to compute this top."""
        return to_proto(self)

    def _update(self, params):
        self.fn._update(params)


class Function:
    """A layer: its type, its inputs (tops of other layers) and its parameters.

    The keywords `ntop` (number of tops, default 1) and `in_place` are the specification's own;
    all others are fields of messages.
    """

    def __init__(self, type_name, inputs, params):
        for index, top in enumerate(inputs):
            if not isinstance(top, Top):
                # In pycaffe's words, which programs may look for.
                error = NetSpecError(
                    f"{type_name} input {index} is not a Top (type is {type(top)})"
                )
                if isinstance(top, tuple):
                    error.add_note("A layer with several tops returns a tuple: pass one of them.")
                raise error
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(params)
        self.ntop = self.params.pop("ntop", 1)
        self.in_place = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def to_proto(self):
        """The NetParameter of this layer and all layers it needs (for layers without a top)."""
        return to_proto(self)

    def _update(self, params):
        self.params.update(params)

    def _layer_param(self, layers, names, autonames):
        """This layer's LayerParameter; `layers` holds those of its inputs' layers."""
        layer = caffe_pb2.LayerParameter(type=self.type_name)
        layer.bottom.extend(layers[top.fn].top[top.n] for top in self.inputs)
        if self.in_place:
            layer.top.extend(layer.bottom)
        else:
            layer.top.extend(_name(top, self.type_name, names, autonames) for top in self.tops)
        # A layer is called after its first top; one without tops after itself.
        if self.tops and self not in names:
            names[self] = _name(self.tops[0], self.type_name, names, autonames)
        layer.name = _name(self, self.type_name, names, autonames)
        self._assign_params(layer)
        return layer

    def _assign_params(self, layer):
        own = getattr(layer, _param_names.get(self.type_name, "") + "_param", None)
        where = f"layer {layer.name!r} ({self.type_name})"
        for key, val in self.params.items():
            if own is not None and not key.endswith("param") and _has_field(own, key):
                assign_proto(own, key, val, where)
            elif _has_field(layer, key):
                assign_proto(layer, key, val, where)
            else:
                self._reject(key, own, layer, where)

    def _reject(self, key, own, layer, where):
        """Say what else the unknown keyword `key` could be."""
        messages = [
            field.name
            for field in layer.DESCRIPTOR.fields
            if field.message_type and key in field.message_type.fields_by_name
        ]
        known = [field.name for message in (own, layer) if message for field in _fields(message)]
        hint = closest(key, known)
        if messages and own is None:
            hint = f"It is a field of {', '.join(messages)}: {messages[0]}=dict({key}=...)."
        kinds = " or ".join(m.DESCRIPTOR.name for m in (own, layer) if m is not None)
        raise NetSpecError(where, f"a field of {kinds}", repr(key), hint)


def _fields(message):
    return message.DESCRIPTOR.fields


def _has_field(message, name):
    return name in message.DESCRIPTOR.fields_by_name


def _name(item, type_name, names, autonames):
    """The name of a top or function, made up (ReLU1, ReLU2, ...) if nobody gave it one."""
    if item not in names:
        autonames[type_name] += 1
        names[item] = f"{type_name}{autonames[type_name]}"
    return names[item]


def _inputs_first(function, done):
    """The functions that `function` needs, and itself, each after its inputs' functions and
    without those in `done`. A loop, not a recursion: nets may be thousands of layers deep."""
    order, seen = [], set(done)
    stack = [(function, False)]
    while stack:
        fn, inputs_done = stack.pop()
        if fn in seen:
            continue
        if inputs_done:
            seen.add(fn)
            order.append(fn)
        else:
            stack.append((fn, True))
            stack += [(top.fn, False) for top in reversed(fn.inputs)]
    return order


def _net_param(ends, names):
    """The NetParameter of the layers needed for `ends` (tops and functions)."""
    layers, autonames = OrderedDict(), Counter()
    for end in ends:
        for fn in _inputs_first(end.fn if isinstance(end, Top) else end, layers):
            layers[fn] = fn._layer_param(layers, names, autonames)
    net = caffe_pb2.NetParameter()
    net.layer.extend(layers.values())
    return net


def to_proto(*tops):
    """The NetParameter of all layers needed to compute `tops`, with automatic names."""
    return _net_param(tops, {})


class NetSpec:
    """A net under construction: named tops, set as attributes or items.

    `to_proto` gives the NetParameter of all layers that the named tops need; a layer is called
    after its first top, and tops without a name get automatic ones.
    """

    def __init__(self):
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name, value):
        if not isinstance(value, (Top, Function)):
            hint = ""
            if isinstance(value, tuple):
                hint = f"Unpack the {len(value)} tops: n.a, n.b = ..."
            raise NetSpecError(f"NetSpec.{name}", "a Top", type(value).__name__, hint)
        self.tops[name] = value

    def __getattr__(self, name):
        if name == "tops":  # only while being copied, before __init__'s work is there
            raise AttributeError(name)
        try:
            return self.tops[name]
        except KeyError:
            raise UnknownTopError(
                "NetSpec", "the name of a top", repr(name), closest(name, self.tops)
            ) from None

    def __delattr__(self, name):
        getattr(self, name)
        del self.tops[name]

    __setitem__ = __setattr__
    __getitem__ = __getattr__
    __delitem__ = __delattr__

    def __contains__(self, name):
        return name in self.tops

    def keys(self):
        """The names of the tops."""
        return list(self.tops)

    def vals(self):
        """The tops."""
        return list(self.tops.values())

    def update(self, name, params):
        """Change keywords of the layer that makes the top `name`."""
        self[name]._update(params)

    def to_proto(self):
        """The NetParameter of all layers needed to compute the named tops."""
        names = {top: name for name, top in self.tops.items()}
        return _net_param(self.tops.values(), names)


class Layers:
    """`layers.Convolution(bottom, kernel_size=3)`: the layer's top, a tuple of its tops if
    there are several, or the Function itself if there is none."""

    def __getattr__(self, type_name):
        if type_name.startswith("__"):
            raise AttributeError(type_name)

        def layer_fn(*inputs, **params):
            fn = Function(type_name, inputs, params)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        layer_fn.__name__ = type_name
        return layer_fn


class Parameters:
    """`params.Pooling.MAX`: enum values of the messages called <name>Parameter."""

    def __getattr__(self, name):
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            known = [
                m.removesuffix("Parameter") for m in vars(caffe_pb2) if m.endswith("Parameter")
            ]
            raise NetSpecError("params", "the name of a parameter message", repr(name),
                               closest(name, known))  # fmt: skip
        return _EnumValues(name, message)


class _EnumValues:
    def __init__(self, name, message):
        self._name, self._message = name, message

    def __getattr__(self, value_name):
        value = getattr(self._message, value_name, None)
        if value is None:
            values = self._message.DESCRIPTOR.enum_values_by_name
            hint = closest(value_name, values) or f"Its values: {', '.join(values)}."
            raise NetSpecError(f"params.{self._name}", "an enum value", repr(value_name), hint)
        return value


layers = Layers()
params = Parameters()
