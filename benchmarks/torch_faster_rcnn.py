"""Faster R-CNN in PyTorch, eager, as a program of PyTorch's would be written: the layers of our
definition up to the RPN and of the region head, torchvision's RoI pooling and suppression.

Boxes of torchvision's operators end at their last pixel's far side; ours include it. What is
computed differs by that, and not in what it costs.
"""

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch_net import MAKERS

from demitasse.boxes.anchors import generate_anchors
from demitasse.engine.graph import filter_net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import read_net

DEVICE = "cuda"
STRIDE, IMAGE = 16, (600, 1000)
TEST, TRAIN = (6000, 300), (12000, 2000)  # proposals before and after suppression


class FasterRCNN(nn.Module):
    """A detector with the weights of ours.

    Args:
        path: of our definition. arrays: layer name -> its parameters as NumPy arrays.
        last: whether images and weights are channels_last.
        frozen: names of layers that do not learn; None for a net that is only tested.
    """

    def __init__(self, path, arrays, last, frozen=None):
        super().__init__()
        state = caffe_pb2.NetState(phase=caffe_pb2.TEST, stage=["rpn", "fast_rcnn"])
        layers = {x.name: x for x in filter_net(read_net(path), state).layer}
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.weights = nn.ParameterList()
        self.arrays, self.frozen = arrays, frozen
        names = list(layers)
        above = layers["rpn_cls_score"].bottom[0]
        rpn = next(i for i, n in enumerate(names) if above in layers[n].top)
        roi = next(i for i, n in enumerate(names) if layers[n].type == "ROIPooling")
        self.pooling = layers[names[roi]].roi_pooling_param
        self.trunk = [self._layer(layers[n]) for n in names[:rpn] if layers[n].type in MAKERS]
        self.rpn, self.rpn_score, self.rpn_delta = (
            self._layer(layers[n]) for n in (names[rpn], "rpn_cls_score", "rpn_bbox_pred")
        )
        ends = names.index("cls_score")
        self.head = [self._layer(layers[n], True) for n in names[roi + 1 : ends]]
        self.score, self.delta = (self._layer(layers[n]) for n in ("cls_score", "bbox_pred"))
        self.anchors = torch.from_numpy(generate_anchors().astype(np.float32)).to(DEVICE)
        del self.arrays

    def _layer(self, layer, training=False):
        tensors = []
        for array in self.arrays.get(layer.name, ()):
            tensor = torch.from_numpy(np.array(array, np.float32)).to(DEVICE)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=self.layout)
            learns = self.frozen is not None and layer.name not in self.frozen
            tensors.append(nn.Parameter(tensor, requires_grad=learns))
            self.weights.append(tensors[-1])
        return MAKERS[layer.type](layer, tensors, training and self.frozen is not None)

    # ---- the stages of Table 5 of the paper

    def features(self, image):
        """conv: (1, 3, H, W) -> the feature map, and the RPN's scores and deltas."""
        x = image
        for layer in self.trunk:
            x = layer(x)
        hidden = F.relu_(self.rpn(x))
        return x, self.rpn_score(hidden), self.rpn_delta(hidden)

    def grid(self, scores):
        """All anchors (H * W * A, 4)."""
        height, width = scores.shape[2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=DEVICE) * STRIDE,
            torch.arange(width, device=DEVICE) * STRIDE, indexing="ij",
        )  # fmt: skip
        shifts = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4).float()
        return (shifts + self.anchors).reshape(-1, 4)

    def proposals(self, scores, deltas, limits):
        """proposal: the best boxes (R, 4) after suppression."""
        before, after = limits
        count = len(self.anchors)
        pairs = scores.float().view(2, count, -1).softmax(0)[1]  # (A, H * W)
        foreground = pairs.t().reshape(-1)
        deltas = deltas.float().view(count, 4, -1).permute(2, 0, 1).reshape(-1, 4)
        best = foreground.topk(min(before, len(foreground))).indices
        boxes = decode(self.grid(scores)[best], deltas[best])
        boxes[:, 0::2].clamp_(0, IMAGE[1] - 1)
        boxes[:, 1::2].clamp_(0, IMAGE[0] - 1)
        large = torchvision.ops.remove_small_boxes(boxes, STRIDE)
        boxes, ranks = boxes[large], foreground[best][large]
        return boxes[torchvision.ops.nms(boxes, ranks, 0.7)[:after]]

    def regions(self, x, rois):
        """region-wise: scores (R, C) and deltas (R, 4C) of RoIs."""
        size = self.pooling.pooled_h, self.pooling.pooled_w
        x = torchvision.ops.roi_pool(x.float(), [rois], size, self.pooling.spatial_scale)
        for layer in self.head:
            x = layer(x)
        return self.score(x), self.delta(x)

    def detect(self, image):
        """RoIs, probabilities and boxes of all classes."""
        x, scores, deltas = self.features(image)
        rois = self.proposals(scores, deltas, TEST)
        scores, deltas = self.regions(x, rois)
        boxes = decode(rois[:, None], deltas.float().view(len(rois), -1, 4))
        return rois, scores.float().softmax(1), boxes

    # ---- training, approximately jointly

    def loss(self, image, objects):
        """The sum of the four losses; `objects` (G, 5) with their classes."""
        x, scores, deltas = self.features(image)
        loss = self.rpn_loss(scores, deltas, objects)
        with torch.no_grad():
            rois = self.proposals(scores.detach(), deltas.detach(), TRAIN)
            rois, labels, targets = sample(torch.cat([rois, objects[:, :4]]), objects)
        scores, deltas = self.regions(x, rois)
        scores, deltas = scores.float(), deltas.float()
        found = labels.nonzero()[:, 0]
        own = deltas.view(len(rois), -1, 4)[found, labels[found]]
        smooth = F.smooth_l1_loss(own, targets[found], reduction="sum") / len(rois)
        return loss + F.cross_entropy(scores, labels) + smooth

    def rpn_loss(self, scores, deltas, objects):
        """Of 256 anchors, half of them objects at most."""
        count = len(self.anchors)
        with torch.no_grad():
            grid = self.grid(scores)
            inside = (grid[:, :2] >= 0).all(1) & (grid[:, 2] < IMAGE[1]) & (grid[:, 3] < IMAGE[0])
            overlaps = torchvision.ops.box_iou(grid, objects[:, :4])
            most, which = overlaps.max(1)
            labels = torch.where(most >= 0.7, 1, torch.where(most < 0.3, 0, -1))
            labels[(overlaps == overlaps.max(0).values).any(1)] = 1
            labels[~inside] = -1
            yes = pick(labels == 1, 128)
            no = pick(labels == 0, 256 - len(yes))
            targets = encode(grid[yes], objects[which[yes], :4])
        scores = scores.float().view(2, count, -1).permute(2, 1, 0).reshape(-1, 2)
        deltas = deltas.float().view(count, 4, -1).permute(2, 0, 1).reshape(-1, 4)
        chosen = torch.cat([yes, no])
        wanted = (torch.arange(len(chosen), device=DEVICE) < len(yes)).long()
        smooth = F.smooth_l1_loss(deltas[yes], targets, beta=1 / 9, reduction="sum")
        return F.cross_entropy(scores[chosen], wanted) + smooth / len(chosen)


