"""Matching and sampling on the device: the layers there against the layers on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest

from demitasse.boxes.sampling import sample
from demitasse.engine import transfers
from demitasse.engine.errors import LayerError
from demitasse.engine.kernels.cuda import host
from demitasse.engine.random import RandomStream
from demitasse.layers.anchor_target import AnchorTargetSettings
from demitasse.layers.proposal_target import ProposalTargetSettings

sys.path.append(str(Path(__file__).parents[1] / "layers"))
from box_nets import build, fill, golden, run, settings_of

rng = np.random.default_rng(0)
STRIDE, CLASSES = "'feat_stride': 16", "'num_classes': 21"
OBJECTS = np.array([[30, 40, 180.3, 200, 2], [100, 20.7, 290, 150, 1], [200, 160, 260, 220, 7.0]])
INFO = np.array([[224, 300, 1.6]])
SCORES = np.zeros((1, 18, 14, 19))


def agree(place, kind, bottoms, param_str, settings=(), **options):
    """Both places give the same numbers, to rounding of `log`; returns them."""
    tops = 4 if kind == "AnchorTarget" else 5
    expected = run(kind, bottoms, tops, param_str, settings, **options)
    found = run(kind, bottoms, tops, param_str, settings, device=place.device, **options)
    for k, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        is_transform = k == (1 if kind == "AnchorTarget" else 2)
        near = {"rtol": 1e-5, "atol": 1e-6} if is_transform else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(ours, theirs, **near, err_msg=f"top {k}")
    return found


# ---- the sample


@pytest.mark.parametrize(
    "count, wanted, most",
    [
        (700, 64, 20), (700, 64, 500), (700, 10**6, 10**6), (700, 0, 0), (1, 1, 1),
        (12000, 256, 128), (24000, 2000, 1000), (33000, 256, 128),
    ],
)  # fmt: skip
@pytest.mark.parametrize("parts", [(0.5, 0.5), (0.01, 0.9), (0.9, 0.01), (1, 0), (0, 0.02)])
def test_the_sample_is_numpys(place, count, wanted, most, parts):
    """Few and many; from 10000 on NumPy shuffles where many are wanted."""
    flags = rng.choice([1, 2, 0], count, p=[*parts, 1 - sum(parts)]).astype(np.int8)
    stream = RandomStream(3)
    foreground, background = np.flatnonzero(flags == 1), np.flatnonzero(flags == 2)
    fg, bg = sample(foreground, background, wanted, most, stream.generator("x", count))
    found, left = place.put(np.zeros(2, np.int32), flags)
    kept = place.sampling.sample(left, wanted, most, stream.key("x", count), found)
    assert place.get(found).tolist() == [len(fg), len(bg)]
    np.testing.assert_array_equal(place.get(kept)[: len(fg) + len(bg)], [*fg, *bg])
    expected = np.zeros_like(flags)
    expected[fg], expected[bg] = 1, 2
    np.testing.assert_array_equal(place.get(left), expected)


def test_a_box_may_be_both(place):
    flags = rng.integers(0, 4, 90).astype(np.int8)
    stream = RandomStream(4)
    sets = [np.flatnonzero(flags & bit) for bit in (1, 2)]
    for wanted, most in ((50, 25), (100, 100), (95, 40)):
        fg, bg = sample(*sets, wanted, most, stream.generator(wanted))
        found, left = place.put(np.zeros(2, np.int32), flags)
        kept = place.sampling.sample(left, wanted, most, stream.key(wanted), found)
        np.testing.assert_array_equal(place.get(kept)[: len(fg) + len(bg)], [*fg, *bg])


# ---- anchors


@pytest.mark.parametrize("k", range(3))
def test_reference_numbers_of_anchors(place, k):
    z = golden(f"anchor_target_{k}")
    bottoms = [np.zeros(z["in/score_shape"]), z["in/gt_boxes"], z["in/im_info"]]
    settings = [settings_of(z, AnchorTargetSettings)]
    found = run("AnchorTarget", bottoms, 4, str(z["param_str"]), settings, device=place.device)
    names = ("labels", "bbox_targets", "bbox_inside_weights", "bbox_outside_weights")
    for name, values in zip(names, found, strict=True):
        expected = z[f"out/rpn_{name}"]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5, err_msg=name)


ANCHOR_RULES = [
    AnchorTargetSettings(),
    AnchorTargetSettings(RPN_BATCHSIZE=10**6),
    AnchorTargetSettings(RPN_BATCHSIZE=16, RPN_FG_FRACTION=0.25, RPN_POSITIVE_WEIGHT=0.3),
    AnchorTargetSettings(
        0.5, 0.45, True, RPN_BATCHSIZE=40, RPN_BBOX_INSIDE_WEIGHTS=(1, 0.1, 2, 3),
        RPN_POSITIVE_WEIGHT=0.9,
    ),
    AnchorTargetSettings(RPN_BATCHSIZE=0),
]  # fmt: skip


@pytest.mark.parametrize("rules", ANCHOR_RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_anchors(place, rules, dtype):
    found = agree(place, "AnchorTarget", [SCORES, OBJECTS, INFO], STRIDE, [rules], dtype=dtype)
    assert (found[0] >= 0).any() == (rules.RPN_BATCHSIZE > 0)


def test_anchors_of_several_images_with_padding(place):
    objects = np.zeros((3, 5, 5))
    objects[0, 1:4], objects[2, 2] = OBJECTS, OBJECTS[1]
    info = [[224, 300, 1.6], [160, 304, 1], [100, 128.5, 1]]
    bottoms = [np.zeros((3, 18, 14, 19)), objects, info]
    agree(place, "AnchorTarget", bottoms, "{feat_stride: 16, allowed_border: 20}")
    bottoms[0] = np.zeros((3, 12, 10, 22))
    agree(place, "AnchorTarget", bottoms, "{feat_stride: 16, scales: [2, 5], ratios: [1, 3, 0.4]}")


@pytest.mark.parametrize("shape", [(0, 5), (2, 5), (1, 0, 5)])
def test_anchors_without_objects(place, shape):
    agree(place, "AnchorTarget", [SCORES, np.zeros(shape), INFO], STRIDE)


def test_an_object_out_of_reach_takes_what_overlaps_none_of_it(place):
    far = np.array([[0, 0, 3, 3, 1], *OBJECTS[:1]])
    agree(place, "AnchorTarget", [SCORES, far, INFO], STRIDE)


def test_no_anchor_inside_is_said_once(place, caplog):
    bottoms = [SCORES, OBJECTS, [[40, 50, 1]]]
    net = build("AnchorTarget", bottoms, 4, STRIDE, device=place.device)
    for _ in range(2):
        net.forward()
    (record,) = caplog.records
    assert "50 x 40 pixels" in record.getMessage()
    assert (net.blobs["top0"].data == -1).all()
    agree(place, "AnchorTarget", [SCORES, OBJECTS, INFO], STRIDE)
    assert len(caplog.records) == 1


# ---- regions of interest


def proposals(count, image=0):
    """RoIs (R, 5), some of them near an object."""
    corners = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 150, (count, 2))], axis=1)
    near = count // 3
    boxes[:near] = OBJECTS[rng.integers(0, 3, near), :4] + rng.normal(0, 8, (near, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return np.concatenate([np.full((count, 1), image), boxes], axis=1)


ROI_RULES = [
    ProposalTargetSettings(),
    ProposalTargetSettings(BATCH_SIZE=10**4),
    ProposalTargetSettings(BATCH_SIZE=33, FG_FRACTION=0.5, FG_THRESH=0.7, BG_THRESH_LO=0),
    ProposalTargetSettings(BATCH_SIZE=700, FG_FRACTION=1, FG_THRESH=0.3, BG_THRESH_HI=0.6),
    ProposalTargetSettings(
        BBOX_NORMALIZE_TARGETS_PRECOMPUTED=True, BBOX_INSIDE_WEIGHTS=(1, 0, 0.1, 3),
        BBOX_NORMALIZE_MEANS=(0.1, 0.2, 0.3, 0.4),
    ),
]  # fmt: skip


@pytest.mark.parametrize("rules", ROI_RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rois(place, rules, dtype):
    bottoms = [proposals(300), OBJECTS]
    agree(place, "ProposalTarget", bottoms, CLASSES, [rules], dtype=dtype)


def test_rois_of_several_images_with_padding(place):
    objects = np.zeros((3, 5, 5))
    objects[0, 1:4], objects[2, 2] = OBJECTS, OBJECTS[1]
    rois = rng.permutation(np.concatenate([proposals(150, i) for i in range(3)]))
    for rules in (ProposalTargetSettings(), ProposalTargetSettings(BATCH_SIZE=10**4)):
        agree(place, "ProposalTarget", [rois, objects], CLASSES, [rules])


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (1, 3, 5)])
def test_rois_without_objects(place, shape):
    agree(place, "ProposalTarget", [proposals(60), np.zeros(shape)], CLASSES)


def test_objects_without_rois(place):
    agree(place, "ProposalTarget", [np.zeros((0, 5)), OBJECTS], CLASSES)


def test_another_number_every_pass(place):
    first = [proposals(400), OBJECTS]
    nets = [
        build("ProposalTarget", first, 5, CLASSES, device=device)
        for device in (None, place.device)
    ]  # fmt: skip
    for count, objects in ((400, 3), (7, 1), (0, 2), (90, 0), (300, 3)):
        for net in nets:
            fill(net, [first[0][:count], OBJECTS[:objects]])
            net.forward()
        for k in (0, 1, 3, 4):
            expected, found = (net.blobs[f"top{k}"].data for net in nets)
            np.testing.assert_array_equal(found, expected)


def test_the_order_of_threads_does_not_matter(place):
    with host.backwards():
        agree(place, "ProposalTarget", [proposals(300), OBJECTS], CLASSES)
        agree(place, "AnchorTarget", [SCORES, OBJECTS, INFO], STRIDE)


@pytest.mark.parametrize(
    "rois, objects, message",
    [
        ([[1, 0, 0, 5, 5]], OBJECTS, r"RoIs of image 0 to 0.*RoI 0: \[1.0.*is \(N, G, 5\)"),
        ([[0, 0, 0, 5, 5], [0.5, 0, 0, 5, 5], [3, 0, 0, 1, 1]], OBJECTS, "found RoI 1"),
        ([[0, 0, np.nan, 5, 5]], OBJECTS, "finite RoIs"),
        ([[0, 0, 5, 5, 9]], [[0, 0, 5, 5, 21]], "classes below num_classes 21, found 21"),
        (np.zeros((0, 5)), np.zeros((1, 5)), "RoIs to learn from, found none"),
    ],
)
def test_errors(place, rois, objects, message):
    with pytest.raises(LayerError, match=rf"layer 'boxes' \(ProposalTarget\).*{message}"):
        run("ProposalTarget", [rois, objects], 5, CLASSES, device=place.device)


def test_how_often_a_pass_waits(place):
    for kind, bottoms, tops, text, waits in (
        ("AnchorTarget", [SCORES, OBJECTS, INFO], 4, STRIDE, []),
        ("ProposalTarget", [proposals(300), OBJECTS], 5, CLASSES, ["boxes (ProposalTarget)"]),
    ):
        net = build(kind, bottoms, tops, text, device=place.device)
        net.forward()
        with transfers.watch(place.device) as log:
            fill(net, bottoms)
            log.next_iteration()
            net.forward()
        assert [t.layer for t in log.synchronisations()[-1]] == waits, log.report()
