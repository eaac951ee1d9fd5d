"""Looking at a validation split while a stage trains."""

import logging

from .evaluate import mean_ap, proposal_recall, uses_07_metric, voc_eval
from .test import generate_proposals, test_net

log = logging.getLogger("demitasse.detection")


def validator(job, kind, proposals=None):
    """The function f(solver) -> {name: number} that validates a stage, or None if nothing is to be.

    Detectors are measured by mAP, RPNs by the recall of the proposals that a detector would get.

    Args:
        job: a `job.Job`; its val_dataset is looked at.
        kind: what the stage trains. proposals: a function that gives {record name: (R, 5)}, for
            Fast R-CNN.
    """
    if job.eval_interval <= 0 or job.val_dataset is None:
        return None
    network, dataset = job.network, job.val_dataset
    definition = job.fast_rcnn_test if kind == "fast_rcnn" else network.test
    if definition is None:
        log.info("No validation of Fast R-CNN: %s has no such net for use.", network.name)
        return None

    def rpn(solver):
        net = job.with_weights_of(network.rpn_test, solver)
        limits = job.cfg.TEST.RPN_PRE_NMS_TOP_N, job.cfg.TEST.RPN_POST_NMS_TOP_N
        found = generate_proposals(net, dataset, job.cfg, False, *limits)
        return {"recall": float(proposal_recall(dataset, found, [0.5]).recalls[0])}

    def detector(solver):
        net = job.with_weights_of(definition, solver)
        given = None if proposals is None else proposals()
        all_boxes = test_net(net, dataset, job.cfg, progress=False, proposals=given)
        results = voc_eval(dataset, all_boxes, use_07_metric=uses_07_metric(dataset.name))
        return {"mAP": mean_ap(results)}

    return rpn if kind == "rpn" else detector
