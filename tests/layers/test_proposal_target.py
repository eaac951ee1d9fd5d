"""ProposalTarget."""

import numpy as np
import pytest
from box_nets import build, fill, gives_zero_gradients, golden, run, settings_of, tops_of

from demitasse.boxes.transform import bbox_transform
from demitasse.engine.errors import LayerError
from demitasse.layers.proposal_target import ProposalTargetLayer, ProposalTargetSettings

rng = np.random.default_rng(0)

PARAM_STR = "'num_classes': 21"
TOPS = ("rois", "labels", "bbox_targets", "bbox_inside_weights", "bbox_outside_weights")
OBJECTS = np.array([[30, 40, 180, 200, 2], [100, 20, 290, 150, 20]])
EVERYTHING = ProposalTargetSettings(BATCH_SIZE=10**4)


def proposals(count=400, image=0):
    corner = rng.uniform(0, 200, (count, 2))
    side = rng.uniform(20, 180, (count, 2))
    return np.concatenate([np.full((count, 1), image), corner, corner + side], axis=1)


ROIS = proposals()


def target(rois=ROIS, objects=OBJECTS, settings=EVERYTHING, **options):
    found = run("ProposalTarget", [rois, objects], 5, PARAM_STR, [settings], **options)
    return dict(zip(TOPS, found, strict=True))


@pytest.mark.parametrize("k", range(2))
@pytest.mark.parametrize(
    "kind", ["ProposalTarget", ("rpn.proposal_target_layer", "ProposalTargetLayer")]
)
def test_reference_numbers(k, kind):
    z = golden(f"proposal_target_{k}")
    settings = settings_of(z, ProposalTargetSettings)
    param_str = f"'num_classes': {z['num_classes']}"
    found = run(kind, [z["in/rpn_rois"], z["in/gt_boxes"]], 5, param_str, [settings])
    for name, values in zip(TOPS, found, strict=True):
        expected = z[f"out/{name}"]
        assert values.shape == expected.shape
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_objects_are_proposals_too():
    """Objects come last among the foreground, with targets of zero."""
    found = target()
    foreground = found["labels"] > 0
    np.testing.assert_allclose(found["rois"][foreground][-2:, 1:], OBJECTS[:, :4])
    assert found["labels"][foreground][-2:].tolist() == [2, 20]
    alone = target(np.zeros((0, 5)))
    np.testing.assert_allclose(alone["rois"], np.insert(OBJECTS[:, :4], 0, 0, axis=1))
    assert alone["labels"].tolist() == [2, 20] and not alone["bbox_targets"].any()
    assert alone["bbox_inside_weights"].sum() == 8


def test_targets_lead_to_the_object():
    found = target()
    for roi, label, row in zip(found["rois"], found["labels"], found["bbox_targets"]):
        columns = np.zeros(84, bool)
        if label:
            columns[4 * int(label) : 4 * int(label) + 4] = True
            (box,) = (b[:4] for b in OBJECTS if b[4] == label)
            expected = bbox_transform(roi[None, 1:], box[None])[0]
            np.testing.assert_allclose(row[columns], expected, rtol=1e-4, atol=1e-5)
        assert not row[~columns].any()


@pytest.mark.parametrize(
    "size, fraction, foreground", [(32, 0.25, 8), (30, 0.25, 8), (24, 0, 0), (8, 1, 8)]
)
def test_the_sample(size, fraction, foreground):
    """30 / 4 is rounded to the even 8."""
    every = target()
    settings = ProposalTargetSettings(BATCH_SIZE=size, FG_FRACTION=fraction)
    found = target(settings=settings)
    labels = found["labels"]
    assert len(labels) == size and (labels > 0).sum() == foreground
    assert not labels[foreground:].any()
    known = {tuple(r): label for r, label in zip(every["rois"], every["labels"])}
    assert [known[tuple(r)] for r in found["rois"]] == labels.tolist()
    assert len({tuple(r) for r in found["rois"]}) == size


def test_background_fills_up():
    """The two objects are the only foreground."""
    found = target(settings=ProposalTargetSettings(BATCH_SIZE=16, FG_THRESH=1))
    assert (found["labels"] > 0).sum() == 2 and len(found["labels"]) == 16


def test_the_sample_follows_from_seed_pass_and_image():
    rois = np.concatenate([ROIS, ROIS + [1, 0, 0, 0, 0]])
    bottoms = [rois, np.stack([OBJECTS, OBJECTS])]
    net = build("ProposalTarget", bottoms, 5, PARAM_STR)
    passes = []
    for _ in range(2):
        net.forward()
        passes.append(tops_of(net)[0])
    again, other = (run("ProposalTarget", bottoms, 5, PARAM_STR, seed=s)[0] for s in (1, 2))
    assert (again == passes[0]).all()
    assert (other != passes[0]).any() and (passes[1] != passes[0]).any()
    assert (passes[0][:64, 1:] != passes[0][64:, 1:]).any()


