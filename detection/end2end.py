"""Training in one stage: Faster R-CNN end to end (approximate joint training, section 3.2 of the
paper), Fast R-CNN on given proposals, or a region proposal network alone."""

from ..engine import weights as weight_files
from . import schedule
from .final import final_stem, finished, save_detector


def train(job, iters=None, proposals=None, val_proposals=None):
    """Train a net in one stage.

    What is finished already, by the state of `job.run`, is not done again.

    Args:
        job: a `job.Job` whose network has the method "end2end", "fast_rcnn" or "rpn".
        iters: a number, or None for the config's, or the solver file's.
        proposals: a function that gives {record name: (R, 5)} for the data set, for Fast R-CNN;
            val_proposals: the same for the data set that is validated on.

    Returns: the path of the trained net's prototxt, beside which its weights and its .yml lie.
    """
    if (detector := finished(job)) is not None:
        return detector
    (stage,) = job.network.training
    configured = getattr(job.cfg.SOLVER, f"{stage.kind.upper()}_ITERS")
    iters = schedule.stage_iters(iters, configured, 1)
    weights = job.train(
        stage, job.begin(iters), iters[0], proposals=proposals, val_proposals=val_proposals
    )

    def work():
        stem = final_stem(job)
        net = job.open(job.network.test)
        weight_files.copy_fitting(net, weights)
        save_detector(job, net, stem)
        return {"detector": f"{stem}.prototxt"}

    return job.run.path(job.run.step("final", work)["detector"])
