import numpy as np
import pytest
from data_nets import TRAIN, batches, make_net

from demitasse.engine.errors import DemitasseError
from demitasse.engine.proto import caffe_pb2


def layer(transform=""):
    return (
        'type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } '
        + (f"transform_param {{ {transform} }}" if transform else "")
    )


def made(net):
    return net.nodes[0].layer


def arrays(n):
    return np.arange(6.0 * n, dtype=np.float32).reshape(n, 1, 2, 3), np.arange(n, dtype=np.float32)


def test_rows_round_and_round():
    net = make_net(layer())
    data, labels = arrays(4)
    made(net).reset(data, labels, 4)
    result = batches(net, 3)
    assert [label.ravel().tolist() for _, label in result] == [[0, 1], [2, 3], [0, 1]]
    assert result[0][1].shape == (2, 1, 1, 1)
    np.testing.assert_array_equal(result[1][0], data[2:])
    net.seek(5)
    assert batches(net, 1)[0][1].ravel().tolist() == [2, 3]


def test_only_the_first_n_rows_are_used():
    net = make_net(layer())
    made(net).reset(*arrays(6), 4)
    assert [label.ravel().tolist() for _, label in batches(net, 3)][2] == [0, 1]


def test_arrays_are_not_transformed_but_this_is_told(caplog):
    net = make_net(layer("scale: 3"))
    made(net).reset(*arrays(2))
    np.testing.assert_array_equal(batches(net, 1)[0][0], arrays(2)[0])
    assert "not transformed" in caplog.text


def test_before_reset():
    with pytest.raises(DemitasseError, match="set_input_arrays"):
        make_net(layer()).forward()


@pytest.mark.parametrize(
    "data, labels, n, message",
    [
        (*arrays(3), 3, "multiple of batch_size 2"),
        (*arrays(0), 0, "multiple of batch_size 2"),
        (*arrays(2), 4, "2 at most"),
        (arrays(2)[0].reshape(2, 1, 3, 2), arrays(2)[1], 2, r"data of shape \(n, 1, 2, 3\)"),
        (arrays(2)[0], np.zeros(1), 2, "one label for each of 2 rows"),
        (arrays(2)[0], np.zeros((2, 2)), 2, "one label for each of 2 rows"),
    ],
)
def test_bad_arrays(data, labels, n, message):
    with pytest.raises(DemitasseError, match=message):
        made(make_net(layer())).reset(data, labels, n)


def test_added_datums_are_transformed():
    net = make_net(layer("scale: 2 mean_value: 1"))
    datums = [
        caffe_pb2.Datum(channels=1, height=2, width=3, data=bytes(range(i, i + 6)), label=i)
        for i in range(4)
    ]
    made(net).add_datum_vector(datums)
    (first, labels), (second, _) = batches(net, 2)
    assert first[1].ravel().tolist() == [0, 2, 4, 6, 8, 10]
    assert second[0].ravel().tolist() == [2, 4, 6, 8, 10, 12] and labels.ravel().tolist() == [0, 1]


def test_images_can_be_added_when_the_last_are_consumed():
    net = make_net(layer("mirror: true"), TRAIN)
    images = [np.arange(6, dtype=np.uint8).reshape(2, 3)] * 2
    seen = set()
    for _ in range(8):
        made(net).add_mat_vector(images, [4, 5])
        with pytest.raises(DemitasseError, match="consumed"):
            made(net).add_mat_vector(images, [4, 5])
        data, labels = batches(net, 1)[0]
        assert labels.ravel().tolist() == [4, 5]
        seen |= {tuple(row) for row in data[:, 0, 0].tolist()}
    assert seen == {(0, 1, 2), (2, 1, 0)}


def test_bad_images():
    target = made(make_net(layer()))
    with pytest.raises(DemitasseError, match=r"image 0.*\(1, 2, 3\)"):
        target.add_mat_vector([np.zeros((3, 3), np.uint8)] * 2, [0, 0])
    with pytest.raises(DemitasseError, match="one label for each of 2 images"):
        target.add_mat_vector([np.zeros((2, 3), np.uint8)] * 2, [0])
    with pytest.raises(DemitasseError, match="multiple of batch_size"):
        target.add_mat_vector([np.zeros((2, 3), np.uint8)], [0])


def test_bad_parameters():
    with pytest.raises(DemitasseError, match="positive batch_size, channels"):
        make_net('type: "MemoryData" memory_data_param { batch_size: 2 }')
