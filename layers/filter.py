"""Filter: the items of a batch that a selector marks."""

from ..engine.layer import Layer, register


@register("Filter")
class Filter(Layer):
    """Keeps the items whose selector is not zero (Caffe: FilterLayer).

    Bottoms: any number (N, ...), then the selector (N, 1...) -> tops (K, ...), one for each but
    the selector. K may be 0.
    """

    min_bottom = 2
    min_top = 1
    in_place = False
    synchronisations = 1  # how many items are kept is a shape

    def setup(self, bottom, top):
        if len(top) != len(bottom) - 1:
            raise self.error(
                "one top for each bottom but the last, the selector",
                f"{len(bottom)} bottoms and {len(top)} tops",
            )  # fmt: skip
        self.is_first = True

    def reshape(self, bottom, top):
        selector = bottom[-1]
        if not selector.shape or selector.count != selector.shape[0]:
            raise self.error(
                "a selector of shape (N,) or (N, 1, ...) as the last bottom",
                f"shape {selector.shape}",
            )  # fmt: skip
        for k, b in enumerate(bottom[:-1]):
            if b.shape[:1] != selector.shape[:1]:
                raise self.error(
                    f"{selector.shape[0]} items, as many as the selector has",
                    f"shape {b.shape} of bottom {k}",
                )  # fmt: skip
        self.kept = self.device.xp.flatnonzero(selector.array)
        # While the net is built nothing is selected yet: the layers that follow are set up for
        # the largest batch.
        count = selector.shape[0] if self.is_first else len(self.kept)
        self.is_first = False
        for b, t in zip(bottom, top):
            t.reshape(count, *b.shape[1:])

    def forward(self, bottom, top):
        for b, t in zip(bottom, top):
            self.device.xp.take(b.array, self.kept, axis=0, out=t.array)

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, len(bottom) - 1, "the selector")
        for b, t, wanted in zip(bottom, top, propagate_down):
            if wanted:
                b.grad[...] = 0
                b.grad[self.kept] = t.grad
