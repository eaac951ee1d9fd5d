"""Proposal."""

import numpy as np
import pytest
from box_nets import build, fill, gives_zero_gradients, golden, run, settings_of

from demitasse.boxes.anchors import generate_anchors, shift_anchors
from demitasse.engine.errors import LayerError
from demitasse.engine.phase import TEST, TRAIN
from demitasse.layers.proposal import ProposalLayer, ProposalLimits, ProposalSettings

rng = np.random.default_rng(0)

PARAM_STR = "'feat_stride': 16"
INFO = np.array([[224, 300, 1.6]])
PHASES = {"TRAIN": TRAIN, "TEST": TEST}
POOLING = """
    layer { name: "x" type: "Input" top: "x"
            input_param { shape { dim: 1 dim: 2 dim: 14 dim: 19 } } }
    layer { name: "pool" type: "ROIPooling" bottom: "x" bottom: "top0" top: "pool"
            roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.05 } }
    layer { name: "sum" type: "Reduction" bottom: "pool" top: "sum" }
"""


def outputs(images=1, size=(14, 19), anchors=9):
    """Made-up scores and deltas of an RPN."""
    scores = rng.permutation(images * 2 * anchors * size[0] * size[1]) / 1e4
    deltas = rng.normal(0, 0.3, (images, 4 * anchors, *size))
    return [scores.reshape(images, 2 * anchors, *size), deltas]


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("kind", ["Proposal", ("rpn.proposal_layer", "ProposalLayer")])
def test_reference_numbers(k, kind):
    z = golden(f"proposal_{k}")
    phase = str(z["phase"])
    settings = ProposalSettings(**{phase.lower(): settings_of(z, ProposalLimits)})
    bottoms = [z["in/rpn_cls_prob"], z["in/rpn_bbox_pred"], z["in/im_info"]]
    found = run(kind, bottoms, 2, str(z["param_str"]), [settings], PHASES[phase])
    for values, name in zip(found, ("rois", "scores"), strict=True):
        assert values.shape == z[f"out/{name}"].shape
        np.testing.assert_allclose(values, z[f"out/{name}"], rtol=1e-5, atol=1e-3, err_msg=name)


def test_deltas_of_zero_give_clipped_anchors():
    """The inverse transform makes them a pixel larger; see `bbox_transform_inv`."""
    scores = outputs()[0]
    param_str = "{feat_stride: 16, RPN_NMS_THRESH: 1, RPN_POST_NMS_TOP_N: 0, RPN_MIN_SIZE: 0}"
    rois, found = run("Proposal", [scores, np.zeros((1, 36, 14, 19)), INFO], 2, param_str)
    anchors = shift_anchors(generate_anchors(), 14, 19, 16) + [0, 0, 1, 1]
    anchors = np.clip(anchors, 0, [299, 223, 299, 223])
    foreground = scores[0, 9:].transpose(1, 2, 0).ravel()
    order = np.argsort(-foreground)
    assert (rois[:, 0] == 0).all()
    np.testing.assert_array_equal(rois[:, 1:], anchors[order])
    np.testing.assert_allclose(found[:, 0], foreground[order], rtol=1e-6)


def test_limits_in_the_param_str_count_first():
    limits = ProposalLimits(RPN_POST_NMS_TOP_N=50, RPN_MIN_SIZE=0)
    settings = [ProposalSettings(train=limits, test=limits)]
    bottoms = [*outputs(), INFO]
    assert len(run("Proposal", bottoms, 1, PARAM_STR, settings)[0]) == 50
    param_str = "{feat_stride: 16, RPN_POST_NMS_TOP_N: 20}"
    assert len(run("Proposal", bottoms, 1, param_str, settings)[0]) == 20
    param_str = "{feat_stride: 16, RPN_PRE_NMS_TOP_N: 10, RPN_NMS_THRESH: 1.0}"
    assert len(run("Proposal", bottoms, 1, param_str, settings)[0]) == 10
    param_str = "{feat_stride: 16, RPN_MIN_SIZE: 100}"  # of the image before resizing
    rois = run("Proposal", bottoms, 1, param_str, settings)[0]
    assert (rois[:, 3:] - rois[:, 1:3] + 1 >= 160).all()


