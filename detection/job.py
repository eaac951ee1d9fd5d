"""What the stages of a training run have in common, and how each of them is put together."""

import dataclasses
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property

from ..engine import weights as weight_files
from ..engine.prototxt import read_net
from . import adapt, minibatch, networks, normalization, roidb, schedule, validation
from .loss_log import LossLog
from .opening import open_net
from .snapshots import Snapshots
from .test import generate_proposals
from .train import Source, Stage, train

log = logging.getLogger("demitasse.detection")

_PRETRAIN_SNAPSHOT_ITERS = 100  # at most: pretraining is short, and its snapshots are small


@dataclass
class Job:
    """A training run.

    Attributes:
        network: its `networks.Network`.
        dataset: the Dataset to train on.
        cfg: the Config; RNG_SEED is the seed of everything random.
        run: its `run_folder.Run`.
        weights: the path of the weights to begin with, None for random ones.
        device: where to compute; the default device if None.
        val_dataset: what is validated on; eval_interval: every how many iterations, 0 for never.
    """

    network: object
    dataset: object
    cfg: object
    run: object
    weights: str | None = None
    device: object = None
    val_dataset: object = None
    eval_interval: int = 0
    _said: set = field(default_factory=set)

    @property
    def classes(self):
        """How many classes there are, with the background."""
        return len(self.dataset.classes)

    def read(self, definition):
        """The NetParameter of a `networks.Definition`, adapted to the data set and the config.

        What was adapted is logged, once.
        """
        cfg = self.cfg
        param, said = adapt.adapt_net(
            read_net(definition.path), self.classes, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS,
            where=definition.path,
        )  # fmt: skip
        for line in said:
            text = f"Adapted {os.path.basename(definition.path)}: {line}"
            if text not in self._said:
                self._said.add(text)
                log.info("%s", text)
        return param

    def open(self, definition, weights=None):
        """The TEST net of a `networks.Definition`; weights are a path, or None."""
        return open_net(
            definition.path, weights, self.cfg, self.classes, definition.stages, self.device
        )

    # ---- weights

    def begin(self, iters):
        """The `Source`s of a run's first weights: those given, or pretrained ones, or none.

        Args: iters: of all stages; if they are all 0, nothing is pretrained.
        """
        if self.weights is not None:
            return [Source(self.weights, strict=True)]
        if not self._pretrains or not any(n is None or n > 0 for n in iters):
            return []
        name = self.run.step("pretrain", self._pretrain)["weights"]
        return [Source(self.run.path(name), strict=True)]

    @property
    def _pretrains(self):
        return self.weights is None and self.cfg.PRETRAIN.ITERS > 0

    def _pretrain(self):
        from .pretrain import pretrain

        folder = str(self.run.folder)
        training = self.network.training
        # A net with a region head, which says what the convolutions are for, if there is one.
        stage = next((stage for stage in training if stage.kind != "rpn"), training[0])
        param = self.read(stage.net)
        snapshots = Snapshots(
            os.path.join(folder, "snapshots", "pretrain"),
            min(self.cfg.TRAIN.SNAPSHOT_ITERS, _PRETRAIN_SNAPSHOT_ITERS),
        )
        snapshots.prepare()
        with LossLog(folder, "pretrain", snapshots.iteration) as losses:
            path = pretrain(
                param, self.dataset, self.cfg, folder, losses, snapshots, stage.net.folder,
                self.device,
            )  # fmt: skip
        return {"weights": os.path.relpath(path, folder)}

    @cached_property
    def frozen(self):
        """Layers that stay as they are because they come with ImageNet weights, or pretrained."""
        return self.network.frozen if self.weights is not None or self._pretrains else ()

    # ---- stages

    def train(self, stage, sources, iters=None, frozen=(), proposals=None, val_proposals=None):
        """Train a `networks.TrainingStage` as a step of the run; returns the weights' path.

        Args:
            sources: `Source`s of initial weights.
            iters: None for the solver file's.
            frozen: layers that stay as they are, beside those that begin with weights and are.
            proposals: functions that give {record name: (R, 5)} for the data set, for Fast R-CNN;
                val_proposals: the same for the data set that is validated on.
        """

        def work():
            made = self.make_stage(stage, sources, iters, frozen, proposals)
            made.validate = validation.validator(self, stage.kind, val_proposals)
            return {"weights": train(made)}

        return self.run.path(self.run.step(stage.name, work, together=True)["weights"])

    def make_stage(self, stage, sources, iters=None, frozen=(), proposals=None):
        """The `train.Stage` of a `networks.TrainingStage`; arguments as of `train`."""
        param = self.read(stage.net)
        if self.network.freezes:
            param = adapt.freeze(param, {*self.frozen, *frozen})
        cfg = stage_config(self.cfg, stage.kind)
        entries, statistics = self._entries(stage.kind, cfg, proposals)
        return Stage(
            name=stage.name, net_param=param, net_stages=stage.net.stages,
            net_folder=stage.net.folder,
            solver_param=schedule.solver_param(stage.solver, stage.kind, cfg.SOLVER, iters),
            cfg=cfg, batches=minibatch.RoiBatches(entries, cfg, self.classes, self.cfg.RNG_SEED),
            statistics=statistics, sources=sources, pretrained=self._pretrains,
            seed=self.cfg.RNG_SEED, folder=str(self.run.folder), device=self.device,
            eval_interval=self.eval_interval, solver_path=stage.solver,
            communicator=self.run.communicator,
        )  # fmt: skip

    def _entries(self, kind, cfg, proposals):
        """What a stage learns from, and the statistics that its targets are normalized by."""
        t = cfg.TRAIN
        given = None if proposals is None else proposals()
        entries = roidb.make_roidb(
            self.dataset, t.USE_FLIPPED, given, t.USE_DIFFICULT, t.USE_VFLIPPED
        )
        entries = roidb.filter_roidb(entries, cfg)
        if kind == "fast_rcnn":
            statistics = roidb.add_bbox_regression_targets(entries, cfg, self.classes)
        else:
            statistics = normalization.given(t, self.classes) if kind == "end2end" else None
        return entries, statistics

    # ---- proposals

    def propose(self, weights, dataset, section):
        """What an RPN with weights from a file proposes in a data set, {record name: (R, 5)}.

        Args: section: the config's TRAIN or TEST, whose RPN_PRE_NMS_TOP_N and RPN_POST_NMS_TOP_N
            say how many.
        NOTE: to train on, py-faster-rcnn takes the 2,000 best of all that do not overlap; here, by
        TRAIN's defaults, the 2,000 best of the 12,000 with the highest scores.
        """
        net = self.open(self.network.rpn_test, weights)
        return generate_proposals(
            net, dataset, self.cfg, pre_nms=section.RPN_PRE_NMS_TOP_N,
            post_nms=section.RPN_POST_NMS_TOP_N,
        )  # fmt: skip

    @property
    def fast_rcnn_test(self):
        """The `networks.Definition` of Fast R-CNN in use, or None if there is no such file."""
        if self.network.method == "fast_rcnn":
            return self.network.test
        if not self.network.freezes:  # py-faster-rcnn's files for Faster R-CNN have none
            return None
        return networks.Definition(self.network.test.path, networks.STAGES["fast_rcnn"])

    def with_weights_of(self, definition, solver):
        """A TEST net that uses the memory of a solver's parameters."""
        net = self.open(definition)
        weight_files.share_with(net, solver.net)
        return net


def stage_config(cfg, kind):
    """The Config of a stage: an RPN is shown objects, Fast R-CNN proposals, of images.

    As in py-faster-rcnn, an RPN alone is trained on one image a batch.
    """
    changes = {"HAS_RPN": kind != "fast_rcnn"}
    if kind == "rpn":
        changes["IMS_PER_BATCH"] = 1
    return dataclasses.replace(cfg, TRAIN=dataclasses.replace(cfg.TRAIN, **changes))
