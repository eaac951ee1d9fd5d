"""AnchorTarget."""

import numpy as np
import pytest
from box_nets import build, fill, gives_zero_gradients, golden, run, settings_of, tops_of

from demitasse.engine.errors import LayerError
from demitasse.layers.anchor_target import AnchorTargetLayer, AnchorTargetSettings

rng = np.random.default_rng(0)

PARAM_STR = "'feat_stride': 16"
EVERYTHING = AnchorTargetSettings(RPN_BATCHSIZE=10**6)
TOPS = ("labels", "bbox_targets", "bbox_inside_weights", "bbox_outside_weights")
OBJECTS = np.array([[30, 40, 180, 200, 2], [100, 20, 290, 150, 1], [200, 160, 260, 220, 7.0]])
INFO = np.array([[224, 300, 1.6]])
SCORES = np.zeros((1, 18, 14, 19))


def case(k):
    z = golden(f"anchor_target_{k}")
    bottoms = [np.zeros(z["in/score_shape"]), z["in/gt_boxes"], z["in/im_info"]]
    return z, bottoms, settings_of(z, AnchorTargetSettings)


def agree(found, z):
    for name, values in zip(TOPS, found, strict=True):
        expected = z[f"out/rpn_{name}"]
        assert values.shape == expected.shape
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("kind", ["AnchorTarget", ("rpn.anchor_target_layer", "AnchorTargetLayer")])
def test_reference_numbers(k, kind):
    z, bottoms, settings = case(k)
    agree(run(kind, bottoms, 4, str(z["param_str"]), [settings]), z)


def test_the_images_may_be_a_bottom():
    z, bottoms, settings = case(0)
    images = np.ones((1, 3, 224, 304))
    agree(run("AnchorTarget", [*bottoms, images], 4, str(z["param_str"]), [settings]), z)


def target(objects, info=INFO, scores=SCORES, settings=EVERYTHING, **options):
    return run("AnchorTarget", [scores, objects, info], 4, PARAM_STR, [settings], **options)


def test_images_of_a_batch_are_as_alone():
    sizes = np.array([[224, 300, 1.6], [160, 304, 1]])
    padded = np.zeros((2, 5, 5))
    padded[0, 1:4], padded[1, 2:4] = OBJECTS, OBJECTS[:2]
    together = target(padded, sizes, np.zeros((2, 18, 14, 19)))
    for i, objects in enumerate((OBJECTS, OBJECTS[:2])):
        for alone, every in zip(target(objects, sizes[i : i + 1]), together):
            np.testing.assert_array_equal(every[i : i + 1], alone)
    assert (together[0][0] != together[0][1]).any()


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 5), (1, 2, 5)])
def test_an_image_without_objects_is_background(shape):
    labels, targets, inside, outside = target(np.zeros(shape))
    # With objects, the anchors inside the image have targets.
    counted = target(OBJECTS)[1].reshape(9, 4, 14, 19).any(axis=1).reshape(labels.shape)
    np.testing.assert_array_equal(labels, np.where(counted, 0, -1))
    assert counted.any() and not targets.any() and not inside.any()
    assert outside.sum() == pytest.approx(4)


def test_which_anchors_count():
    """Those inside the image, by loops over one anchor of 64 x 64; some end at its very edge."""
    scores = np.zeros((1, 2, 14, 19))
    for border in (0, 20):
        param_str = f"{{feat_stride: 16, scales: [4], ratios: [1], allowed_border: {border}}}"
        bottoms = [scores, np.zeros((1, 5)), [[231, 295, 1.6]]]
        labels = run("AnchorTarget", bottoms, 4, param_str, [EVERYTHING])[0]
        for y, x in np.ndindex(14, 19):
            left, top = 16 * x - 24, 16 * y - 24
            inside = min(left, top) >= -border
            inside &= left + 63 < 295 + border and top + 63 < 231 + border
            assert labels[0, 0, y, x] == (0 if inside else -1)