def test_images_of_a_batch_are_as_alone():
    first, second = ROIS, proposals(100)
    rois = np.concatenate([second + [1, 0, 0, 0, 0], first])  # in any order
    padded = np.zeros((2, 4, 5))
    padded[0, :2], padded[1, 3] = OBJECTS, OBJECTS[1]
    together = target(rois, padded)
    for i, (own, objects) in enumerate(((first, OBJECTS), (second, OBJECTS[1:]))):
        mine = together["rois"][:, 0] == i
        alone = target(own, objects)
        alone["rois"][:, 0] = i
        for name, values in alone.items():
            np.testing.assert_array_equal(together[name][mine], values, err_msg=name)


def test_images_share_the_batch():
    rois = np.concatenate([ROIS, proposals(100, 1)])
    found = target(rois, np.stack([OBJECTS, OBJECTS]), ProposalTargetSettings(BATCH_SIZE=48))
    assert np.bincount(found["rois"][:, 0].astype(int)).tolist() == [24, 24]
    assert (found["labels"][:24] > 0).sum() == (found["labels"][24:] > 0).sum() == 6


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (1, 3, 5)])
def test_an_image_without_objects_is_background(shape):
    found = target(objects=np.zeros(shape), settings=ProposalTargetSettings())
    assert len(found["labels"]) == 128 and not found["labels"].any()
    assert not any(found[name].any() for name in TOPS[2:])
    everything = target(objects=np.zeros(shape))
    np.testing.assert_array_equal(everything["rois"], ROIS.astype(np.float32))


def test_weights_and_normalised_targets():
    plain = target()
    settings = ProposalTargetSettings(
        10**4, BBOX_NORMALIZE_TARGETS_PRECOMPUTED=True, BBOX_INSIDE_WEIGHTS=(1, 0, 2, 3),
        BBOX_NORMALIZE_MEANS=(0.1, 0.2, 0.3, 0.4), BBOX_NORMALIZE_STDS=(1, 2, 4, 8),
    )  # fmt: skip
    found = target(settings=settings)
    mask = plain["bbox_inside_weights"] > 0
    mean, std = np.tile([0.1, 0.2, 0.3, 0.4], 21), np.tile([1, 2, 4, 8], 21)
    expected = (plain["bbox_targets"] - mean) / std * mask
    np.testing.assert_allclose(found["bbox_targets"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["bbox_inside_weights"], mask * np.tile([1, 0, 2, 3], 21))
    np.testing.assert_array_equal(found["bbox_outside_weights"], found["bbox_inside_weights"] > 0)


def test_another_number_every_pass():
    net = build("ProposalTarget", [ROIS, OBJECTS], 5, PARAM_STR, [EVERYTHING])
    assert [net.blobs[f"top{k}"].shape for k in range(5)] == [(1, 5), (1,), *[(1, 84)] * 3]
    for count, objects in ((400, 2), (7, 1), (0, 2), (90, 0)):
        bottoms = [ROIS[:count], OBJECTS[:objects]]
        fill(net, bottoms)
        net.forward()
        for a, b in zip(tops_of(net), target(*bottoms).values(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_gradients_are_zero():
    net = build("ProposalTarget", [ROIS, OBJECTS], 5, PARAM_STR)
    net.forward()
    assert gives_zero_gradients(net)


def test_py_faster_rcnns_name():
    assert ProposalTargetLayer.type_name == "ProposalTarget"


@pytest.mark.parametrize(
    "rois, objects, message",
    [
        (np.zeros((4, 4)), OBJECTS, r"RoIs \(R, 5\) as bottom 0.*\(4, 4\)"),
        ([[1, 0, 0, 5, 5]], OBJECTS, r"RoIs of image 0 to 0.*RoI 0: \[1.0.*is \(N, G, 5\)"),
        ([[0, 0, 0, 5, 5], [0.5, 0, 0, 5, 5]], OBJECTS, "found RoI 1"),
        ([[0, 0, np.nan, 5, 5]], OBJECTS, "finite RoIs"),
        (ROIS, np.zeros((1, 4)), r"gt_boxes \(G, 5\)"),
        (ROIS, np.zeros((0, 2, 5)), r"gt_boxes \(G, 5\)"),
        (ROIS, [[0, 0, 5, 5, 21]], "classes below num_classes 21, found 21 in gt_boxes.*cls_score"),
        (ROIS, [[9, 0, 5, 5, 1]], "gt_boxes that end where they begin"),
        (np.zeros((0, 5)), np.zeros((1, 5)), "RoIs to learn from, found none"),
    ],
)
def test_errors(rois, objects, message):
    with pytest.raises(LayerError, match=rf"layer 'boxes' \(ProposalTarget\).*{message}"):
        target(np.array(rois), np.array(objects))


@pytest.mark.parametrize("param_str", ["", "num_classes: 1", "num_classes: 2.5", "classes: 3"])
def test_bad_param_str(param_str):
    with pytest.raises(LayerError, match="num_classes"):
        run("ProposalTarget", [ROIS, OBJECTS], 5, param_str)
