"""LSTMUnit: one time step of a long short-term memory, without its linear part."""

from ..engine.layer import Layer, register
from .sigmoid import sigmoid


def activate(xp, gates, out):
    """Gate inputs (..., 4D), ordered i f o g, to gates: sigmoid of i, f, o and tanh of g."""
    d = gates.shape[-1] // 4
    sigmoid(xp, gates[..., : 3 * d], out[..., : 3 * d])
    xp.tanh(gates[..., 3 * d :], out=out[..., 3 * d :])


def step(xp, c_prev, acts, cont, c, h):
    """c = cont * f * c_prev + i * g and h = o * tanh(c), written into `c` and `h`.

    Args:
        c_prev, c, h: (N, D). acts: (N, 4D) from `activate`. cont: (N, 1).
    """
    i, f, o, g = quarters(acts)
    xp.multiply(f, c_prev, out=c)
    c *= cont
    c += i * g
    xp.tanh(c, out=h)
    h *= o


def step_backward(xp, c_prev, acts, cont, c, dc, dh, dgates):
    """The gradient of `activate` and `step`: writes that of the gate inputs into `dgates`.

    Args: as of `step`; dc, dh: gradients of c and h, (N, D); dgates: (N, 4D).
    Returns: the gradient of c_prev, (N, D).
    """
    i, f, o, g = quarters(acts)
    di, df, do, dg = quarters(dgates)
    tanh_c = xp.tanh(c)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    # NOTE: Caffe's forget gate is cont * sigmoid as a whole, also inside its derivative
    # f * (1 - f); for cont other than 0 or 1 that is not the true derivative. Kept, because
    # trained results depend on it.
    f = f * cont
    di[...] = dc * g * i * (1 - i)
    df[...] = dc * c_prev * f * (1 - f)
    do[...] = dh * tanh_c * o * (1 - o)
    dg[...] = dc * i * (1 - g * g)
    return dc * f


def quarters(array):
    """Views of the four gates i, f, o, g in the last axis."""
    d = array.shape[-1] // 4
    return tuple(array[..., k * d : (k + 1) * d] for k in range(4))


@register("LSTMUnit")
class LSTMUnit(Layer):
    """Cell state and gate inputs to the next cell state and output (Caffe: LSTMUnitLayer).

    Bottoms: c_prev (1, N, D); gate inputs (1, N, 4D) in the order i, f, o, g; cont (1, N), which
    is 0 where a sequence begins and 1 where it continues. Tops: c and h, (1, N, D).
    Source: Zaremba and Sutskever, "Learning to Execute", 2014.
    """

    num_bottom = 3
    num_top = 2
    in_place = False
    no_force_backward = (2,)

    def setup(self, bottom, top):
        self._acts = self._blob()

    def reshape(self, bottom, top):
        c, gates, cont = (b.shape for b in bottom)
        fits = len(c) == 3 and c[0] == 1
        if not (fits and gates == (1, c[1], 4 * c[2]) and cont == c[:2]):
            raise self.error(
                "bottoms c (1, N, D), gate inputs (1, N, 4D) and cont (1, N)",
                f"shapes {c}, {gates} and {cont}",
            )
        top[0].reshape(*c)
        top[1].reshape(*c)
        self._acts.reshape(*gates)

    def forward(self, bottom, top):
        xp, acts = self.device.xp, self._acts.array
        activate(xp, bottom[1].array, acts)
        cont = bottom[2].array[..., None]  # (1, N) -> (1, N, 1)
        step(xp, bottom[0].array, acts, cont, top[0].array, top[1].array)

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 2, "the sequence indicators")
        if not (propagate_down[0] or propagate_down[1]):
            return
        dc_prev = step_backward(
            self.device.xp, bottom[0].array, self._acts.array, bottom[2].array[..., None],
            top[0].array, top[0].grad, top[1].grad, bottom[1].grad,
        )  # fmt: skip
        if propagate_down[0]:
            bottom[0].grad[...] = dc_prev
