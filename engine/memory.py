"""Memory planning under `keep="minimal"`: arrays are given back as soon as nobody needs them.

A TEST net reuses the values of a blob after its last consumer has run; a TRAIN net reuses a
gradient after the layer that produced the blob has run backward. Blobs that share memory (in-place
layers, Split, Reshape) are one array here.
"""

from .errors import NetError


class Pool:
    """Buffers that wait for their next use.

    A request is met by the smallest buffer that is large enough and at most twice as large. A new
    one takes the place of one that is too small, if there is any, so that a run through many image
    sizes keeps about as many buffers as are in use at once.
    """

    def __init__(self, device):
        self.device = device
        self._free = []  # sorted by size

    def take(self, count, dtype):
        """A flat buffer of at least `count` elements, with arbitrary contents."""
        for k, buffer in enumerate(self._free):
            if count <= buffer.size <= 2 * count and buffer.dtype == dtype:
                return self._free.pop(k)
        smaller = [k for k, buffer in enumerate(self._free) if buffer.size < count]
        if smaller:
            del self._free[smaller[-1]]
        return self.device.zeros(count, dtype)

    def give(self, buffer):
        """Take a buffer back; nobody may look at it any more."""
        self._free.append(buffer)
        self._free.sort(key=lambda b: b.size)


class MemoryPlan:
    """Which arrays of a net are released when.

    Args:
        nodes: the net's `Node`s, set up and reshaped.
        kept_ids: indices of the blobs whose values and gradients stay: inputs and outputs.
        device: the net's device.
        train: whether gradients are to be released (after backward), not values.
    """

    def __init__(self, nodes, kept_ids, device, train):
        self.pool = Pool(device)
        self.train = train
        kept = {id(self._storage(blob)) for blob in self._kept_blobs(nodes, kept_ids)}
        self._release_after = [[] for _ in nodes]
        for storage, i in self._last_uses(nodes).values():
            if id(storage) not in kept:
                storage.pool = self.pool
                if train:
                    storage.fill = _zero  # what no layer assigns is no gradient
                self._release_after[i].append(storage)
        self._released = []

    @property
    def any_gone(self):
        """Whether something was released since the last pass began."""
        return bool(self._released)

    def _storage(self, blob):
        return blob.diff_storage if self.train else blob.data_storage

    def _kept_blobs(self, nodes, kept_ids):
        for node in nodes:
            blobs = [*zip(node.bottom_ids, node.bottoms), *zip(node.top_ids, node.tops)]
            yield from (blob for index, blob in blobs if index in kept_ids)
            # What a layer without bottoms gives out, a user or a reader may have written.
            if not node.bottoms:
                yield from node.tops
            # The gradient of a loss is its weight, written once.
            yield from (top for top, w in zip(node.tops, node.loss_weights) if w)

    def _last_uses(self, nodes):
        """Storage's id -> (storage, index of the last node in the order of running to use it)."""
        uses = {}
        order = range(len(nodes))
        for i in reversed(order) if self.train else order:
            for blob in (*nodes[i].bottoms, *nodes[i].tops):
                storage = self._storage(blob)
                uses[id(storage)] = (storage, i)
        return uses

    def begin(self):
        """Before a pass: what was released may be used again."""
        for storage in self._released:
            storage.gone = False
        self._released = []

    def after(self, i):
        """After node i has run (forward in TEST, backward in TRAIN): release what it used last."""
        for storage in self._release_after[i]:
            if storage.buffer is not None:
                self.pool.give(storage.buffer)
                storage.buffer = None
                self._released.append(storage)

    def end(self):
        """After a pass: to look at what was released is an error from now on."""
        for storage in self._released:
            storage.gone = True


def _zero(buffer):
    buffer[...] = 0


def check_keep(keep):
    """Raise NetError unless `keep` is "all" or "minimal"."""
    if keep not in ("all", "minimal"):
        raise NetError("net", 'keep="all" or keep="minimal"', repr(keep))