@pytest.mark.parametrize("ratio, shorter", [(0.5, 97), (1, 129), (2, 89)])
def test_boxes_of_just_the_least_size_are_kept(ratio, shorter):
    """One anchor, a pixel larger by the transform; without it, the whole image is proposed."""
    deltas = np.zeros((1, 4, 1, 1))
    deltas[0, :2] = 1  # by its own size, so that nothing is clipped
    bottoms = [np.ones((1, 2, 1, 1)), deltas, [[400, 400, 1]]]
    for least, kept in ((shorter, True), (shorter + 0.5, False)):
        param_str = f"{{feat_stride: 16, scales: [8], ratios: [{ratio}], RPN_MIN_SIZE: {least}}}"
        _, x1, y1, x2, y2 = run("Proposal", bottoms, 1, param_str)[0][0]
        sides = (x2 - x1 + 1, y2 - y1 + 1)
        assert min(sides) == (shorter if kept else 400)


def test_each_phase_has_its_limits():
    settings = ProposalSettings(
        train=ProposalLimits(RPN_POST_NMS_TOP_N=30), test=ProposalLimits(RPN_POST_NMS_TOP_N=8)
    )
    bottoms = [*outputs(), INFO]
    for phase, count in ((TRAIN, 30), (TEST, 8)):
        assert len(run("Proposal", bottoms, 1, PARAM_STR, [settings], phase)[0]) == count


def test_the_defaults_are_py_faster_rcnns():
    train, test = ProposalSettings().train, ProposalSettings().test
    assert (train.RPN_NMS_THRESH, train.RPN_MIN_SIZE) == (0.7, 16)
    assert (test.RPN_NMS_THRESH, test.RPN_MIN_SIZE) == (0.7, 16)
    assert (train.RPN_PRE_NMS_TOP_N, train.RPN_POST_NMS_TOP_N) == (12000, 2000)
    assert (test.RPN_PRE_NMS_TOP_N, test.RPN_POST_NMS_TOP_N) == (6000, 300)


def test_images_of_a_batch_are_as_alone():
    sizes = np.array([[224, 300, 1.6], [160, 200, 1]])
    scores, deltas = outputs(2)
    rois, found = run("Proposal", [scores, deltas, sizes], 2, PARAM_STR)
    assert set(rois[:, 0]) == {0, 1} and (np.diff(rois[:, 0]) >= 0).all()
    for i in range(2):
        alone = [v[i : i + 1] for v in (scores, deltas, sizes)]
        expected, expected_scores = run("Proposal", alone, 2, PARAM_STR)
        np.testing.assert_array_equal(rois[rois[:, 0] == i, 1:], expected[:, 1:])
        np.testing.assert_array_equal(found[rois[:, 0] == i], expected_scores)


@pytest.mark.parametrize("size", [(14, 19), (0, 19)])
def test_where_nothing_is_left_the_whole_image_is_proposed(size):
    scores, deltas = outputs(2, size)
    info = [[224, 300, 1000], [100, 120, 1000]]  # no box is 16000 pixels wide
    rois, found = run("Proposal", [scores, deltas, info], 2, PARAM_STR)
    np.testing.assert_array_equal(rois, [[0, 0, 0, 299, 223], [1, 0, 0, 119, 99]])
    np.testing.assert_array_equal(found, [[0], [0]])


def test_an_im_info_that_nobody_has_set():
    rois = run("Proposal", [*outputs(), np.zeros((1, 3))], 1, PARAM_STR)[0]
    np.testing.assert_array_equal(rois, np.zeros((1, 5)))


def test_sizes_beyond_all_floats_become_the_images():
    scores, deltas = outputs()
    deltas[0, 2::4] = deltas[0, 3::4] = 1e4  # exp of it is infinite
    rois = run("Proposal", [scores, deltas, INFO], 1, PARAM_STR)[0]
    np.testing.assert_array_equal(rois, [[0, 0, 0, 299, 223]])


