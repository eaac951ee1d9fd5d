"""Clip: values limited to a range."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("Clip")
class Clip(Elementwise):
    """y = max(min, min(x, max)); dx = dy where min <= x <= max, else 0 (Caffe: ClipLayer)."""

    keeps_input = True

    def setup(self, bottom, top):
        p = self.param.clip_param
        if not (p.HasField("min") and p.HasField("max")):
            raise self.error("clip_param { min: ... max: ... }", f"{{ {str(p).strip()} }}")
        self.min, self.max = p.min, p.max

    def function(self, x, y):
        xp = self.device.xp
        xp.minimum(x, self.max, out=y)
        xp.maximum(y, self.min, out=y)

    def gradient(self, x, y, dy, dx):
        self.device.xp.multiply(dy, (x >= self.min) & (x <= self.max), out=dx)
