"""Memory planning under `keep="minimal"`: arrays are given back as soon as nobody needs them.

A TEST net reuses the values of a blob after its last consumer has run (`ValuePlan`). A TRAIN net
reuses a gradient after the layer that produced the blob has run backward (`GradientPlan`). Blobs
that share memory (in-place layers, Split, Reshape) are one array here.
"""

from .errors import NetError
from .layer import assigns_gradients


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


class _Plan:
    """Which arrays of a net are released when.

    Args:
        nodes: the net's `Node`s, set up and reshaped.
        kept_ids: indices of the blobs whose values and gradients stay.
        device: the net's device.
    """

    def __init__(self, nodes, kept_ids, device):
        self.device = device
        self._release_after = [[] for _ in nodes]
        self._released = []
        self._kept = {id(self._storage(blob)) for blob in _kept_blobs(nodes, kept_ids)}

    @property
    def any_gone(self):
        """Whether something was released since the last pass began."""
        return bool(self._released)

    def begin(self):
        """Before any pass: what was released may be used again."""
        for storage in self._released:
            storage.gone = False
        self._released = []

    def start(self):
        """Before a pass over the whole net."""

    def before(self, i):
        """Before node i runs."""

    def after(self, i):
        """After node i has run: release what it used last."""
        for storage in self._release_after[i]:
            if storage.buffer is not None:
                self._give(storage.buffer)
                storage.buffer = None
                self._released.append(storage)

    def end(self):
        """After a pass: to look at what was released is an error from now on."""
        for storage in self._released:
            storage.gone = True


class ValuePlan(_Plan):
    """The plan of a TEST net, forward. Shapes become known on the way, so a `Pool` serves them."""

    def __init__(self, nodes, kept_ids, device):
        super().__init__(nodes, kept_ids, device)
        self.pool = Pool(device)
        self._give = self.pool.give
        for storage, (_, last) in _lives(nodes, self._storage).values():
            if id(storage) not in self._kept:
                storage.pool = self.pool
                self._release_after[last].append(storage)

    def _storage(self, blob):
        return blob.data_storage.alone if blob.lies_in_other else blob.data_storage


class GradientPlan(_Plan):
    """The plan of a TRAIN net, backward: all shapes are known, so arrays have places in one buffer.

    Only what a layer assigns has a place there. What no layer assigns is no gradient, and stays the
    zeros that a storage begins with.
    """

    def __init__(self, nodes, kept_ids, device):
        super().__init__(nodes, kept_ids, device)
        assigned, self._clear_before = {}, [[] for _ in nodes]
        for i, node in enumerate(nodes):
            above = {id(top.diff_storage) for top in node.tops}
            for blob, wanted in zip(node.bottoms, node.propagate_down):
                key = id(blob.diff_storage)
                if node.needs_backward and wanted and key not in self._kept:
                    assigned[key] = blob
                    # What shares memory with a top has the gradient already.
                    if not assigns_gradients(node) and key not in above:
                        self._clear_before[i].append(blob)
        self._placed = []  # (storage, blob, first and last use in the order of running)
        last = len(nodes) - 1
        for key, (storage, (first, end)) in _lives(nodes, self._storage).items():
            if key in assigned:
                self._placed.append((storage, assigned[key], last - end, last - first))
                self._release_after[first].append(storage)
        self.buffer = self._layout = self._counts = None

    def _storage(self, blob):
        return blob.diff_storage

    def _give(self, buffer):
        pass  # its place in `buffer` belongs to others from here on

    def start(self):
        counts = [blob.count for _, blob, _, _ in self._placed]
        if counts != self._counts:
            lives = [(first, last) for _, _, first, last in self._placed]
            self._layout, size = lay_out(counts, lives)
            self._counts = counts
            if self._placed and (self.buffer is None or self.buffer.size < size):
                self.buffer = None  # the old one may go before the new one comes
                self.buffer = self.device.zeros(size, self._placed[0][0].dtype)
        for (storage, *_), place, count in zip(self._placed, self._layout, counts):
            storage.buffer = self.buffer[place : place + count]

    def before(self, i):
        for blob in self._clear_before[i]:
            blob.grad[...] = 0


ALIGNMENT = 32  # elements: arrays begin at a line of the cache


def lay_out(counts, lives):
    """Places in one buffer for arrays of which not all are alive at once.

    The largest first, each at the first place where it meets no other that lives at the same time.

    Args:
        counts: elements of each array. lives: (first, last) moment of each, both included.

    Returns:
        (places, size): where each begins, and of how many elements the buffer is.
    """
    places, placed, size = [0] * len(counts), [], 0
    for k in sorted(range(len(counts)), key=lambda k: (-counts[k], lives[k])):
        first, last = lives[k]
        taken = sorted(
            (places[j], places[j] + counts[j]) for j in placed
            if lives[j][0] <= last and first <= lives[j][1]
        )  # fmt: skip
        place = 0
        for begin, end in taken:
            if place + counts[k] <= begin:
                break
            place = max(place, -(-end // ALIGNMENT) * ALIGNMENT)
        places[k] = place
        placed.append(k)
        size = max(size, place + counts[k])
    return places, size


def _kept_blobs(nodes, kept_ids):
    for node in nodes:
        blobs = [*zip(node.bottom_ids, node.bottoms), *zip(node.top_ids, node.tops)]
        yield from (blob for index, blob in blobs if index in kept_ids)
        # What a layer without bottoms gives out, a user or a reader may have written.
        if not node.bottoms:
            yield from node.tops
        # The gradient of a loss is its weight, written once.
        yield from (top for top, w in zip(node.tops, node.loss_weights) if w)


def _lives(nodes, storage_of):
    """Storage's id -> (storage, indices of the first and the last node to use it)."""
    lives = {}
    for i, node in enumerate(nodes):
        for blob in (*node.bottoms, *node.tops):
            storage = storage_of(blob)
            _, (first, _) = lives.get(id(storage), (storage, (i, i)))
            lives[id(storage)] = (storage, (first, i))
    return lives


def check_keep(keep):
    """Raise NetError unless `keep` is "all" or "minimal"."""
    if keep not in ("all", "minimal"):
        raise NetError("net", 'keep="all" or keep="minimal"', repr(keep))
