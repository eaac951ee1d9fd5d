"""Proposals on the device: the layer there against the layer on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest

from demitasse.engine import transfers
from demitasse.engine.errors import LayerError
from demitasse.engine.kernels.cuda import host
from demitasse.engine.phase import TEST
from demitasse.layers.proposal import ProposalLimits, ProposalSettings

sys.path.append(str(Path(__file__).parents[1] / "layers"))
from box_nets import build, fill, golden, run, settings_of, tops_of

rng = np.random.default_rng(0)
PARAM_STR = "'feat_stride': 16"
INFO = np.array([[224, 300, 1.6]])


def outputs(images=1, size=(14, 19), anchors=9, values=None):
    """Made-up scores, of so many different values, and deltas of an RPN."""
    count = images * 2 * anchors * size[0] * size[1]
    scores = rng.permutation(count) if values is None else rng.integers(0, values, count)
    deltas = rng.normal(0, 0.3, (images, 4 * anchors, *size))
    return [scores.reshape(images, 2 * anchors, *size) / 1e4, deltas]


def limits(*values):
    """Settings of ProposalLimits(*values) in both phases."""
    return [ProposalSettings(train=ProposalLimits(*values), test=ProposalLimits(*values))]


def agree(place, bottoms, settings=(), tops=2, **options):
    """Whether both give the same boxes, to rounding of `exp`, in the same order; returns them."""
    expected = run("Proposal", bottoms, tops, PARAM_STR, settings, **options)
    found = run("Proposal", bottoms, tops, PARAM_STR, settings, device=place.device, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)
    return found


@pytest.mark.parametrize("k", range(3))
def test_reference_numbers(place, k):
    z = golden(f"proposal_{k}")
    phase = str(z["phase"])
    settings = [ProposalSettings(**{phase.lower(): settings_of(z, ProposalLimits)})]
    bottoms = [z["in/rpn_cls_prob"], z["in/rpn_bbox_pred"], z["in/im_info"]]
    options = {} if phase == "TRAIN" else {"phase": TEST}
    found = run("Proposal", bottoms, 2, str(z["param_str"]), settings, device=place.device,
                **options)  # fmt: skip
    for values, name in zip(found, ("rois", "scores"), strict=True):
        np.testing.assert_allclose(values, z[f"out/{name}"], rtol=1e-5, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("before, after", [(12000, 2000), (700, 40), (0, 0), (3, 0), (0, 7)])
def test_counts(place, dtype, before, after):
    agree(place, [*outputs(), INFO], limits(0.7, before, after, 16), dtype=dtype)


@pytest.mark.parametrize("threshold, least", [(0.3, 0), (1, 60), (0.5, 16)])
def test_thresholds(place, threshold, least):
    agree(place, [*outputs(), INFO], limits(threshold, 1500, 300, least), tops=1)


def test_equal_scores_keep_the_order_of_anchors(place):
    # With deltas of zero all boxes are exact.
    scores, deltas = outputs(values=3)
    settings = limits(0.7, 1300, 200, 16)
    bottoms = [scores, 0 * deltas, INFO]
    (expected,) = run("Proposal", bottoms, 1, PARAM_STR, settings)
    (found,) = run("Proposal", bottoms, 1, PARAM_STR, settings, device=place.device)
    np.testing.assert_array_equal(found, expected)
    with host.backwards():
        (again,) = run("Proposal", bottoms, 1, PARAM_STR, settings, device=place.device)
    np.testing.assert_array_equal(again, expected)


def test_images_of_a_batch_one_without_large_boxes(place):
    info = np.array([[224, 300, 1.6], [100, 120, 1000], [160, 200, 1]])
    found = agree(place, [*outputs(3), info])
    assert (found[0][:, 0] == 1).sum() == 1


@pytest.mark.parametrize("size", [(14, 19), (0, 19)])
def test_where_nothing_is_left_the_whole_image_is_proposed(place, size):
    agree(place, [*outputs(2, size), [[224, 300, 1000], [100, 120, 1000]]])


def test_an_im_info_that_nobody_has_set(place):
    agree(place, [*outputs(), np.zeros((1, 3))])


def test_sizes_beyond_all_floats(place):
    scores, deltas = outputs()
    deltas[0, 2::4] = deltas[0, 3::4] = 1e4
    agree(place, [scores, deltas, INFO])
    deltas[0, 0::4] = 3e38  # and minus infinity beside it is no number: such a box is left out
    agree(place, [scores, deltas, INFO])


@pytest.mark.parametrize("bottom, name", [(0, "rpn_cls_prob"), (1, "rpn_bbox_pred")])
def test_numbers_that_are_not_finite(place, bottom, name):
    bottoms = [*outputs(), INFO]
    bottoms[bottom][0, 3:5, 2, 1] = np.nan, np.inf
    bottoms[bottom][0, -1, 0, 0] = -np.inf
    size = bottoms[bottom].size
    with pytest.raises(LayerError, match=f"in {name}, found 3 of {size} .* training has diverged"):
        run("Proposal", bottoms, 2, PARAM_STR, device=place.device)


def test_one_pass_waits_once(place):
    net = build("Proposal", [*outputs(2), INFO.repeat(2, 0)], 2, PARAM_STR, device=place.device)
    net.forward()
    with transfers.watch(place.device) as log:
        for _ in range(2):
            fill(net, [*outputs(2), INFO.repeat(2, 0)])
            log.next_iteration()
            net.forward()
    for waits in log.synchronisations()[1:]:
        assert [t.layer for t in waits] == ["boxes (Proposal)"], log.report()
    assert len(tops_of(net)[0])


def counted_later(place, bottoms):
    net = build("Proposal", bottoms, 2, PARAM_STR, device=place.device)
    net.nodes[-1].layer.counts_later = True
    with transfers.watch(place.device) as log:
        net.forward()
    assert not log.synchronisations()[0], log.report()
    return net, net.nodes[-1].layer


def test_the_number_may_be_asked_for_later(place):
    bottoms = [*outputs(), INFO]
    expected = run("Proposal", bottoms, 2, PARAM_STR, device=place.device)
    net, layer = counted_later(place, bottoms)
    assert layer.is_unsettled
    room, count = layer.settle()
    assert not layer.is_unsettled
    for top, rows in zip(tops_of(net), expected, strict=True):
        assert len(top) == room >= count == len(rows)
        np.testing.assert_array_equal(top[:count], rows)
        assert not top[count:].any()
    assert room > count  # or nothing was shown


def test_numbers_that_are_not_finite_are_told_of_later(place):
    bottoms = [*outputs(), INFO]
    bottoms[0][0, 3, 2, 1] = np.nan
    _, layer = counted_later(place, bottoms)
    with pytest.raises(LayerError, match="in rpn_cls_prob, found 1 of"):
        layer.settle()


def test_several_images_are_waited_for_at_once(place):
    net = build("Proposal", [*outputs(2), INFO.repeat(2, 0)], 2, PARAM_STR, device=place.device)
    net.nodes[-1].layer.counts_later = True
    net.forward()
    assert not net.nodes[-1].layer.is_unsettled
