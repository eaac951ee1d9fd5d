"""Tile: a blob repeated along an axis."""

from ..engine.layer import Layer, register


@register("Tile")
class Tile(Layer):
    """The bottom `tile_param.tiles` times in a row along `axis` (Caffe: TileLayer).

    (..., C, ...) -> (..., tiles * C, ...).
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.tile_param
        if p.tiles < 1:
            raise self.error("tile_param.tiles of at least 1", p.tiles)
        self.given_axis, self.tiles = p.axis, p.tiles

    def reshape(self, bottom, top):
        axis = self.axis_of(bottom[0], self.given_axis)
        shape = list(bottom[0].shape)
        shape[axis] *= self.tiles
        top[0].reshape(*shape)
        # (..., C, ...) as (outer, 1, inner), the top as (outer, tiles, inner)
        self.outer, self.inner = bottom[0].count_from(0, axis), bottom[0].count_from(axis)

    def forward(self, bottom, top):
        x = bottom[0].array.reshape(self.outer, 1, self.inner)
        top[0].array.reshape(self.outer, self.tiles, self.inner)[...] = x

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            dy = top[0].grad.reshape(self.outer, self.tiles, self.inner)
            dx = bottom[0].grad.reshape(self.outer, self.inner)
            self.device.xp.sum(dy, axis=1, out=dx)
