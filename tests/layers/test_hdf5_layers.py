import h5py
import numpy as np
import pytest
from data_nets import batches, check_resumes, make_net
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import DataError, DemitasseError
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.layers import hdf5_data

ROWS = (4, 3, 5)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Files 0.h5 ... 2.h5 of rows numbered through, and list.txt, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_files(ROWS)
    return sum(ROWS)


def write_files(counts, **options):
    first = 0
    for i, count in enumerate(counts):
        numbers = np.arange(first, first + count)
        with h5py.File(f"{i}.h5", "w") as f:
            data = np.stack([numbers, numbers + 0.5], axis=1).astype(np.float64)
            f.create_dataset("data", data=data, **options)
            f.create_dataset("label", data=numbers)  # integers are read, too
        first += count
    write_list(f"{i}.h5" for i in range(len(counts)))


def write_list(names):
    with open("list.txt", "w") as f:
        f.write("\n".join(names) + "\n")


def layer(batch_size=4, more="", source="list.txt"):
    return (
        f'type: "HDF5Data" hdf5_data_param {{ source: "{source}" batch_size: {batch_size} {more} }}'
    )


def labels(net, count):
    return [int(x) for _, label in batches(net, count) for x in label]


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    batch_size=st.integers(1, 9),
    cached=st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_rows_of_all_files_round_and_round(tmp_path_factory, counts, batch_size, cached):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("h5"))
        patch.setattr(hdf5_data, "_MAX_CACHED_BYTES", 1 << 20 if cached else 0)
        write_files(counts)
        net = make_net(layer(batch_size))
        for k, (data, label) in enumerate(batches(net, 5)):
            expected = (k * batch_size + np.arange(batch_size)) % sum(counts)
            np.testing.assert_array_equal(label, expected)
            np.testing.assert_array_equal(data, np.stack([expected, expected + 0.5], axis=1))


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_shuffled_epochs(rows, monkeypatch, limit):
    monkeypatch.setattr(hdf5_data, "_MAX_CACHED_BYTES", limit)
    order = labels(make_net(layer(rows, "shuffle: true")), 6)
    epochs = [tuple(order[i : i + rows]) for i in range(0, len(order), rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert len(set(epochs)) == 6
    # Files stay together; their order changes.
    first_files = {np.searchsorted(np.cumsum(ROWS), epoch[0], side="right") for epoch in epochs}
    assert len(first_files) > 1
    for epoch in epochs:
        files = np.searchsorted(np.cumsum(ROWS), epoch, side="right")
        assert np.count_nonzero(np.diff(files)) == len(ROWS) - 1


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_resumes(rows, shuffle):
    check_resumes(lambda: make_net(layer(5, f"shuffle: {shuffle}")))


def test_any_number_of_tops_of_any_shape(rows):
    with h5py.File("0.h5", "a") as f:
        f["other"] = np.arange(4 * 2 * 3 * 2 * 2).reshape(4, 2, 3, 2, 2)
    write_list(["0.h5"])
    net = make_net(layer(3), tops=("label", "other", "data"))
    assert [b.shape for b in net.blob_list] == [(3,), (3, 2, 3, 2, 2), (3, 2)]
    assert batches(net, 1)[0][1].ravel().tolist() == list(range(72))


def test_a_claimed_size_takes_no_memory(rows):
    with h5py.File("0.h5", "w") as f:  # 8 TB that were never written
        f.create_dataset("data", (10**10, 200), "f4", chunks=(1, 200), fillvalue=3)
        f.create_dataset("label", (10**10,), "f4", chunks=(1024,))
    write_list(["0.h5"])
    assert batches(make_net(layer(2)), 1)[0][0].tolist() == [[3] * 200] * 2
    with pytest.raises(DemitasseError, match="rows a file with shuffle"):
        make_net(layer(2, "shuffle: true"))
    with pytest.raises(DemitasseError, match="at most"):
        make_net(layer(1 << 30))


@pytest.mark.parametrize(
    "text, message",
    [
        (layer(0), "positive batch_size"),
        (layer(source="nowhere"), "list of HDF5 files, found No such file"),
        (layer() + " transform_param { scale: 2 }", "no transform_param"),
    ],
)
def test_bad_parameters(rows, text, message):
    with pytest.raises(DemitasseError, match=message):
        make_net(text)


def test_bad_files(rows):
    with pytest.raises(DataError, match=r"0\.h5: expected a dataset 'x'.*only data, label"):
        make_net(layer(), tops=("data", "x"))
    write_list([])
    with pytest.raises(DataError, match="at least one HDF5 file"):
        make_net(layer())
    write_list(["0.h5", "nowhere.h5"])
    with pytest.raises(DataError, match=r"nowhere\.h5: expected a readable HDF5 file"):
        make_net(layer())
    with open("1.h5", "r+b") as f:
        f.truncate(500)
    write_list(["1.h5"])
    with pytest.raises(DataError, match=r"1\.h5: expected a readable HDF5 file"):
        make_net(layer())


def rewrite(**datasets):
    with h5py.File("1.h5", "w") as f:
        for name, values in datasets.items():
            f[name] = values


@pytest.mark.parametrize(
    "data, label, message",
    [
        (np.zeros((3, 2)), np.zeros(4), r"same number of rows, found data \(3, 2\), label \(4,\)"),
        (np.zeros((3, 5)), np.zeros(3), r"rows of dataset 'data' of shape \(2,\) as in 0\.h5"),
        (np.zeros((0, 2)), np.zeros(0), "rows in dataset 'data'"),
        (np.array([b"a", b"b"]), np.zeros(2), "numbers in dataset 'data'"),
        (np.float32(3), np.zeros(2), r"rows in dataset 'data', found shape \(\)"),
    ],
)
def test_bad_datasets(rows, data, label, message):
    rewrite(data=data, label=label)
    write_list(["0.h5", "1.h5"])
    with pytest.raises(DataError, match=message):
        make_net(layer())


# --------------------------------------------------------------------------------- HDF5Output


def output_net(shapes, file_name="out.h5"):
    inputs = "".join(
        f'layer {{ name: "i{i}" type: "Input" top: "b{i}" input_param {{ shape {{ '
        + "".join(f"dim: {d} " for d in shape)
        + "} } }\n"
        for i, shape in enumerate(shapes)
    )
    text = inputs + (
        'layer { name: "o" type: "HDF5Output" bottom: "b0" bottom: "b1" '
        f'hdf5_output_param {{ file_name: "{file_name}" }} }}'
    )
    return Net(text_format.Parse(text, caffe_pb2.NetParameter()), 1)


def test_output_is_complete_after_each_pass(rows):
    net = output_net([(2, 3), (2,)])
    with h5py.File("out.h5") as f:
        assert not list(f)
    for value in (1, 2):
        net.blobs["b0"].data[...] = value
        net.blobs["b1"].data[...] = [7, 8]
        net.forward()
        with h5py.File("out.h5") as f:
            assert f["data"].shape == (2, 3, 1, 1) and (f["data"][...] == value).all()
            assert f["label"][...].ravel().tolist() == [7, 8] and f["label"].dtype == np.float32


def test_output_round_trips_through_hdf5_data(rows):
    net = output_net([(4, 1, 2, 3), (4, 1, 1, 1)])
    values = np.random.default_rng(0).random((4, 1, 2, 3), np.float32)
    net.blobs["b0"].data[...] = values
    net.forward()
    write_list(["out.h5"])
    np.testing.assert_array_equal(batches(make_net(layer()), 1)[0][0], values)


def test_output_errors(rows):
    with pytest.raises(DemitasseError, match="same number of rows"):
        output_net([(2, 3), (3,)])
    with pytest.raises(DemitasseError, match="at most 4 dimensions"):
        output_net([(2, 1, 1, 1, 3), (2,)])
    with pytest.raises(DemitasseError, match=r"layer 'o' \(HDF5Output\).*file_name that can be"):
        output_net([(2, 3), (2,)], "nowhere/out.h5")