def pick(wanted, most):
    """The indices of at most `most` true elements, at random."""
    indices = wanted.nonzero()[:, 0]
    return indices[torch.randperm(len(indices), device=DEVICE)[:most]]


def sample(rois, objects):
    """128 RoIs, a quarter of them objects at most: rois, labels, targets."""
    most, which = torchvision.ops.box_iou(rois, objects[:, :4]).max(1)
    yes = pick(most >= 0.5, 32)
    no = pick((most < 0.5) & (most >= 0), 128 - len(yes))
    chosen = torch.cat([yes, no])
    labels = objects[which[chosen], 4].long()
    labels[len(yes) :] = 0
    return rois[chosen], labels, encode(rois[chosen], objects[which[chosen], :4])


def encode(boxes, targets):
    """The deltas that lead from boxes to targets."""
    size, wanted = (b[:, 2:] - b[:, :2] + 1 for b in (boxes, targets))
    centre, aim = boxes[:, :2] + size / 2, targets[:, :2] + wanted / 2
    return torch.cat([(aim - centre) / size, (wanted / size).log()], 1)


def decode(boxes, deltas):
    """Boxes moved by deltas."""
    size = boxes[..., 2:] - boxes[..., :2] + 1
    centre = boxes[..., :2] + size / 2 + deltas[..., :2] * size
    half = size * deltas[..., 2:].exp() / 2
    return torch.cat([centre - half, centre + half], -1)