def test_equal_scores_keep_the_order_of_anchors():
    bottoms = [np.full((1, 18, 14, 19), 0.5), np.zeros((1, 36, 14, 19)), INFO]
    param_str = "{feat_stride: 16, RPN_NMS_THRESH: 1.0, RPN_MIN_SIZE: 0, RPN_POST_NMS_TOP_N: 5}"
    rois = run("Proposal", bottoms, 1, param_str)[0]
    anchors = generate_anchors()[:5] + [0, 0, 1, 1]
    np.testing.assert_array_equal(rois[:, 1:], anchors.clip(0, [299, 223, 299, 223]))


@pytest.mark.parametrize("keep", ["all", "minimal"])
def test_later_layers_follow_the_number_of_rois(keep):
    net = build("Proposal", [*outputs(), INFO], 1, PARAM_STR, more=POOLING, keep=keep, phase=TEST)
    net.blobs["x"].data[...] = 1
    for scale in (1.6, 1000, 8, 1):
        bottoms = [*outputs(), [[224, 300, scale]]]
        fill(net, bottoms)
        net.forward()
        count = len(run("Proposal", bottoms, 1, PARAM_STR, phase=TEST)[0])
        assert net.blobs["pool"].shape == (count, 2, 2, 2)
        assert net.blobs["sum"].data == pytest.approx(8 * count)
        net.reshape()
        assert net.blobs["pool"].shape == (count, 2, 2, 2)


def test_a_net_is_built_with_one_roi():
    net = build("Proposal", [*outputs(), INFO], 2, PARAM_STR, more=POOLING)
    assert [net.blobs[n].shape for n in ("top0", "top1", "pool")] == [(1, 5), (1, 1), (1, 2, 2, 2)]


def test_gradients_are_zero():
    net = build("Proposal", [*outputs(), INFO], 2, PARAM_STR)
    net.forward()
    assert gives_zero_gradients(net)


def test_double_precision():
    bottoms = [*outputs(), INFO]
    double, single = (
        run("Proposal", bottoms, 1, PARAM_STR, dtype=d)[0] for d in (np.float64, np.float32)
    )
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=1e-4, atol=1e-3)


def test_py_faster_rcnns_name():
    assert ProposalLayer.type_name == "Proposal"


@pytest.mark.parametrize("bottom, name", [(0, "rpn_cls_prob"), (1, "rpn_bbox_pred")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(bottom, name, value):
    bottoms = [*outputs(), INFO]
    bottoms[bottom][0, 3, 2, 1] = value
    size = bottoms[bottom].size
    with pytest.raises(LayerError, match=f"in {name}, found 1 of {size} .* training has diverged"):
        run("Proposal", bottoms, 2, PARAM_STR)


@pytest.mark.parametrize(
    "scores, deltas, info, param_str, message",
    [
        ((1, 12, 4, 5), (1, 36, 4, 5), (1, 3), PARAM_STR,
         r"rpn_cls_prob \(N, 18, H, W\), 2 channels for each of 9 .*num_output .* to 18"),
        ((1, 18, 4, 5), (1, 24, 4, 5), (1, 3), PARAM_STR,
         r"rpn_bbox_pred \(N, 36, H, W\), 4 channels for each of 9 .*num_output .* to 36"),
        ((1, 18, 4, 5), (1, 36, 5, 4), (1, 3), PARAM_STR, "maps of one size"),
        ((2, 18, 4, 5), (1, 36, 4, 5), (1, 3), PARAM_STR, "as many images"),
        ((0, 18, 4, 5), (0, 36, 4, 5), (0, 3), PARAM_STR, "at least 1"),
        ((1, 18, 4, 5), (1, 36, 4, 5), (2, 3), PARAM_STR, r"im_info \(1, 3\)"),
        ((1, 18, 4, 5), (1, 36, 4, 5), (1, 3), "", "feat_stride"),
        ((1, 18, 4, 5), (1, 36, 4, 5), (1, 3), "{RPN_MIN_SIZ: 3}", "Did you mean 'RPN_MIN_SIZE'"),
    ],
)  # fmt: skip
def test_errors(scores, deltas, info, param_str, message):
    bottoms = [np.zeros(s) for s in (scores, deltas, info)]
    with pytest.raises(LayerError, match=rf"layer 'boxes' \(Proposal\).*{message}"):
        run("Proposal", bottoms, 1, param_str)