def test_an_image_smaller_than_all_anchors_teaches_nothing_which_is_said_once(caplog):
    labels, *others = target(OBJECTS, [[40, 50, 1]])
    assert (labels == -1).all() and not any(o.any() for o in others)
    net = build("AnchorTarget", [SCORES, OBJECTS, [[40, 50, 1]]], 4, PARAM_STR, [EVERYTHING])
    caplog.clear()
    for _ in range(2):
        net.forward()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    text = record.getMessage()
    for part in ("layer 'boxes' (AnchorTarget)", "8, 16, 32", "50 x 40 pixels", "ANCHOR_SCALES",
                 "TRAIN.SCALES"):  # fmt: skip
        assert part in text
    caplog.clear()
    target(OBJECTS)
    assert not caplog.records


def test_a_map_larger_and_one_smaller_than_the_image():
    """Padding gives no anchors inside; positions that are missing take none away."""
    usual = target(OBJECTS)
    larger = target(OBJECTS, scores=np.zeros((1, 18, 20, 25)))
    small = target(OBJECTS[:1], scores=np.zeros((1, 18, 10, 14)))
    for a, b in zip(usual[1:], larger[1:]):
        np.testing.assert_array_equal(a, b[:, :, :14, :19])
        assert not b[:, :, 14:].any() and not b[:, :, :, 19:].any()
    assert small[0].shape == (1, 1, 90, 14) and (small[0] == 1).any()


def counts(labels):
    return (labels == 1).sum(), (labels == 0).sum()


@pytest.mark.parametrize("size, fraction", [(10, 0.5), (256, 0.5), (30, 0.1), (16, 0)])
def test_the_sample(size, fraction):
    every = target(OBJECTS)
    settings = AnchorTargetSettings(RPN_BATCHSIZE=size, RPN_FG_FRACTION=fraction)
    labels, targets, inside, outside = target(OBJECTS, settings=settings)
    foreground, background = counts(every[0])
    positive = min(int(size * fraction), foreground)
    negative = min(size - positive, background)
    assert counts(labels) == (positive, negative)
    assert ((labels == every[0]) | (labels == -1)).all()
    np.testing.assert_array_equal(targets, every[1])
    assert inside.sum() == 4 * positive
    np.testing.assert_allclose(outside[outside > 0], 1 / (positive + negative))
    assert (outside > 0).sum() == 4 * (positive + negative)


def test_the_sample_follows_from_seed_pass_and_image():
    bottoms = [np.zeros((2, 18, 14, 19)), np.stack([OBJECTS, OBJECTS]), np.tile(INFO, (2, 1))]
    options = {"param_str": PARAM_STR, "settings": [AnchorTargetSettings(RPN_BATCHSIZE=16)]}
    net = build("AnchorTarget", bottoms, 4, **options)
    passes = []
    for _ in range(2):
        net.forward()
        passes.append(tops_of(net)[0])
    again, other = (run("AnchorTarget", bottoms, 4, seed=s, **options)[0] for s in (1, 2))
    assert (again == passes[0]).all()
    assert (other != passes[0]).any() and (passes[1] != passes[0]).any()
    assert (passes[0][0] != passes[0][1]).any()


def test_positive_weight_divides_the_loss():
    settings = AnchorTargetSettings(RPN_POSITIVE_WEIGHT=0.25)
    labels, _, _, outside = target(OBJECTS, settings=settings)
    per_anchor = outside.reshape(1, 9, 4, 14, 19)[:, :, 0].reshape(labels.shape)
    assert per_anchor[labels == 1].sum() == pytest.approx(0.25)
    assert per_anchor[labels == 0].sum() == pytest.approx(0.75)
    assert not per_anchor[labels == -1].any()


def test_inside_weights():
    settings = AnchorTargetSettings(RPN_BBOX_INSIDE_WEIGHTS=(1, 2, 3, 4))
    labels, _, inside, _ = target(OBJECTS, settings=settings)
    positive = (labels == 1).reshape(1, 9, 1, 14, 19)
    expected = positive * np.reshape([1, 2, 3, 4], (4, 1, 1))
    np.testing.assert_array_equal(inside.reshape(1, 9, 4, 14, 19), expected)


