"""What a training run takes down of each iteration."""

import time

from . import finite

_READ_TOGETHER = 20  # iterations whose losses are read from a GPU at once, because that waits


class Recorder:
    """Takes down the losses of each iteration, for the log and the progress bar.

    Losses are means over all ranks; the times are this rank's.

    Raises: SolverError for a loss that is not finite, on a GPU when it is read.

    Args:
        solver: the Solver; losses: a LossLog; bar: a Progress; both None but on rank 0.
        intervals: after multiples of these numbers of iterations, nothing is left to be read.
        also: names of blobs of one number each that are taken down beside the parts of the loss.
        readers: those with `wait_seconds` who read the data; None for the net's layers.
    """

    def __init__(self, solver, losses, bar, intervals=(), also=(), readers=None):
        self._log, self._bar = losses, bar
        net, self._solver = solver.net, solver
        self._on_host = net.device.is_host
        together = 1 if self._on_host else _READ_TOGETHER
        self._intervals = [together, *(n for n in intervals if n > 0)]
        self._rows = []  # (iteration, losses, times) that are not in the log yet
        self._parts = [
            (net.blob_names[top_id], top, weight)
            for node in net.nodes
            for top_id, top, weight in zip(node.top_ids, node.tops, node.loss_weights)
            if weight
        ]
        self._parts += [(name, net.blobs[name], 1) for name in also]
        if readers is None:
            readers = [n.layer for n in net.nodes if hasattr(n.layer, "wait_seconds")]
        self._readers = readers
        self._sums = dict.fromkeys((name for name, _, _ in self._parts), 0.0)
        self._begin = time.perf_counter()

    def after_forward(self, solver, loss):
        """Add up the parts of the loss, of which an iteration may have several (iter_size)."""
        if self._on_host:
            finite.check_loss(solver, loss)
        self._rate = solver.lr
        for name, top, weight in self._parts:
            total = float(top.array.sum()) if self._on_host else top.array.sum()
            self._sums[name] = self._sums[name] + weight * total / solver.param.iter_size

    def after_iteration(self, solver):
        """Write a line of the log, and show the progress."""
        now = time.perf_counter()
        seconds, self._begin = now - self._begin, now
        waited = sum(layer.wait_seconds for layer in self._readers)
        losses = {"loss": solver.unread_loss, **self._sums}
        times = {"lr": self._rate, "seconds": seconds, "waited": waited}
        self._rows.append((solver.iter, losses, times))
        self._sums = dict.fromkeys(self._sums, 0.0)
        last = solver.iter >= solver.param.max_iter
        if last or any(solver.iter % n == 0 for n in self._intervals):
            self.flush()

    def flush(self, together=True):
        """Read what was taken down, and write it to the log.

        Args: together: whether all ranks do so now; if not, the losses are this rank's.
        """
        rows, self._rows = self._rows, []
        numbers = _read(self._solver.net.device, [v for _, row, _ in rows for v in row.values()])
        if not self._on_host:
            own = iter(numbers)
            for iteration, names, _ in rows:
                losses = {name: next(own) for name in names}
                finite.check_loss(self._solver, losses["loss"], iteration - 1)
        if rows and together:
            numbers = self._solver.communicator.mean(numbers)
        if self._log is None:
            return
        numbers = iter(numbers)
        for iteration, names, times in rows:
            losses = {name: next(numbers) for name in names}
            self._log.add(iteration, {**losses, **times})
            self._bar.update(iteration, losses, times["lr"], times["waited"])


def _read(device, numbers):
    """Numbers of which some are on a device; waits for it once."""
    there = [v for v in numbers if not isinstance(v, float)]
    if not there:
        return numbers
    read = iter(device.to_host(device.xp.stack(there)).tolist())
    return [v if isinstance(v, float) else next(read) for v in numbers]
