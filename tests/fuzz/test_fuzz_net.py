"""Random nets, sound and broken, built and run: they work or say what is wrong."""

import contextlib
import faulthandler
import logging
import random

import numpy as np
import pytest
from fuzzing import fuzz
from hypothesis import note
from hypothesis import strategies as st

import demitasse.engine.blob
from demitasse.engine.context import Context
from demitasse.engine.errors import DemitasseError
from demitasse.engine.layer import layer_class, layer_types
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

EXAMPLES = 150
MAX_ELEMENTS = 100_000  # of a blob, in place of the engine's own limit
MAX_MEMORY = 3 * 2**30  # address space that the whole run may take beyond what there is
MAX_SECONDS = 100  # for one net; the first ones compile kernels

FIELDS = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
TYPES = [t for t in layer_types() if t != "Split"]
OTHER_PARAM = {
    "Deconvolution": "convolution_param", "Im2col": "convolution_param",
    "LSTM": "recurrent_param", "RNN": "recurrent_param", "SoftmaxWithLoss": "softmax_param",
}  # fmt: skip
# What a layer of the type cannot do without.
NEEDED = {
    "AnchorTarget": 'python_param { param_str: "feat_stride: 16" }',
    "Clip": "clip_param { min: -1 max: 1 }",
    "Convolution": "convolution_param { num_output: 2 kernel_size: 1 }",
    "Crop": "crop_param { axis: 1 }",
    "Deconvolution": "convolution_param { num_output: 2 kernel_size: 2 stride: 2 }",
    "DummyData": "dummy_data_param { shape { dim: 2 dim: 3 } }",
    "Embed": "embed_param { num_output: 2 input_dim: 3 }",
    "Im2col": "convolution_param { kernel_size: 2 }",
    "InnerProduct": "inner_product_param { num_output: 2 }",
    "Input": "input_param { shape { dim: 2 dim: 3 } }",
    "LSTM": "recurrent_param { num_output: 2 }",
    "MemoryData": "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 4 }",
    "Parameter": "parameter_param { shape { dim: 2 dim: 3 } }",
    "Pooling": "pooling_param { kernel_size: 2 }",
    "Proposal": 'python_param { param_str: "{feat_stride: 16, RPN_MIN_SIZE: 0}" }',
    "ProposalTarget": 'python_param { param_str: "num_classes: 3" }',
    "RNN": "recurrent_param { num_output: 2 }",
    "ROIPooling": "roi_pooling_param { pooled_h: 2 pooled_w: 2 }",
    "Reshape": "reshape_param { shape { dim: 0 dim: -1 } }",
    "SPP": "spp_param { pyramid_height: 2 }",
    "Tile": "tile_param { tiles: 2 }",
}
IMAGES = [(2, 3, 6, 6)]
# Shapes of bottoms that go together.
FITTING = {
    "Accuracy": [(3, 4, 2), (3, 2)],
    "AnchorTarget": [(1, 18, 3, 2), (2, 5), (1, 3)],
    "BatchReindex": [(3, 2), (4,)],
    "Bias": [(2, 3, 4), (3,)],
    "ContrastiveLoss": [(3, 2), (3, 2), (3,)],
    "Convolution": IMAGES,
    "Crop": [(1, 2, 5, 5), (1, 2, 3, 3)],
    "Deconvolution": IMAGES,
    "Filter": [(3, 2), (3,)],
    "HDF5Output": [(3, 2), (3,)],
    "HingeLoss": [(3, 4), (3,)],
    "Im2col": IMAGES,
    "InfogainLoss": [(2, 3), (2,), (3, 3)],
    "InnerProduct": IMAGES,
    "LRN": IMAGES,
    "LSTM": [(3, 2, 4), (3, 2)],
    "LSTMUnit": [(1, 2, 3), (1, 2, 12), (1, 2)],
    "MVN": IMAGES,
    "MultinomialLogisticLoss": [(3, 4), (3,)],
    "PReLU": IMAGES,
    "Pooling": IMAGES,
    "Proposal": [(1, 18, 3, 2), (1, 36, 3, 2), (1, 3)],
    "ProposalTarget": [(4, 5), (2, 5)],
    "RNN": [(3, 2, 4), (3, 2), (2, 3)],
    "ROIPooling": [(2, 3, 6, 6), (4, 5)],
    "Scale": [(2, 3, 4), (3,)],
    "Slice": [(2, 4)],
    "SmoothL1Loss": [(3, 4)] * 4,
    "SPP": IMAGES,
    "Softmax": [(2, 4, 3)],
    "SoftmaxWithLoss": [(3, 4, 2), (3, 2)],
}
SHAPES = [(2, 3, 6, 6), (1, 2, 5, 5), (2, 3), (4, 2, 3), (2,), (3, 5), (1, 3, 2, 2), ()]

