"""Alternating training of Faster R-CNN in four stages (section 3.2 of the paper).

1. The RPN, from ImageNet weights; then its proposals in the training images.
2. Fast R-CNN on these proposals, also from ImageNet weights: two nets that share nothing.
3. The RPN, on the convolutions of stage 2, which stay as they are; then its proposals.
4. Fast R-CNN on the same convolutions, which still stay as they are: one net with two heads.

Stages are called as in py-faster-rcnn: stage1_rpn, stage1_fast_rcnn, stage2_rpn, stage2_fast_rcnn.
"""

from dataclasses import dataclass

from ..engine import weights as weight_files
from . import adapt, schedule
from .final import final_stem, finished, save_detector
from .proposals import load_proposals, save_proposals
from .run_folder import folder_name
from .train import Source


def train(job, iters=None):
    """Train a detector in four stages.

    What is finished already, by the state of `job.run`, is not done again.

    Args:
        job: a `job.Job` whose network has the method "alt_opt".
        iters: one number for all stages or four; None for the config's, or the solver files'.

    Returns: the path of the detector's prototxt, beside which its weights and its .yml lie.
    """
    if (detector := finished(job)) is not None:
        return detector
    iters = schedule.stage_iters(iters, job.cfg.SOLVER.ALT_OPT_ITERS, 4)
    rpn1, fast1, rpn2, fast2 = job.network.training
    begin = job.begin(iters)
    parts = parts_of(job)

    rpn1_weights = job.train(rpn1, begin, iters[0])
    proposals = _propose(job, "stage1_proposals", rpn1_weights)
    fast1_weights = job.train(fast1, begin, iters[1], **proposals)

    # NOTE: py-faster-rcnn begins the layers of one task alone anew in stages 3 and 4; here, as the
    # paper says, they are fine-tuned: they go on from the earlier stage of that task.
    sources = [
        Source(fast1_weights, lambda name: name not in parts.rpn),
        Source(rpn1_weights, lambda name: name in parts.rpn),
    ]
    rpn2_weights = job.train(rpn2, sources, iters[2], parts.shared)
    proposals = _propose(job, "stage2_proposals", rpn2_weights)
    sources = [
        Source(rpn2_weights, lambda name: name not in parts.head),
        Source(fast1_weights, lambda name: name in parts.head),
    ]
    fast2_weights = job.train(fast2, sources, iters[3], parts.shared, **proposals)
    return _join(job, parts, rpn2_weights, fast2_weights)


@dataclass(frozen=True)
class Parts:
    """The layers with parameters of a detector: those that both tasks share, those of the RPN
    alone, and those of the region head alone; sets of names."""

    shared: frozenset
    rpn: frozenset
    head: frozenset


def parts_of(job):
    """The `Parts` of a job's detector."""
    network = job.network
    shared = frozenset(adapt.shared_layers(job.read(network.test)))
    in_rpn = frozenset(job.open(network.rpn_test).params)
    everything = frozenset(job.open(network.test).params)
    return Parts(shared, in_rpn - shared, everything - in_rpn)


def _propose(job, name, weights):
    """Proposals of an RPN to train on, and where it is validated to validate on; returns them as
    the arguments of `Job.train`."""
    found = {"proposals": _proposals(job, name, weights, job.dataset, job.cfg.TRAIN)}
    if job.eval_interval > 0 and job.val_dataset is not None:
        val = job.val_dataset
        place = f"{name}_on_{folder_name(val.name)}"
        found["val_proposals"] = _proposals(job, place, weights, val, job.cfg.TEST)
    return found


def _proposals(job, name, weights, dataset, section):
    """Proposals of an RPN in a data set, as a step of the run with a file of that name; returns a
    function that reads them, for a stage that is not finished."""

    def work():
        save_proposals(job.run.path(f"{name}.npz"), job.propose(weights, dataset, section))
        return {"proposals": f"{name}.npz"}

    file = job.run.path(job.run.step(name, work)["proposals"])
    return lambda: load_proposals(file)


def _join(job, parts, rpn_weights, fast_weights):
    """The detector from the last RPN and the last Fast R-CNN, as a step of the run."""

    def work():
        stem = final_stem(job)
        net = job.open(job.network.test)
        for path, wanted in (
            (fast_weights, lambda name: name not in parts.rpn),
            (rpn_weights, lambda name: name in parts.rpn),
        ):
            weight_files.copy_fitting(net, path, wanted)
        save_detector(job, net, stem)
        return {"detector": f"{stem}.prototxt"}

    return job.run.path(job.run.step("final", work)["detector"])
