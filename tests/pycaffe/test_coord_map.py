import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe import coord_map
from caffe.coord_map import coord_map_from_to, crop
from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L
from caffe.net_spec import params as P


def spec(ks=3, stride=1, pad=0, pool=2, dstride=2, dpad=0):
    """A convolution, a pooling and a deconvolution that enlarges again."""
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[2, 1, 100, 100]))
    n.aux = L.Input(shape=dict(dim=[2, 1, 20, 20]))
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=ks, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=pool, stride=pool)
    kernel = (np.array(dstride) * 2).tolist()
    n.deconv = L.Deconvolution(
        n.pool, convolution_param=dict(num_output=1, kernel_size=kernel, stride=dstride, pad=dpad)
    )
    return n


def test_identity_of_pooling_and_deconvolution():
    n = spec()
    assert coord_map_from_to(n.deconv, n.data) == (1, 1, 0)
    axis, scale, shift = coord_map_from_to(n.data, n.data)
    assert (axis, scale, shift) == (None, 1, 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
def test_convolution_maps_to_the_centre_of_its_window(kernel, stride, pad, dilation):
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, 50, 50]))
    n.conv = L.Convolution(
        n.data, num_output=1, kernel_size=kernel, stride=stride, pad=pad, dilation=dilation
    )
    _, scale, shift = coord_map_from_to(n.conv, n.data)
    for x in range(3):  # inputs that output x sees
        seen = x * stride - pad + dilation * np.arange(kernel)
        assert scale * x + shift == pytest.approx(seen.mean())
    axis, *back = coord_map.inverse(coord_map_from_to(n.data, n.conv))
    np.testing.assert_allclose(back, [scale, shift], atol=1e-12)
    assert axis == 1


def test_padding_shifts():
    for pad in range(3):
        n = spec(ks=5, pad=pad)
        assert coord_map_from_to(n.conv, n.data)[2] == 2 - pad


def test_anisotropic_and_nd():
    n = spec(ks=[3, 5], pad=[1, 2])
    axis, scale, shift = coord_map_from_to(n.conv, n.data)
    assert axis == 1
    np.testing.assert_array_equal(scale * np.ones(2), [1, 1])
    np.testing.assert_array_equal(shift, [0, 0])


def test_pass_through_layers_and_branches():
    n = spec()
    n.relu = L.ReLU(L.BatchNorm(n.conv))
    n.sum = L.Eltwise(n.relu, n.conv)
    np.testing.assert_array_equal(
        np.hstack(coord_map_from_to(n.sum, n.data)[1:]),
        np.hstack(coord_map_from_to(n.conv, n.data)[1:]),
    )


def test_many_branches_take_no_exponential_time():
    n = spec()
    top = n.conv
    for _ in range(60):
        top = L.Eltwise(L.ReLU(top), L.TanH(top))
    assert coord_map_from_to(top, n.data)[0] == 1


def test_crop_of_a_crop_adds_its_offset():
    n = spec()
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    n.crop = L.Crop(n.deconv, n.data, axis=2, offset=7)
    assert coord_map_from_to(n.crop, n.data) == (axis, scale, shift + 7)
    n.aligned = crop(n.deconv, n.data)
    assert coord_map_from_to(n.aligned, n.data)[2] == 0


def test_the_crop_layer_lines_tops_up():
    n = spec(dstride=4, pool=4)
    n.score = crop(n.deconv, n.data)
    layer = n.to_proto().layer[-1]
    assert (layer.type, list(layer.bottom)) == ("Crop", ["deconv", "data"])
    assert layer.crop_param.axis == 2
    # Deconvolution: 4p + 3.5; pooling: 4p + 1.5 in conv, one more in data. So d is d - 1.
    assert list(layer.crop_param.offset) == [1]


def test_errors_are_those_of_pycaffe():
    n = spec()
    n.ip = L.InnerProduct(n.deconv, num_output=10)
    with pytest.raises(RuntimeError, match="common ancestor"):
        coord_map_from_to(n.ip, n.data)
    with pytest.raises(RuntimeError):
        coord_map_from_to(n.aux, n.data)
    with pytest.raises(coord_map.UndefinedMapException, match="InnerProduct"):
        coord_map.coord_map(n.ip.fn)
    n = spec(pool=3, dstride=2)
    with pytest.raises(AssertionError, match="same scale"):
        crop(n.deconv, n.data)
    n = spec(dpad=10)
    with pytest.raises(AssertionError, match="at least 0"):
        crop(n.deconv, n.data)
    n = spec(ks=4)
    with pytest.raises(AssertionError, match="whole offset"):
        crop(n.deconv, n.data)
    with pytest.raises(AssertionError, match="kernel_h"):
        coord_map.conv_params(L.Convolution(n.data, kernel_h=3, kernel_w=3).fn)
    with pytest.raises(coord_map.AxisMismatchException, match=r"axis 2.*axis 1"):
        coord_map.compose((2, 1, 0), (1, 1, 0))
