"""Weights and solver states in HDF5: Caffe's files, ours, and files that are neither."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from demitasse.engine import caffemodel, hdf5, solverstate
from demitasse.engine.errors import ModelFileError

INTEROP = Path(__file__).parents[1] / "golden" / "interop"
MODELS = sorted(INTEROP.glob("*/*.caffemodel.h5"))
STATES = sorted(INTEROP.glob("*/*.solverstate.h5"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


def error_of(read, path):
    with pytest.raises(ModelFileError) as error:
        result = read(path)
        list(result)
    return str(error.value)


def contents(path):
    """{object name: (type, shape, values)} of all in an HDF5 file."""
    found = {}

    def visit(name, item):
        found[name] = None
        if isinstance(item, h5py.Dataset):
            kind = item.id.get_type()
            found[name] = (kind.get_class(), kind.get_size(), item.shape, item[()].tolist())

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.parent.name)
def test_golden_weights(model, path):
    found = dict(hdf5.read_weights_h5(model))
    binary = {name: blobs for name, _, blobs in caffemodel.read_weights(str(model)[:-3])}
    assert found.keys() == binary.keys()
    for name, blobs in binary.items():
        assert list(found[name]) == list(range(len(blobs)))
        for i, blob in enumerate(blobs):
            np.testing.assert_array_equal(found[name][i].data, blob.data)
            assert found[name][i].shape == blob.shape and not found[name][i].legacy
    layers = [(name, {i: b.data for i, b in blobs.items()}) for name, blobs in found.items()]
    hdf5.write_weights_h5(path, layers)
    assert contents(path) == contents(model)


@pytest.mark.parametrize("original", STATES, ids=lambda p: p.parent.name)
def test_golden_states(original, path):
    state = hdf5.read_state_h5(original)
    binary = solverstate.read_state(str(original)[:-3])
    assert state["iter"] == 10 and state["current_step"] == 0
    assert state["learned_net"] == binary["learned_net"] + ".h5"
    assert all(map(np.array_equal, state["history"], binary["history"]))
    hdf5.write_state_h5(path, state)
    assert contents(path) == contents(original)
    with h5py.File(path) as ours, h5py.File(original) as theirs:
        kinds = [file["learned_net"].id.get_type().get_strpad() for file in (ours, theirs)]
        assert kinds[0] == kinds[1] == h5py.h5t.STR_NULLTERM


def test_names_with_slashes_diffs_and_partly_shared_layers(path):
    layers = [
        ("inception/3x3", {0: np.ones((2, 3), np.float32), 1: np.zeros(2)}),
        ("inception", {0: np.float32(5)}),
        ("inception/3x3/reduce", {1: np.arange(4)}),  # parameter 0 belongs to another layer
        ("relu/a", {}),
        ("relu", {}),
        ("empty", {0: np.zeros((0, 3), np.float32)}),
    ]
    hdf5.write_weights_h5(path, iter(layers), [(name, {}) for name, _ in layers])
    found = dict(hdf5.read_weights_h5(path))
    assert found.keys() == dict(layers).keys()
    for name, arrays in layers:
        assert found[name].keys() == arrays.keys()
        for i, array in arrays.items():
            np.testing.assert_array_equal(found[name][i].data, array)
            assert found[name][i].data.shape == np.shape(array)
    with h5py.File(path) as file:
        assert file["diff/inception/3x3"] and file["data/inception/3x3/0"].dtype == np.float32


def test_names_that_hdf5_cannot_store(path):
    one = {0: np.ones(1)}
    for layers, words in (
        ([("", {})], "found ''"),
        ([("a//b", {})], "found 'a//b'"),
        ([("a/.", {})], "found 'a/.'"),
        ([("a\0", {})], "found 'a"),
        ([("a", one), ("a", one)], "found 'a' twice"),
        ([("a", one), ("a/0", one)], "'a/0' beside"),
        ([("a/0", one), ("a", one)], "'a' beside"),
    ):
        with pytest.raises(ModelFileError) as error:
            hdf5.write_weights_h5(path, layers)
        assert words in str(error.value)
        assert os.listdir(path.parent) == []  # nothing half-written is left


def test_state_with_our_entries(path):
    state = {
        "iter": 7,
        "current_step": 1,
        "learned_net": "é.caffemodel.h5",
        "history": [np.full(2, i, np.float32) for i in range(12)],
        "random_seed": 2**64 - 1,
        "passes": 9,
        "test_passes": [3, 4],
        "layer_state": {"block/lstm": [np.ones((1, 2), np.float32), np.zeros(3, np.float32)]},
    }
    hdf5.write_state_h5(path, state)
    found = hdf5.read_state_h5(path)
    assert found.keys() == state.keys()
    for key in state.keys() - {"history", "layer_state"}:
        assert found[key] == state[key]
    assert [array[0] for array in found["history"]] == list(range(12))  # by number, not by name
    assert all(map(np.array_equal, found["layer_state"]["block/lstm"],
                   state["layer_state"]["block/lstm"]))  # fmt: skip


# ---------------------------------------------------------------------------------------- errors


def test_other_files(path, tmp_path):
    assert "no such file" in error_of(hdf5.read_weights_h5, tmp_path / "no")
    assert "a folder" in error_of(hdf5.read_state_h5, tmp_path)
    for content, words in (
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (MODELS[0].with_suffix("").read_bytes(), "bytes that are no HDF5"),
        (MODELS[0].read_bytes()[:3000], "truncated"),
    ):
        path.write_bytes(content)
        for read in (hdf5.read_weights_h5, hdf5.read_state_h5):
            assert words in error_of(read, path)
    assert "no such group" in error_of(hdf5.read_weights_h5, STATES[0])
    assert "It may be a .caffemodel.h5" in error_of(hdf5.read_state_h5, MODELS[0])


def write_layer(path, make):
    with h5py.File(path, "w") as file:
        make(file.create_group("data/ip"))


def test_claims_beyond_what_is_stored(path):
    write_layer(path, lambda ip: ip.create_dataset("0", shape=(10**6, 10**6), dtype="f4"))
    assert "a claim of 4000000000000 bytes" in error_of(hdf5.read_weights_h5, path)
    write_layer(
        path, lambda ip: ip.create_dataset("0", shape=(10**6, 10**6), dtype="f4", chunks=(10, 10))
    )
    assert "a claim of 4000000000000 bytes" in error_of(hdf5.read_weights_h5, path)


def test_compressed_weights_are_fine(path):
    data = np.zeros((100, 100), np.float32)
    write_layer(path, lambda ip: ip.create_dataset("0", data=data, compression="gzip"))
    [(name, blobs)] = hdf5.read_weights_h5(path)
    assert name == "ip" and blobs[0].data.shape == (100, 100)


def test_links_out_of_the_file_are_refused(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(40))

    def external(ip):
        ip.create_dataset("0", shape=(10,), dtype="f4", external=[(str(secret), 0, 40)])

    write_layer(path, external)
    assert "a link to other files" in error_of(hdf5.read_weights_h5, path)
    for link in (h5py.ExternalLink("other.h5", "/data/ip/0"), h5py.SoftLink("/data/ip/1")):
        write_layer(path, lambda ip, link=link: ip.__setitem__("0", link))
        assert "found a link" in error_of(hdf5.read_weights_h5, path)


def test_groups_in_circles_end(path):
    write_layer(path, lambda ip: ip.__setitem__("again", ip))
    assert "another name of an earlier one" in error_of(hdf5.read_weights_h5, path)
    write_layer(path, lambda ip: ip.create_group("/".join("a" * 40)))
    assert "at most 32 groups in one another" in error_of(hdf5.read_weights_h5, path)


def test_an_array_under_two_names_is_refused(path):
    def twice(ip):
        ip["1"] = ip.create_dataset("0", data=np.ones(3))

    write_layer(path, twice)
    assert "another name" in error_of(hdf5.read_weights_h5, path)


def test_things_of_the_wrong_kind(path):
    write_layer(path, lambda ip: ip.create_dataset("0", data=np.array([b"text"])))
    assert "numbers of at most" in error_of(hdf5.read_weights_h5, path)
    with h5py.File(path, "w") as file:
        file["data"] = 3
    assert "a group 'data'" in error_of(hdf5.read_weights_h5, path)
    with h5py.File(path, "w") as file:
        file["iter"] = [1.5, 2]
    assert "1 integer(s)" in error_of(hdf5.read_state_h5, path)
