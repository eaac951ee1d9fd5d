"""What a solver says while it trains, in Caffe's words, so that programs that read logs work."""

import logging
import time

log = logging.getLogger("demitasse.solver")


class Clock:
    """Tells the speed since the last time it was asked, or since it was made.

    Args: iteration: the number of the present iteration.
    """

    def __init__(self, iteration):
        self._iteration = iteration
        self._start = time.perf_counter()

    def speed(self, iteration):
        """(iterations a second, seconds) up to `iteration`; counting starts anew."""
        now = time.perf_counter()
        seconds, done = now - self._start, iteration - self._iteration
        self._start, self._iteration = now, iteration
        return done / (seconds or 1.0), seconds


def iteration(solver, clock, loss):
    """The smoothed loss, given, and the outputs of the training net."""
    per_second, seconds = clock.speed(solver.iter)
    log.info(
        "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
        solver.iter, per_second, seconds, solver.param.display, loss,
    )  # fmt: skip
    net = solver.net
    outputs(net, "Train", {name: net.blobs[name].host_data for name in net.outputs})


def outputs(net, kind, values):
    """One line for each number in a net's outputs.

    Args:
        kind: "Train" or "Test".
        values: output name -> array.
    """
    weights = {t: w for n in net.nodes for t, w in zip(n.top_ids, n.loss_weights)}
    line = 0
    for blob_id in net.output_ids:
        name, weight = net.blob_names[blob_id], weights.get(blob_id, 0)
        for value in values[name].ravel().tolist():
            note = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            log.info("    %s net output #%d: %s = %g%s", kind, line, name, value, note)
            line += 1