def test_gradients_are_zero():
    bottoms = [SCORES, OBJECTS, INFO, np.ones((1, 3, 8, 8))]
    net = build("AnchorTarget", bottoms, 4, PARAM_STR)
    net.forward()
    assert gives_zero_gradients(net)


def test_another_size_every_pass():
    net = build("AnchorTarget", [SCORES, OBJECTS, INFO], 4, PARAM_STR, [EVERYTHING])
    for size, count in (((14, 19), 3), ((20, 9), 1), ((14, 19), 2)):
        bottoms = [np.zeros((1, 18, *size)), OBJECTS[:count], [[size[0] * 16, size[1] * 16, 1]]]
        fill(net, bottoms)
        net.forward()
        expected = run("AnchorTarget", bottoms, 4, PARAM_STR, [EVERYTHING])
        for a, b in zip(tops_of(net), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_py_faster_rcnns_name():
    assert AnchorTargetLayer.type_name == "AnchorTarget"


@pytest.mark.parametrize(
    "scores, objects, info, param_str, message",
    [
        ((1, 17, 4, 5), (1, 5), (1, 3), PARAM_STR, r"\(N, 18, H, W\), 2 channels for each of 9.*"
         r"found shape \(1, 17, 4, 5\).*num_output .* to 18"),
        ((1, 18, 4), (1, 5), (1, 3), PARAM_STR, r"rpn_cls_score \(N, 18, H, W\)"),
        ((1, 18, 4, 5), (1, 5), (1, 3), "", "feat_stride .* found none"),
        ((1, 18, 4, 5), (1, 5), (1, 3), "{feat_stride: 9, ratios: [1000000]}", "width and height"),
        ((1, 18, 4, 5), (1, 5), (1, 3), "{feat_stide: 16}", "found 'feat_stide'. .*'feat_stride'"),
        ((1, 18, 4, 5), (1, 4), (1, 3), PARAM_STR, r"gt_boxes \(G, 5\).*found shape \(1, 4\)"),
        ((2, 18, 4, 5), (1, 5), (2, 3), PARAM_STR, r"gt_boxes of 2 images.*shape \(1, 5\)"),
        ((1, 18, 4, 5), (0, 2, 5), (1, 3), PARAM_STR, r"gt_boxes .* shape \(0, 2, 5\)"),
        ((1, 18, 4, 5), (1, 5), (2, 3), PARAM_STR, r"im_info \(1, 3\).*shape \(2, 3\)"),
        ((1, 18, 4, 5), (1, 5), (1, 2), PARAM_STR, r"im_info \(1, 3\)"),
    ],
)  # fmt: skip
def test_shape_errors(scores, objects, info, param_str, message):
    bottoms = [np.zeros(s) for s in (scores, objects, info)]
    with pytest.raises(LayerError, match=rf"layer 'boxes' \(AnchorTarget\).*{message}"):
        run("AnchorTarget", bottoms, 4, param_str)


@pytest.mark.parametrize(
    "row", [[9, 0, 8, 5, 1], [0, 9, 5, 8, 1], [0, 0, np.nan, 5, 1], [0, 0, 5, 5, -1]]
)
def test_bad_objects(row):
    with pytest.raises(LayerError, match=r"gt_boxes that end .* in image 0"):
        target(np.array([OBJECTS[0], row]))


@pytest.mark.parametrize("info", [[np.nan, 300, 1], [224, np.inf, 1], [224, 300, -1]])
def test_bad_im_info(info):
    with pytest.raises(LayerError, match="of at least 0 in im_info"):
        target(OBJECTS, [info])


@pytest.mark.parametrize("weight", [0, 1, 2, float("nan")])
def test_bad_positive_weight(weight):
    with pytest.raises(LayerError, match="RPN_POSITIVE_WEIGHT"):
        target(OBJECTS, settings=AnchorTargetSettings(RPN_POSITIVE_WEIGHT=weight))