NUMBERS = {
    "int32": [0, 1, 1, 2, 2, 3, 5, -1, -2, 2**31 - 1, -(2**31)],
    "uint32": [0, 1, 1, 2, 2, 3, 5, 7, 2**31, 2**32 - 1],
    "int64": [0, 1, 1, 2, 2, 3, 5, -1, -2, 2**40, 2**63 - 1],
    "float": [0.0, 0.5, 1.0, 1.0, 2.0, -1.0, 1e-5, 1e30, float("inf"), float("nan")],
}
NUMBER_KINDS = {1: "int32", 2: "int64", 3: "uint32", 4: "int64", 5: "float", 6: "float"}
FILLERS = ["constant", "uniform", "gaussian", "xavier", "msra", "bilinear", "positive_unitball"]
TEXTS = ["", "x", "no/such/file", *FILLERS]


# ---- random nets


def chance(rng, one_in):
    return rng.randrange(one_in) == 0


def value(rng, field):
    """A value for a field that is not a message."""
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if field.cpp_type == field.CPPTYPE_STRING:
        return rng.choice(TEXTS)
    return rng.choice(NUMBERS[NUMBER_KINDS[field.cpp_type]])


def vary(rng, message, depth=0):
    """Set one or two fields of a message to what may or may not make sense."""
    for field in rng.choices(list(message.DESCRIPTOR.fields), k=rng.randint(1, 2)):
        old = getattr(message, field.name)
        repeated = hasattr(old, "extend")
        for _ in range(rng.randint(1, 3) if repeated else 1):
            if field.cpp_type == field.CPPTYPE_MESSAGE:
                inner = old.add() if repeated else old
                inner.SetInParent()
                if depth < 2:
                    vary(rng, inner, depth + 1)
            elif repeated:
                old.append(value(rng, field))
            else:
                setattr(message, field.name, value(rng, field))


def vary_common(rng, layer):
    """Rules, weights and flags that any layer may have."""
    for _ in range(rng.randint(0, 2)):
        layer.loss_weight.append(rng.choice(NUMBERS["float"]))
        layer.propagate_down.append(rng.random() < 0.5)
        layer.param.add(lr_mult=rng.choice([0, 1]), name=rng.choice("ab"))
    if chance(rng, 2):
        vary(rng, rng.choice([layer.include, layer.exclude]).add(), 1)


def param_fields(kind):
    """The LayerParameter fields that a layer type reads."""
    own = OTHER_PARAM.get(kind)
    names = [own] if own else [n for n in FIELDS if n.replace("_", "") == kind.lower() + "param"]
    names += ["loss_param"] if kind.endswith("Loss") else []
    names += ["transform_param"] if kind.endswith("Data") else []
    return names


def number_of(rng, cls, what):
    """How many bottoms or tops a layer gets: mostly as many as its class declares."""
    if chance(rng, 20):
        return rng.randint(0, 4)
    exact = getattr(cls, f"num_{what}")
    if exact is not None:
        return exact
    least, most = getattr(cls, f"min_{what}") or 0, getattr(cls, f"max_{what}")
    return rng.randint(least, least + 2 if most is None else most)


def random_layer(rng, name, kind, bottoms):
    """A layer of a type, with the given bottoms or numbers, for `connect` to choose blobs by."""
    layer = parse_text(NEEDED.get(kind, ""), caffe_pb2.LayerParameter, "needed")
    layer.name, layer.type = name, kind
    cls = layer_class(kind)
    if not bottoms:
        bottoms = [str(rng.randrange(1000)) for _ in range(number_of(rng, cls, "bottom"))]
    layer.bottom.extend(bottoms)
    tops = len(bottoms) if cls.equal_counts else number_of(rng, cls, "top")
    for k in range(tops):
        in_place = k < len(bottoms) and chance(rng, 8)
        layer.top.append(bottoms[k] if in_place else f"{name}_{k}")
    for field in param_fields(kind):
        if chance(rng, 2):
            vary(rng, getattr(layer, field))
    if chance(rng, 8):
        vary_common(rng, layer)
    return layer


