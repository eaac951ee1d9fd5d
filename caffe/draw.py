"""Pictures of a net's layers and blobs (pycaffe: draw). Needs pydot and, for pictures, Graphviz."""

import os

from demitasse.engine.errors import DemitasseError, NetError
from demitasse.engine.graph import included

from .proto import caffe_pb2

LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_COLORS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_LEARNING = ("Convolution", "Deconvolution", "InnerProduct")
_TEXT_FORMATS = ("raw", "dot", "gv")


class DrawError(DemitasseError, RuntimeError):
    """A drawing that needs a package or program that is not there."""


def get_pooling_types_dict():
    """Number of a pooling method -> its name."""
    values = caffe_pb2.PoolingParameter.PoolMethod.DESCRIPTOR.values_by_name
    return {value.number: name for name, value in values.items()}


def get_edge_label(layer):
    """What is written on the edges to a layer's tops: its batch size or number of outputs."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return '""'


def get_layer_lr_mult(layer):
    """The learning-rate multipliers of weights and bias of a layer with these two."""
    if layer.type not in _LEARNING:
        raise NetError(f"layer {layer.name!r} ({layer.type})", f"one of {_LEARNING}", layer.type)
    multipliers = [param.lr_mult for param in layer.param[:2]]
    return tuple(multipliers + [1.0] * (2 - len(multipliers)))


def get_layer_label(layer, rankdir, display_lrm=False):
    """What is written on a layer, in double quotes: name, type, kernel, stride and padding, and
    if `display_lrm` the learning-rate multipliers. On one line if the net runs from top to
    bottom or back ("TB", "BT"), else in a column."""
    words = [layer.name, f"({layer.type})"]
    if layer.type == "Pooling":
        words[1] = f"({layer.type} {get_pooling_types_dict()[layer.pooling_param.pool]})"
        words += _spatial_words(layer.pooling_param)
    elif layer.type in ("Convolution", "Deconvolution"):
        words += _spatial_words(layer.convolution_param)
    if display_lrm and layer.type in _LEARNING:
        weight, bias = get_layer_lr_mult(layer)
        if weight or bias:
            words.append(f"lr mult: {weight:.1f}, {bias:.1f}")
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    return f'"{separator.join(words)}"'


def _spatial_words(param):
    return [
        f"kernel size: {_extent(param, 'kernel_size', 1)}",
        f"stride: {_extent(param, 'stride', 1)}",
        f"pad: {_extent(param, 'pad', 0)}",
    ]


def _extent(param, name, default):
    """A size as "3", or "3x5" where it is given for each axis."""
    stem = name.removesuffix("_size")
    if param.HasField(f"{stem}_h") or param.HasField(f"{stem}_w"):
        return f"{getattr(param, stem + '_h')}x{getattr(param, stem + '_w')}"
    value = getattr(param, name)
    sizes = [value] if isinstance(value, int) else list(value) or [default]
    return "x".join(map(str, sizes))


def choose_color_by_layertype(layertype):
    """The colour of a layer of this type."""
    return _COLORS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def get_pydot_graph(
    caffe_net, rankdir, label_edges=True, phase=None, display_lrm=False, stages=()
):  # fmt: skip
    """The graph of a net.

    Args: `caffe_net`, a NetParameter; `rankdir`, its direction: "LR", "TB" or "BT"; `phase` and
    `stages`, of the net that is drawn: caffe.TRAIN, caffe.TEST or None for all layers there are.
    Returns: a pydot.Dot with a box for each layer and an octagon for each blob.
    """
    pydot = _import_pydot()
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes, edges = {}, []
    state = caffe_pb2.NetState(phase=phase, stage=stages)
    for layer in caffe_net.layer:
        if phase is not None and not included(layer, state):
            continue
        name = f"{layer.name}_{layer.type}"
        if len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top):
            style = NEURON_LAYER_STYLE
        else:
            color = choose_color_by_layertype(layer.type)
            style = {**LAYER_STYLE_DEFAULT, "fillcolor": color}
        nodes[name] = pydot.Node(get_layer_label(layer, rankdir, display_lrm), **style)
        label = get_edge_label(layer) if label_edges else '""'
        for bottom in layer.bottom:
            edges.append((f"{bottom}_blob", name, '""'))
        for top in layer.top:
            edges.append((name, f"{top}_blob", label))
        for blob in (*layer.bottom, *layer.top):
            nodes[f"{blob}_blob"] = pydot.Node(f'"{blob}"', **BLOB_STYLE)
    for node in nodes.values():
        graph.add_node(node)
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(nodes[source], nodes[target], label=label))
    return graph


def draw_net(caffe_net, rankdir, ext="png", phase=None, display_lrm=False, stages=()):
    """The picture of a net, as the bytes of a file of type `ext`; "raw", "dot" and "gv" give
    Graphviz's own text, which needs no Graphviz. Other arguments as of `get_pydot_graph`."""
    graph = get_pydot_graph(
        caffe_net, rankdir, phase=phase, display_lrm=display_lrm, stages=stages
    )  # fmt: skip
    if ext.lower() in _TEXT_FORMATS:
        return graph.to_string().encode()
    try:
        return graph.create(format=ext)
    except FileNotFoundError:
        raise DrawError(
            "draw_net", "the program `dot`", "none",
            "Install Graphviz (https://graphviz.org), or draw to a .dot file.",
        ) from None  # fmt: skip
    except AssertionError as error:
        raise DrawError("draw_net", f"a picture of type {ext!r} from `dot`", error) from None


def draw_net_to_file(
    caffe_net, filename, rankdir="LR", phase=None, display_lrm=False, stages=()
):  # fmt: skip
    """Draw a net into a file, of the type that its extension says; see `draw_net`."""
    ext = os.path.splitext(filename)[1].lstrip(".")
    if not ext:
        raise DrawError("draw_net_to_file", "a file name with an extension", filename)
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm, stages)
    with open(filename, "wb") as file:
        file.write(picture)


def _import_pydot():
    try:
        import pydot
    except ImportError as error:
        hint = "Run: pip install 'demitasse[plot]'"
        raise DrawError("caffe.draw", "the package pydot", error, hint) from None
    return pydot
