"""A stand-in for `cudnn` of nvidia-cudnn-frontend 1.28: records graphs and computes them by NumPy.

It has the part of the module that we call, with the signatures of the wheel, insists on the order
of calls and on shapes and strides that fit, and reads and writes memory of the host at the
addresses that it is given, as cuDNN does on a GPU.
"""

import ctypes
import enum

import numpy as np
from convolution_cases import convolve

__version__ = "1.28.0"


class data_type(enum.Enum):
    FLOAT, HALF, BFLOAT16, DOUBLE = range(4)


class heur_mode(enum.Enum):
    A, B, FALLBACK = range(3)


numerical_note = enum.Enum(
    "numerical_note",
    "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD "
    "WINOGRAD_TILE_4x4 WINOGRAD_TILE_6x6 WINOGRAD_TILE_13x13 STRICT_NAN_PROP",
)


class cudnnGraphNotSupportedError(Exception):
    pass


class Handle:
    stream = None


def backend_version():
    return 92400


def create_handle():
    return Handle()


def set_stream(handle, stream):
    assert isinstance(handle, Handle) and isinstance(stream, int)
    handle.stream = stream


_HELD = {
    data_type.FLOAT: np.float32, data_type.HALF: np.float16, data_type.BFLOAT16: np.uint16,
    data_type.DOUBLE: np.float64,
}  # fmt: skip


class Tensor:
    def __init__(self, dim=None, stride=None, data_type=None, uid=None, name=""):
        self.dim, self.stride, self.data_type = dim, stride, data_type
        self.uid, self.name, self.is_output = uid, name, False

    def set_output(self, value):
        self.is_output = value
        return self

    def set_dim(self, value):
        assert type(value) is list and all(type(n) is int for n in value)
        self.dim = value
        return self

    def set_stride(self, value):
        assert type(value) is list and all(type(n) is int for n in value)
        self.stride = value
        return self

    def set_data_type(self, value):
        self.data_type = value
        return self

    def set_uid(self, value):
        self.uid = value
        return self

    def view(self, pointer):
        """The array at an address."""
        assert type(pointer) is int and pointer % 16 == 0
        held = np.dtype(_HELD[self.data_type])
        count = 1 + sum((n - 1) * s for n, s in zip(self.dim, self.stride))
        memory = (ctypes.c_char * (count * held.itemsize)).from_address(pointer)
        strides = [s * held.itemsize for s in self.stride]
        flat = np.frombuffer(memory, held, count)
        return np.lib.stride_tricks.as_strided(flat, self.dim, strides)


graphs = []  # all that were built, the latest last
declined = []  # names of operations that no graph may have


