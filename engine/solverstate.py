"""Solver states (.solverstate): what Caffe saves beside the weights so that training can go on.

A state is a dict, the same for this binary form and for HDF5 (hdf5.read_state_h5):

    iter, current_step   integers
    learned_net          the path of the weights file, as it was written
    history              a list of arrays, in the order of the solver's parameters

and, in files of ours, what an exact continuation needs; absent in Caffe's files, and ignored by it:

    random_seed          the seed of the random streams
    passes, test_passes  forward passes of the train net, and a list of those of the test nets
    layer_state          {layer name: [arrays that the layer keeps from pass to pass]}
"""

from .blobproto import encode_blob, scan_blob, size_of
from .files import atomic_write
from .wire import (
    LEN,
    VARINT,
    encode_integer,
    encode_length,
    open_scanner,
    signed,
)

INTEGERS = {"iter": 1, "current_step": 4, "random_seed": 8266721, "passes": 8266722}
"""The integer entries of a state, with their field numbers in SolverState."""

_LEARNED_NET, _HISTORY, _TEST_PASSES, _LAYER_STATE = 2, 3, 8266723, 8266724
_INTEGER_NAMES = {number: name for name, number in INTEGERS.items()}


def read_state(path) -> dict:
    """Reads a .solverstate of Caffe's or ours.

    Returns:
        A state (see above) with at least iter, current_step, learned_net and history. The arrays
        are read-only views of the file: copy them.

    Raises:
        ModelFileError: the file is missing, of another format, truncated or damaged.
    """
    scan = open_scanner(path, "a .solverstate (binary SolverState)")
    state = {"iter": 0, "current_step": 0, "learned_net": "", "history": []}
    position = 0
    while position < scan.size:
        at = position
        number, wire, value, position = scan.field(at, scan.size)
        if number in _INTEGER_NAMES:
            name = _INTEGER_NAMES[number]
            scan.expect(at, wire, VARINT, name)
            state[name] = signed(value) if number < 100 else value
        elif number == _LEARNED_NET:
            scan.expect(at, wire, LEN, "learned_net")
            state["learned_net"] = scan.string(value, position, "learned_net")
        elif number == _HISTORY:
            scan.expect(at, wire, LEN, "history")
            scan.context = f"history {len(state['history'])}"
            state["history"].append(scan_blob(scan, value, position).data)
            scan.context = ""
        elif number == _TEST_PASSES:
            passes = state.setdefault("test_passes", [])
            passes += _scan_integers(scan, at, wire, value, position)
        elif number == _LAYER_STATE:
            scan.expect(at, wire, LEN, "layer_state")
            name, arrays = _scan_layer_state(scan, value, position)
            state.setdefault("layer_state", {})[name] = arrays
    return state


def _scan_integers(scan, at: int, wire: int, value: int, end: int) -> list[int]:
    """One integer, or a packed list of them."""
    if wire == VARINT:
        return [value]
    scan.expect(at, wire, LEN, "test_passes")
    numbers, position = [], value
    while position < end:
        number, position = scan.varint(position, end)
        numbers.append(number)
    return numbers


def _scan_layer_state(scan, position: int, end: int):
    name, arrays = "", []
    while position < end:
        at = position
        number, wire, value, position = scan.field(at, end)
        if number == 1:
            scan.expect(at, wire, LEN, "layer_state.layer")
            name = scan.string(value, position, "a layer's name")
            scan.context = f"state of layer {name!r}"
        elif number == 2:
            scan.expect(at, wire, LEN, "layer_state.blobs")
            arrays.append(scan_blob(scan, value, position).data)
    scan.context = ""
    return name, arrays


def write_state(path, state: dict) -> None:
    """Writes a state (see above) as a .solverstate that Caffe reads, complete or not at all.

    Raises:
        ModelFileError: the file cannot be written.
    """
    with atomic_write(path) as file:
        for buffer in _encode(state):
            file.write(buffer)


def _encode(state: dict):
    """Yields the buffers of a state, fields in the order of their numbers."""
    yield encode_integer(INTEGERS["iter"], state["iter"])
    name = state["learned_net"].encode()
    yield encode_length(_LEARNED_NET, len(name)) + name
    for array in state["history"]:
        yield from _with_length(_HISTORY, encode_blob(array))
    for key in ("current_step", "random_seed", "passes"):
        if key in state:
            yield encode_integer(INTEGERS[key], state[key])
    for count in state.get("test_passes", ()):
        yield encode_integer(_TEST_PASSES, count)
    for layer, arrays in state.get("layer_state", {}).items():
        name = layer.encode()
        buffers = [encode_length(1, len(name)) + name]
        for array in arrays:
            buffers += _with_length(2, encode_blob(array))
        yield from _with_length(_LAYER_STATE, buffers)


def _with_length(number: int, buffers: list) -> list:
    return [encode_length(number, size_of(buffers)), *buffers]
