import gc
import os
import threading

import cv2
import numpy as np
import pytest
from data_nets import TEST, TRAIN, batches, check_resumes, make_net

from demitasse.engine.db import open_db
from demitasse.engine.errors import DataError, DemitasseError
from demitasse.engine.proto import caffe_pb2

COUNT = 7
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 6, 5), dtype=np.uint8)


def datum(i, encoded=False):
    if encoded:
        data = cv2.imencode(".png", IMAGES[i].transpose(1, 2, 0))[1].tobytes()
        return caffe_pb2.Datum(data=data, label=i, encoded=True)
    return caffe_pb2.Datum(channels=3, height=6, width=5, data=IMAGES[i].tobytes(), label=i)


def write(path, backend, datums):
    with open_db(path, backend, "w") as out:
        for i, d in enumerate(datums):
            out.put(b"%08d" % i, d.SerializeToString())
    return path


@pytest.fixture(params=["LMDB", "LEVELDB"])
def backend(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["raw", "encoded"])
def source(tmp_path, backend, request):
    return write(tmp_path / "db", backend, [datum(i, request.param) for i in range(COUNT)])


def layer(source, backend="LMDB", batch_size=3, more="", transform=""):
    return (
        f'type: "Data" data_param {{ source: "{source}" backend: {backend} '
        f"batch_size: {batch_size} {more} }} transform_param {{ {transform} }}"
    )


def test_batches_in_key_order_wrapping_around(source, backend):
    net = make_net(layer(source, backend))
    assert net.blobs["data"].shape == (3, 3, 6, 5) and net.blobs["label"].shape == (3,)
    for k, (data, labels) in enumerate(batches(net, 6)):
        rows = [(3 * k + i) % COUNT for i in range(3)]
        np.testing.assert_array_equal(data, IMAGES[rows])
        np.testing.assert_array_equal(labels, rows)


def test_the_default_backend_is_leveldb(tmp_path):
    path = write(tmp_path / "db", "LEVELDB", [datum(0)])
    text = f'type: "Data" data_param {{ source: "{path}" batch_size: 1 }}'
    np.testing.assert_array_equal(batches(make_net(text), 1)[0][0], IMAGES[:1])


def test_one_top_has_no_labels(source, backend):
    net = make_net(layer(source, backend), tops=("data",))
    np.testing.assert_array_equal(batches(net, 1)[0], [IMAGES[:3]])


@pytest.mark.parametrize("decoders", [1, 3])
def test_resumes_with_random_transformations(source, backend, decoders, monkeypatch):
    monkeypatch.setattr("demitasse.layers.data.decoding_threads", lambda: decoders)
    text = layer(source, backend, more="rand_skip: 5", transform="crop_size: 3 mirror: true")
    whole = check_resumes(lambda: make_net(text, TRAIN))
    assert len({data.tobytes() for data, _ in whole}) == len(whole)


def test_seed_and_rand_skip(source, backend):
    text = layer(source, backend, more="rand_skip: 7", transform="crop_size: 2")
    starts, crops = set(), set()
    for seed in range(30):
        net = make_net(text, TRAIN, seed)
        data, labels = batches(net, 1)[0]
        starts.add(int(labels[0]))
        crops.add(data.tobytes())
        assert [int(x) for x in labels] == [(int(labels[0]) + i) % COUNT for i in range(3)]
    assert starts == set(range(7)) and len(crops) > 20


def test_centre_crop_in_test_phase(source, backend):
    net = make_net(layer(source, backend, transform="crop_size: 3"), TEST)
    np.testing.assert_array_equal(batches(net, 1)[0][0], IMAGES[:3, :, 1:4, 1:4])


def test_batch_size_one_takes_each_shape(tmp_path):
    other = caffe_pb2.Datum(channels=3, height=2, width=9, data=bytes(54))
    path = write(tmp_path / "db", "LMDB", [datum(0), other])
    shapes = [data.shape for data, _ in batches(make_net(layer(path, batch_size=1)), 3)]
    assert shapes == [(1, 3, 6, 5), (1, 3, 2, 9), (1, 3, 6, 5)]
    with pytest.raises(DataError, match=r"record '00000001'.*\(3, 6, 5\).*batch_size 1"):
        make_net(layer(path)).forward()


def test_two_nets_read_one_database(source, backend):
    a, b = make_net(layer(source, backend)), make_net(layer(source, backend, 2))
    assert batches(a, 3)[2][1].tolist() == [6, 0, 1]
    assert batches(b, 3)[2][1].tolist() == [4, 5]


def test_nothing_is_left_when_the_net_is_gone(source, backend):
    net = make_net(layer(source, backend))
    net.forward()
    del net
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch-")]
    with open_db(source, backend, "a"):  # only possible if nobody has it open
        pass


def test_net_built_before_a_fork(source, backend):
    net = make_net(layer(source, backend))
    pid = os.fork()
    if pid == 0:
        ok = batches(net, 2)[1][1].tolist() == [3, 4, 5]
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert batches(net, 2)[1][1].tolist() == [3, 4, 5]


def test_a_bad_record_is_named_when_it_is_due(tmp_path):
    bad = caffe_pb2.Datum(channels=10**9, height=6, width=5, data=b"abc")
    path = write(tmp_path / "db", "LMDB", [datum(0), datum(1), bad])
    net = make_net(layer(path, batch_size=2))
    net.forward()
    with pytest.raises(DataError, match=r"layer 'd' \(Data\): record '00000002'.*1000000000"):
        net.forward()


@pytest.mark.parametrize(
    "text, message",
    [
        ('data_param { source: "nowhere" backend: LMDB batch_size: 1 }', "no such folder"),
        ('data_param { source: "." backend: LMDB }', "positive batch_size"),
        ("data_param { batch_size: 2 }", "no such folder"),
    ],
)
def test_bad_parameters(text, message):
    with pytest.raises(DemitasseError, match=rf"layer 'd' \(Data\).*{message}"):
        make_net('type: "Data" ' + text)


def test_absurd_batch_size(source, backend):
    with pytest.raises(DemitasseError, match="at most"):
        make_net(layer(source, backend, batch_size=4_000_000_000))
