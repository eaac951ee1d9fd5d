"""The detectors that detection_iterations.py measures: their nets, images and weights.

Ours is a `Job`, as tools/train_net.py makes it. The other sides compute the same layers, but for
those that say what is to be learnt: their results, and the images, are what ours has found in its
first pass (`DetectorCase.given`).
"""

import tempfile
from dataclasses import dataclass
from functools import partial

import numpy as np
from cases import RATE, Workload, fill_weights
from ours import data_of

STAGES = ("rpn", "fast_rcnn")
PYTHON_LAYERS = ("RoIData", "AnchorTarget", "Proposal", "ProposalTarget")
CLASSES = 21
OBJECTS = 10  # an image
IMAGES = 4
OUTPUTS = ("cls_prob", "bbox_pred")
_PREDICTIONS = ("rpn_cls_score", "rpn_bbox_pred", "cls_score", "bbox_pred")


@dataclass(frozen=True)
class DetectorCase:
    """One line of a table.

    Attributes:
        network: a folder of prototxt/.
        mode: "train", an iteration of approximate joint training, or "test", one image.
        frozen: whether the layers that come with ImageNet weights stay as they are.
        height, width: of the images, in which there is nothing to scale.
        dropout: False turns Dropout off, so that training can be compared number by number.
        given: the .npz file with the blobs that other sides take as given.
    """

    network: str
    mode: str
    frozen: bool = False
    height: int = 600
    width: int = 800
    dropout: bool = True
    given: str | None = None

    def label(self):
        """How the table calls it."""
        frozen = ", first layers frozen" if self.frozen else ""
        return f"{self.network} {self.height}x{self.width}{frozen}"

    def workload(self):
        """The Workload of the case, whose inputs are in its file `given`."""
        from demitasse.engine.net import Net
        from demitasse.engine.phase import TEST, TRAIN

        with tempfile.TemporaryDirectory() as folder:
            job = make_job(self, folder)
            if self.mode == "train":
                param, phase = training_stage(self, job).net_param, TRAIN
            else:
                param, phase = job.read(job.network.test), TEST
        arrays = fill_detector(Net(param, phase, stages=STAGES))
        with np.load(self.given) as file:
            inputs = dict(file)
        return Workload(computed_layers(param, phase), arrays, inputs, list(OUTPUTS))


def config_of(case):
    """The Config of end-to-end training, with images as they are and a rate that changes little.

    An iteration is one image, as it is on the other sides; the solver files' are two.
    """
    from demitasse.detection import config, defaults

    size = {"SCALES": [min(case.height, case.width)], "MAX_SIZE": max(case.height, case.width)}
    changes = {"TRAIN": size, "TEST": size, "SOLVER": {"BASE_LR": RATE, "ITER_SIZE": 1}}
    return config.merge(defaults.base_config("end2end"), changes)


def make_dataset(case):
    """Images of noise with objects of 50 to 300 pixels a side."""
    from demitasse.detection.datasets import Dataset, Record

    rng = np.random.default_rng(2)
    records = []
    for k in range(IMAGES):
        sides = rng.uniform(50, 300, (OBJECTS, 2))
        corners = rng.uniform(0, 1, (OBJECTS, 2)) * ((case.width, case.height) - sides)
        boxes = np.concatenate([corners, corners + sides - 1], axis=1)
        draw = partial(draw_noise, k, case.height, case.width)
        labels = rng.integers(1, CLASSES, OBJECTS)
        records.append(Record(f"{k}", case.width, case.height, boxes, labels, draw=draw))
    return Dataset("noise", ["__background__", *(f"class {c}" for c in range(1, CLASSES))], records)


def draw_noise(seed, height, width):
    """An image (height, width, 3) uint8 of patches of random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def make_job(case, folder):
    """The Job of a case, whose run's folder is `folder`."""
    from demitasse.detection import networks
    from demitasse.detection.job import Job
    from demitasse.detection.run_folder import Run

    network = networks.find(case.network, "end2end")
    return Job(network, make_dataset(case), config_of(case), Run(folder, {}))


def training_stage(case, job):
    """The `train.Stage` of a case's job."""
    frozen = job.network.frozen if case.frozen else ()
    stage = job.make_stage(job.network.training[0], [], 1 << 20, frozen)
    for layer in stage.net_param.layer:
        if layer.type == "Dropout" and not case.dropout:
            layer.dropout_param.dropout_ratio = 0
    return stage


def fill_detector(net):
    """Write weights into a net by which activations stay as large as images, predictions small.

    Returns: {layer name: arrays}, the net's own.
    """
    arrays = data_of(net.params)
    fill_weights(arrays, {node.name: node.type for node in net.nodes})
    for name in _PREDICTIONS:
        for array in arrays[name]:
            array *= 1e-3
    return arrays


def computed_layers(param, phase):
    """The NetParameter of what all sides compute: no layers of PYTHON_LAYERS, no data."""
    from demitasse.engine.graph import filter_net
    from demitasse.engine.proto import caffe_pb2

    net = filter_net(param, caffe_pb2.NetState(phase=phase, stage=STAGES))
    computed = [x for x in net.layer if x.type not in ("Python", "Input", *PYTHON_LAYERS)]
    del net.layer[:]
    net.layer.extend(computed)
    return net


def given_blobs(net):
    """The names of the blobs that the layers of a NetParameter take from elsewhere."""
    made = {top for layer in net.layer for top in layer.top}
    return sorted({bottom for layer in net.layer for bottom in layer.bottom} - made)