def add_input(net, name, shapes):
    layer = net.layer.add(name=name, type="Input")
    for k, shape in enumerate(shapes):
        layer.top.append(f"{name}_{k}")
        layer.input_param.shape.add(dim=shape)
    return list(layer.top)


def random_net(seed):
    """A NetParameter of an Input layer and up to six others, some with inputs of their own."""
    rng = random.Random(seed)
    net = caffe_pb2.NetParameter(force_backward=rng.random() < 0.5, debug_info=chance(rng, 10))
    odd = tuple(rng.randint(0, 4) for _ in range(rng.randint(0, 5)))
    add_input(net, "in", [rng.choice([*SHAPES, odd]) for _ in range(rng.randint(1, 4))])
    for k in range(rng.randint(1, 6)):
        kind = rng.choice(TYPES)
        bottoms = []
        if kind in FITTING and not chance(rng, 3):
            bottoms = add_input(net, f"in{k}", FITTING[kind])
            bottoms = bottoms[: layer_class(kind).num_bottom]
        net.layer.append(random_layer(rng, f"layer{k}", kind, bottoms))
    return net


# ---- building and running them


def connect(layer, net):
    """A copy of `layer` with blobs of `net` for the numbers that its bottoms are.

    An even number chooses among the blobs that have the shape of the first bottom.
    """
    blobs = [n for n in net.blobs if "_split" not in n and n != "(automatic)"]
    names = {}
    for number in (b for b in layer.bottom if b.isdigit()):
        k, among = int(number), blobs
        if names and k % 2 == 0:
            shape = net.blobs[next(iter(names.values()))].shape
            among = [n for n in blobs if net.blobs[n].shape == shape]
        names.setdefault(number, among[k % len(among)])
    out = caffe_pb2.LayerParameter()
    out.CopyFrom(layer)
    out.bottom[:] = [names.get(b, b) for b in layer.bottom]
    out.top[:] = [names.get(t, t) for t in layer.top]
    return out


def build(param, phase, seed):
    """A net of all layers of `param` that fit; those that do not must say so."""
    good = caffe_pb2.NetParameter()
    good.CopyFrom(param)
    del good.layer[1:]
    net = Net(good, phase, context=Context(seed))
    for layer in param.layer[1:]:
        more = caffe_pb2.NetParameter()
        more.CopyFrom(good)
        more.layer.append(connect(layer, net))
        try:
            net = Net(more, phase, context=Context(seed))
            good = more
        except DemitasseError as e:
            assert str(e)
    return net


def run(param, phase, seed):
    """Build a net, run it both ways, and once more with another batch size."""
    net = build(param, phase, seed)
    note(str(net.to_proto()))
    rng = np.random.default_rng(seed)
    for _ in range(2):
        for name in net.inputs:
            blob = net.blobs[name]
            values = rng.integers(-1, 3, blob.shape) if seed % 2 else rng.normal(size=blob.shape)
            blob.data[...] = values
        net.forward()
        for name in net.outputs:
            net.blobs[name].diff[...] = 1
        net.backward()
        for name in net.inputs:
            shape = net.blobs[name].shape
            net.blobs[name].reshape(*(d + 1 if i == 0 else d for i, d in enumerate(shape)))
        net.reshape()


def check(seed, phase):
    # A hang inside a kernel can only be ended from outside: with a traceback of where.
    faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
    try:
        with np.errstate(all="ignore"):
            run(random_net(seed), phase, seed)
    except DemitasseError as e:
        assert str(e)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def limits(monkeypatch, tmp_path):
    """Blobs of few elements, a limited address space, and an empty folder to work in."""
    resource = pytest.importorskip("resource")
    logging.getLogger("demitasse").setLevel(logging.ERROR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demitasse.engine.blob, "MAX_COUNT", MAX_ELEMENTS)
    old = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)
    logging.getLogger("demitasse").setLevel(logging.NOTSET)


def test_random_nets_work_or_say_what_is_wrong(limits):
    phases = st.sampled_from([caffe_pb2.TRAIN, caffe_pb2.TEST])
    fuzz(check, EXAMPLES, seed=st.integers(0, 2**32), phase=phases)


def test_most_layer_types_of_random_nets_are_built(limits):
    """The grammar is worth something only if layers are often sound."""
    built = set()
    for seed in range(150):
        with contextlib.suppress(DemitasseError):
            built.update(n.type for n in build(random_net(seed), caffe_pb2.TEST, 1).nodes)
    assert len(built) > 0.7 * len(TYPES), sorted(set(TYPES) - built)
