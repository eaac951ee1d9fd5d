"""The mean of gradients over all ranks, computed while the backward pass goes on.

Parameters are put into buckets in the order in which their gradients become complete. A bucket's
sum begins after the layer that completes it. Small gradients are summed in one buffer, because each
sum costs a latency; a large one is summed where it is, because copying it would cost more.
"""

BUCKET = 4 << 20  # bytes from which on a bucket is full


class Gradients:
    """Sums the gradients of a net over the ranks of a communicator.

    Args:
        net: a `Net`; its `after_gradients` gets a callback.
        communicator: a `Communicator`.
        bucket_bytes: when a bucket is full.

    Attributes:
        trace: a `Trace` that is told of each backward pass and each sum, or None.
        buckets: the `Bucket`s in the order in which they are summed.
    """

    def __init__(self, net, communicator, bucket_bytes=BUCKET):
        self._net, self._communicator = net, communicator
        self.buckets = make_buckets(net, bucket_bytes)
        self.trace = None
        self._begun = None  # how many buckets of this pass have begun; None between passes
        net.after_gradients.append(self._after_layer)

    def begin(self):
        """Before the last backward pass of an iteration: from now on sums begin."""
        self._begun = 0
        self._start = self.trace.now() if self.trace else 0

    def _after_layer(self, index):
        # debug_info reads gradients after the pass, so none may change before its end.
        if self._begun is not None and not self._net.debug_info:
            self._begin_until(index)
            self._communicator.progress()

    def _begin_until(self, index):
        """Begin the sums of all buckets that are complete after the layer of this index."""
        while self._begun < len(self.buckets) and self.buckets[self._begun].layer >= index:
            bucket = self.buckets[self._begun]
            bucket.begin(self._communicator, self.trace.now() if self.trace else 0)
            self._begun += 1

    def finish(self):
        """After that pass: wait for all sums; the gradients are means over the ranks then."""
        if self.trace:
            self.trace.add("layers", "backward", self._start, self.trace.now())
        self._begin_until(0)
        self._begun = None
        for k, bucket in enumerate(self.buckets):
            begin = bucket.finish(self._communicator.size)
            if self.trace:
                self.trace.add("sums", f"all-reduce {k}: {bucket}", begin, self.trace.now())


def make_buckets(net, bucket_bytes):
    """The `Bucket`s of a net's gradients; the same on every rank."""
    parameters = sorted(_learnt(net), key=lambda found: -found[0])
    buckets, small = [], []
    for layer, parameter in parameters:
        if _bytes(net, parameter) >= bucket_bytes:
            buckets.append(Bucket(net, layer, [parameter]))
            continue
        small.append(parameter)
        small_layer = layer
        if sum(_bytes(net, p) for p in small) >= bucket_bytes:
            buckets.append(Bucket(net, layer, small))
            small = []
    if small:
        buckets.append(Bucket(net, small_layer, small))
    return sorted(buckets, key=lambda bucket: -bucket.layer)


def _learnt(net):
    """(index of the layer that completes the gradient, parameter) for all that learn.

    Backward runs from the last layer to the first, so a shared parameter's gradient is complete
    after the first layer that uses it.
    """
    for parameter in net.learnable:
        users = [p for p in net.parameters if p is parameter or p.owner is parameter]
        computed = any(
            net.nodes[p.layer].needs_backward
            and net.nodes[p.layer].layer.param_propagate_down[p.index]
            for p in users
        )
        if computed and parameter.lr_mult != 0:
            yield min(p.layer for p in users), parameter


def _bytes(net, parameter):
    return parameter.blob.count * net.dtype.itemsize


class Bucket:
    """Gradients that are summed together; complete after the layer number `layer`."""

    def __init__(self, net, layer, parameters):
        self._net, self.layer, self.parameters = net, layer, parameters
        self.count = sum(p.blob.count for p in parameters)
        self._buffer = self._request = None

    def begin(self, communicator, now=0):
        """Begin the sum."""
        self._begin = now
        flat = self._flat()
        if len(flat) == 1:
            buffer = flat[0]
        else:
            if self._buffer is None:
                self._buffer = self._net.device.zeros(self.count, self._net.dtype)
            buffer, at = self._buffer, 0
            for gradient in flat:
                buffer[at : at + gradient.size] = gradient
                at += gradient.size
        self._request = communicator.begin_sum(buffer)

    def finish(self, ranks):
        """Wait for the sum, and have the gradients be the mean; returns when the sum began."""
        self._request.wait()
        self._request = None
        xp, scale = self._net.device.xp, self._net.dtype.type(1 / ranks)
        flat, at = self._flat(), 0
        for gradient in flat:
            total = gradient if len(flat) == 1 else self._buffer[at : at + gradient.size]
            xp.multiply(total, scale, out=gradient)
            at += gradient.size
        return self._begin

    def _flat(self):
        return [p.blob.grad.reshape(-1) for p in self.parameters]

    def __str__(self):
        names = list(dict.fromkeys(self._net.nodes[p.layer].name for p in self.parameters))
        return f"{', '.join(names)} ({self.count} numbers)"
