"""Testing a solver's test nets (Caffe: Solver::Test)."""

import logging

from ..engine.errors import SolverError
from . import report

log = logging.getLogger("demitasse.solver")


def run(solver, index):
    """Run test net `index` for its test_iter batches and log the mean of each output.

    Returns: {output name: mean, an array in the output's shape}, or None if interrupted.
    """
    log.info("Iteration %d, Testing net (#%d)", solver.iter, index)
    net, batches = solver.test_nets[index], solver.param.test_iter[index]
    solver.share_weights(net)
    loss, sums = 0.0, {}
    for _ in range(batches):
        if solver.act_on_requests():
            log.info("Test interrupted.")
            return None
        loss += net.forward()
        for name in net.outputs:
            sums[name] = _add(name, sums.get(name), net.blobs[name].host_data)
    if not batches:
        return {}  # test_iter: 0 is how solver files switch tests off
    net.check()
    if solver.param.test_compute_loss:
        log.info("Test loss: %g", loss / batches)
    means = {name: total / batches for name, total in sums.items()}
    report.outputs(net, "Test", means)
    return means


def _add(name, total, values):
    if total is None:
        return values.copy()
    if total.shape != values.shape:
        raise SolverError(
            f"test net output {name!r}", f"the shape {total.shape} of the first batch",
            f"shape {values.shape}", "Only means of one shape are told: use Silence for others.",
        )  # fmt: skip
    return total + values
