import math

import numpy as np
import pytest

from demitasse.engine import fillers
from demitasse.engine.errors import LayerError
from demitasse.engine.fillers import check_filler, fill, lazy_fill
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.engine.random import RandomStream


def filler(text):
    return parse_text(text, caffe_pb2.FillerParameter, "filler")


def filled(text, shape, dtype=np.float32, seed=0):
    check_filler(filler(text), shape, "here")
    array = np.full(shape, np.nan, dtype)
    fill(array, filler(text), np.random.default_rng(seed))
    assert array.dtype == dtype and np.isfinite(array).all()
    return array


def near(value, expected, spread, count):
    """Whether a mean of `count` draws with the given spread is within 5 standard errors."""
    return abs(value - expected) < 5 * spread / math.sqrt(count)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant(dtype):
    assert (filled('type: "constant" value: 0.25', (2, 3), dtype) == 0.25).all()
    assert not filled("", (2, 3), dtype).any()


def test_uniform():
    x = filled('type: "uniform" min: -2 max: 3', (100, 200))
    assert -2 <= x.min() < -1.99 and 2.99 < x.max() <= 3
    assert near(x.mean(), 0.5, 5 / math.sqrt(12), x.size)


def test_gaussian():
    x = filled('type: "gaussian" mean: 3 std: 0.5', (100, 200))
    assert near(x.mean(), 3, 0.5, x.size)
    assert near(x.std(), 0.5, 0.5, x.size)
    assert not filled('type: "gaussian" std: 0', (3, 3)).any()


@pytest.mark.parametrize("sparse", [0, 3, 10])
def test_sparse_gaussian_keeps_so_many_of_each_input_on_average(sparse):
    x = filled(f'type: "gaussian" std: 1 sparse: {sparse}', (20, 1000))
    kept = (x != 0).mean(axis=None)
    assert near(kept, sparse / 20, 0.5, x.size)
    if sparse:
        assert near(x[x != 0].std(), 1, 1, (x != 0).sum())


def test_positive_unitball():
    x = filled('type: "positive_unitball"', (10, 3, 4))
    assert (x > 0).all()
    np.testing.assert_allclose(x.reshape(10, -1).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("norm, n", [("FAN_IN", 50), ("FAN_OUT", 200), ("AVERAGE", 125)])
def test_xavier_and_msra_scale_by_the_fans(norm, n):
    shape = (40, 10, 5, 1)  # fan in 10*5, fan out 40*5
    x = filled(f'type: "xavier" variance_norm: {norm}', shape)
    bound = math.sqrt(3 / n)
    assert 0.99 * bound < abs(x).max() <= bound * (1 + 1e-6)
    assert near(x.mean(), 0, bound, x.size)
    x = filled(f'type: "msra" variance_norm: {norm}', shape)
    std = math.sqrt(2 / n)
    assert near(x.mean(), 0, std, x.size) and near(x.std(), std, std, x.size)


@pytest.mark.parametrize("kind", ["constant", "uniform", "gaussian", "xavier", "msra"])
def test_scalars_are_filled(kind):
    assert filled(f'type: "{kind}"', ()).shape == ()
    assert filled('type: "positive_unitball"', ()) == 1


def test_fans_of_vectors():
    """A bias: fan in 1, fan out the number of elements."""
    assert fillers._fans((7,), 0) == 1 and fillers._fans((7,), 1) == 7
    assert abs(filled('type: "xavier" variance_norm: FAN_OUT', (300,))).max() <= 0.1


@pytest.mark.parametrize(
    "size, tent",
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (6, [1 / 6, 0.5, 5 / 6, 5 / 6, 0.5, 1 / 6]),
    ],
)
def test_bilinear(size, tent):
    x = filled('type: "bilinear"', (2, 1, size, size))
    np.testing.assert_allclose(x, np.broadcast_to(np.outer(tent, tent), x.shape), rtol=1e-6)


def test_bilinear_interpolates():
    """A deconvolution of kernel 2f - f % 2 and stride f keeps a constant image constant."""
    for factor in (2, 3, 4, 5):
        size = 2 * factor - factor % 2
        tent = filled('type: "bilinear"', (1, 1, size, size), np.float64)[0, 0].sum(axis=0)
        line = np.zeros(factor * 9 + size)
        for k in range(10):
            line[k * factor : k * factor + size] += tent / tent.sum() * factor
        np.testing.assert_allclose(line[size : factor * 9], 1)


@pytest.mark.parametrize(
    "text, shape, message",
    [
        ('type: "gausian"', (2,), "Did you mean 'gaussian'"),
        ('type: "qqq"', (2,), "Known: bilinear, constant"),
        ('type: "xavier" sparse: 2', (2,), "sparse only with a gaussian"),
        ('type: "gaussian" sparse: -2', (2,), "sparse of at least -1"),
        ('type: "gaussian" sparse: 1', (), "one axis or more"),
        ('type: "bilinear"', (2, 2), r"\(n, c, k, k\)"),
        ('type: "bilinear"', (1, 1, 2, 3), r"\(1, 1, 2, 3\)"),
        ('type: "constant"', (2, 0), "at least one element"),
    ],
)
def test_fillers_that_are_refused(text, shape, message):
    with pytest.raises(LayerError, match=f"^here: .*{message}"):
        check_filler(filler(text), shape, "here")


def test_lazy_fill_depends_on_its_key_alone():
    p = filler('type: "gaussian" std: 1')
    one, two, other = np.zeros((3, 6), np.float32)
    lazy_fill(p, (2, 3), RandomStream(1), ("fill", "a", 0))(one)
    lazy_fill(p, (2, 3), RandomStream(1), ("fill", "a", 0))(two)
    lazy_fill(p, (2, 3), RandomStream(1), ("fill", "a", 1))(other)
    assert (one == two).all() and (one != other).all()


NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
  num_output: 4 weight_filler { type: "gaussian" std: 1 } bias_filler { type: "uniform" } } }
"""


@pytest.fixture
def count_fills(monkeypatch):
    runs = []
    for kind, function in list(fillers._fillers.items()):
        monkeypatch.setitem(
            fillers._fillers, kind,
            lambda out, p, rng, f=function: (runs.append(p.type), f(out, p, rng)),
        )  # fmt: skip
    return runs


def test_building_a_net_and_setting_its_weights_runs_no_filler(count_fills):
    net = Net(parse_text(NET, caffe_pb2.NetParameter, "net"), 1)
    net.params["ip"][0].set_data(np.ones((4, 3)))
    assert count_fills == []
    net.forward()
    assert count_fills == ["uniform"]  # the bias, which nobody has set


def test_a_net_fills_as_its_seed_and_layer_names_say():
    from demitasse.engine.context import Context

    def weights(seed, text=NET):
        net = Net(parse_text(text, caffe_pb2.NetParameter, "net"), 1, context=Context(seed))
        return net.params["ip"][0].data.copy()

    other = 'layer { name: "first" type: "InnerProduct" bottom: "x" top: "z" inner_product_param {'
    other = NET.replace('layer { name: "ip"', other + ' num_output: 2 } }\nlayer { name: "ip"')
    assert (weights(1) == weights(1)).all()
    assert (weights(1) != weights(2)).any()
    assert (weights(1) == weights(1, other)).all()  # adding a layer changes no other's values
