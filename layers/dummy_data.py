"""DummyData: blobs filled by fillers."""

from ..engine.fillers import check_filler, fill
from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2

_LEGACY = ("num", "channels", "height", "width")


@register("DummyData")
class DummyData(Layer):
    """Tops with made-up values (Caffe: DummyDataLayer).

    Constant fillers write once, before the first pass; random ones before every pass. Shapes and
    fillers are given once for all tops or once for each; the default filler is the constant 0.
    """

    num_bottom = 0
    writes_on_host = True
    min_top = 1

    def setup(self, bottom, top):
        p = self.param.dummy_data_param
        self._set_shapes(p, top)
        fillers = p.data_filler or [caffe_pb2.FillerParameter()]
        self._check_once_or_each("data_filler", fillers, top)
        self.random_fillers = []  # (index, blob, filler) of the tops to fill in every pass
        for i, blob in enumerate(top):
            filler = _pick(fillers, i)
            check_filler(filler, blob.shape, f"{self._where()}: data_filler {i}")
            if filler.type == "constant":
                blob.data[...] = filler.value
            else:
                self.random_fillers.append((i, blob, filler))

    def _set_shapes(self, p, top):
        legacy = [getattr(p, field) for field in _LEGACY]
        if not any(legacy):
            self._check_once_or_each("shape", p.shape, top)
            for i, blob in enumerate(top):
                blob.reshape(*_pick(p.shape, i).dim)
            return
        if p.shape:
            raise self.error("either shape or num, channels, height, width", "both")
        for field, values in zip(_LEGACY, legacy):
            self._check_once_or_each(field, values, top)
        for i, blob in enumerate(top):
            blob.reshape(*(_pick(values, i) for values in legacy))

    def _check_once_or_each(self, field, values, top):
        if len(values) not in (1, len(top)):
            raise self.error(f"{field} once, or once for each of {len(top)} tops", len(values))

    def forward(self, bottom, top):
        for i, blob, filler in self.random_fillers:
            fill(blob.blank_data, filler, self.random(i))


def _pick(values, i):
    return values[i if len(values) > 1 else 0]