class pygraph:
    STEPS = (
        "", "validate", "build_operation_graph", "create_execution_plans", "build_plan_at_index",
    )  # fmt: skip

    def __init__(
        self, name="test_graph", io_data_type=None, intermediate_data_type=None,
        compute_data_type=None, handle=None, sm_count=None, sm_version=None, kernel_cache=None,
        device_property=None, is_dynamic_shape_enabled=False, is_override_shape_enabled=False,
    ):  # fmt: skip
        assert isinstance(handle, Handle)
        assert intermediate_data_type == compute_data_type == data_type.FLOAT
        self.io_data_type = io_data_type
        self.tensors, self.nodes, self.done = [], [], ""
        self.notes, self.workspace_limit, self.executions = [], None, 0

    def tensor(
        self, dim, stride=None, data_type=None, is_virtual=False, is_pass_by_value=False,
        ragged_offset=None, reordering_type=None, name="", uid=None, ragged_offset_multiplier=1,
    ):  # fmt: skip
        assert type(dim) is list and type(stride) is list and len(dim) == len(stride)
        assert all(type(n) is int for n in [*dim, *stride]) and not self.done
        made = Tensor(dim, stride, data_type, uid, name)
        self.tensors.append(made)
        return made

    def _node(self, kind, inputs, **settings):
        result = Tensor(name=settings.pop("name"))
        self.tensors.append(result)
        self.nodes.append((kind, inputs, settings, result))
        return result

    def conv_fprop(self, image, weight, padding=(), stride=(), dilation=(), name=""):
        return self._conv("conv_fprop", (image, weight), padding, stride, dilation, name)

    def conv_dgrad(self, loss, filter, padding=(), stride=(), dilation=(), name=""):
        return self._conv("conv_dgrad", (loss, filter), padding, stride, dilation, name)

    def conv_wgrad(self, image, loss, padding=(), stride=(), dilation=(), name=""):
        return self._conv("conv_wgrad", (image, loss), padding, stride, dilation, name)

    def _conv(self, kind, inputs, padding, stride, dilation, name):
        for values in (padding, stride, dilation):
            assert type(values) is list and len(values) == len(inputs[0].dim) - 2 in (2, 3)
        return self._node(
            kind, inputs, padding=padding, stride=stride, dilation=dilation, name=name
        )

    def bias(self, input, bias, name=""):
        return self._node("bias", (input, bias), name=name)

    def relu(self, input, name=""):
        return self._node("relu", (input,), name=name)

    # ---- plans

    def _step(self, name):
        assert self.STEPS[self.STEPS.index(self.done) + 1] == name, (self.done, name)
        self.done = name

    def validate(self):
        self._step("validate")
        uids = [t.uid for t in self.tensors if t.uid is not None]
        assert len(set(uids)) == len(uids)
        assert [t for t in self.tensors if t.is_output] == [self.nodes[-1][3]]
        settings = self.nodes[0][2]
        x, w, y = self._roles()
        assert all(t.data_type == self.io_data_type for t in self.tensors if t.uid is not None)
        for n, k, out, p, s, d in zip(
            x.dim[2:], w.dim[2:], y.dim[2:], settings["padding"], settings["stride"],
            settings["dilation"],
        ):  # fmt: skip
            assert out == (n + 2 * p - d * (k - 1) - 1) // s + 1
        assert x.dim[1] % w.dim[1] == 0 and w.dim[0] == y.dim[1] and x.dim[0] == y.dim[0]
        for node in self.nodes:
            if node[0] in declined:
                raise cudnnGraphNotSupportedError(node[0])

    def _roles(self):
        kind, (a, b), _, result = self.nodes[0]
        result = self.nodes[-1][3] if result.dim is None else result
        return {"conv_fprop": (a, b, result), "conv_dgrad": (result, b, a),
                "conv_wgrad": (a, result, b)}[kind]  # fmt: skip

    def build_operation_graph(self):
        self._step("build_operation_graph")

    def create_execution_plans(self, heuristics=None):
        assert heuristics == [heur_mode.A, heur_mode.FALLBACK]
        self._step("create_execution_plans")

    def deselect_numeric_notes(self, notes):
        assert self.done == "create_execution_plans"  # earlier ones would mark nothing
        self.notes += notes
        return self

    def deselect_workspace_greater_than(self, workspace_limit):
        self.workspace_limit = workspace_limit
        return self

    def get_execution_plan_count(self):
        return 2

    def build_plan_at_index(self, index):
        assert numerical_note.NONDETERMINISTIC in self.notes and self.workspace_limit
        if index == 0:  # as if it were among the deselected
            raise cudnnGraphNotSupportedError("Deselecting execution plan")
        self._step("build_plan_at_index")
        graphs.append(self)
        return self

    def get_plan_name_at_index(self, index):
        assert index == 1
        return "eng0"

    def get_workspace_size(self):
        assert self.done == "build_plan_at_index"
        return 1000

    # ---- computing

    def execute(self, tensor_dict, workspace=None, handle=None):
        assert self.done == "build_plan_at_index" and isinstance(handle, Handle)
        assert type(workspace) is int and handle.stream is not None
        wanted = {t.uid for t in self.tensors if t.uid is not None}
        assert set(tensor_dict) == wanted, (set(tensor_dict), wanted)
        self.executions += 1
        values = {}
        for t in self.tensors:
            if t.uid is not None and not t.is_output:
                values[t] = _wide(t.view(tensor_dict[t.uid]))
        for kind, inputs, settings, result in self.nodes:
            given = [values[t] for t in inputs]
            if kind == "relu":
                values[result] = np.maximum(given[0], 0)
            elif kind == "bias":
                values[result] = given[0] + given[1]
            else:
                x, w, y = self._roles()
                dims = x.dim, w.dim, y.dim
                values[result] = convolve(kind, *given, *dims, **settings)
        out = self.nodes[-1][3]
        out.view(tensor_dict[out.uid])[...] = _narrow(values[out], out.data_type)


def _wide(array):
    if array.dtype == np.uint16:  # bfloat16
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _narrow(values, kind):
    if kind == data_type.BFLOAT16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(_HELD[kind])
