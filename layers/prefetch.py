"""Reading ahead: batches are read and decoded in background threads, handed out in order."""

import os
import threading
import time
import weakref

from ..engine.cores import thread_limit, usable_cores
from ..engine.layer import Layer

_MAX_AHEAD_BYTES = 1 << 30  # of batches read ahead, whatever `data_param.prefetch` says


def decoding_threads():
    """How many threads decode images for one layer: a quarter of the cores, 1 to 8.

    OpenCV adds none of its own (`engine.opencv`).
    """
    return max(1, min(8, (thread_limit() or usable_cores()) // 4))


class Prefetcher:
    """Batches 0, 1, 2, ... of a source, read ahead by threads of this process.

    Args:
        open_reader: called once in every thread, returns the function `load(k)` that gives batch
            number k and depends on k alone. Must not refer to the prefetcher's owner, or the
            threads would keep that alive.
        depth: how many batches are read ahead at most.
        threads: how many threads read.

    Threads start with the first `next` in a process, so a forked child starts its own. They stop
    on `close`, when the prefetcher is collected, and when the interpreter exits.

    Attributes:
        wait_seconds: how long `next` has waited for batches, in all.
    """

    def __init__(self, open_reader, depth, threads=1):
        self._open_reader = open_reader
        self._depth = max(1, depth)
        self._threads = max(1, min(threads, self._depth))
        self.wait_seconds = 0.0
        self._index = 0
        self._run = None

    def next(self):
        """The next batch. What went wrong in reading it is raised here; a retry reads again."""
        begin = time.perf_counter()
        if self._run is None or self._run.process != os.getpid():
            self._start()
        try:
            batch = self._run.take(self._index)
        except BaseException:
            self.close()
            raise
        finally:
            self.wait_seconds += time.perf_counter() - begin
        self._index += 1
        return batch

    def seek(self, index):
        """Have `next` continue with batch `index`."""
        if index != self._index:
            self.close()
            self._index = index

    def close(self):
        """Stop the threads; a later `next` starts new ones."""
        if self._run is not None and self._run.process == os.getpid():
            self._finalizer()
        self._run = None

    def _start(self):
        self._run = _Run(self._index, self._depth)
        for i in range(self._threads):
            thread = threading.Thread(
                target=_read_ahead, args=(self._run, self._open_reader),
                name=f"prefetch-{i}", daemon=True,
            )  # fmt: skip
            self._run.threads.append(thread)
            thread.start()
        self._finalizer = weakref.finalize(self, self._run.stop)


class _Run:
    """What reading threads and their consumer share."""

    def __init__(self, first, depth):
        self.process = os.getpid()
        self.threads = []
        self._changed = threading.Condition()
        self._depth = depth
        self._claimed = first  # the next batch for a thread to read
        self._taken = first  # the next batch for the consumer
        self._done = {}  # batch number -> (batch, error)
        self._stopped = False

    def claim(self):
        """The number of a batch to read, once there is room for it; None means to stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._claimed < self._taken + self._depth
            )
            if self._stopped:
                return None
            self._claimed += 1
            return self._claimed - 1

    def put(self, index, batch, error=None):
        """Hand over a batch, or the exception that reading it ended in."""
        with self._changed:
            self._done[index] = batch, error
            if error is None:
                self._depth = min(self._depth, max(1, _MAX_AHEAD_BYTES // _bytes(batch)))
            self._changed.notify_all()

    def take(self, index):
        """Wait for batch `index` and remove it."""
        with self._changed:
            self._changed.wait_for(lambda: index in self._done)
            batch, error = self._done.pop(index)
            self._taken = index + 1
            self._changed.notify_all()
        if error is not None:
            raise error
        return batch

    def stop(self):
        """End the threads and wait for those in the middle of a batch."""
        if self.process != os.getpid():
            return  # in a forked child: the threads do not exist, the lock may be held for ever
        with self._changed:
            self._stopped = True
            self._done.clear()
            self._changed.notify_all()
        # A reading thread may itself be the one that collects the prefetcher.
        if threading.current_thread() not in self.threads:
            for thread in self.threads:
                thread.join()


def _read_ahead(run, open_reader):
    load = None
    while (index := run.claim()) is not None:
        try:
            load = load or open_reader()
            run.put(index, load(index))
        except BaseException as e:
            run.put(index, None, e)


def _bytes(batch):
    return max(1, sum(array.nbytes for array in batch))


class PrefetchingLayer(Layer):
    """Base of layers whose tops are read ahead; `setup` calls `prefetch`."""

    num_bottom = 0
    writes_on_host = True
    prefetcher = None

    def prefetch(self, open_reader, threads=1):
        """Read the batches of the net's shard ahead with a `Prefetcher`; a batch is a list of
        arrays, one a top."""
        # NOTE: prefetch is a field of data_param alone, and Caffe reads it there for all layers.
        self.prefetcher = Prefetcher(
            self.context.shard.reader(open_reader), self.param.data_param.prefetch, threads
        )

    def forward(self, bottom, top):
        for blob, values in zip(top, self.prefetcher.next()):
            blob.reshape(*values.shape)
            blob.set_data(values)

    def seek(self, pass_index):
        """Continue with the batch of forward pass number `pass_index`."""
        self.prefetcher.seek(pass_index)
