"""Input: blobs that the user fills."""

from ..engine.layer import Layer, register


@register("Input")
class Input(Layer):
    """Tops of given shapes whose values the user writes (Caffe: InputLayer).

    `shape` is given once for all tops or once for each; without any, the user reshapes.
    """

    num_bottom = 0
    writes_on_host = True
    min_top = 1

    def setup(self, bottom, top):
        shapes = self.param.input_param.shape
        if len(shapes) not in (0, 1, len(top)):
            raise self.error(f"no shape, one, or one for each of {len(top)} tops", len(shapes))
        for i, blob in enumerate(top):
            if shapes:
                blob.reshape(*shapes[i if len(shapes) > 1 else 0].dim)
