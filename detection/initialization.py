"""How weights of a deep net begin that has none to begin with: so that it learns at once."""

import numpy as np

_MIXED = 0.5  # of drawn weights beside the identity
_EDGE = 2 / 7  # of a region's side
_PATCH_STEP = 3  # pixels between patches that whitening is worked out from
_NOISE = 1e-3  # part of the largest variance that is added to all: what is less is taken for noise


def begin_as_shortcuts(net):
    """Draw weights with which convolutions pass on their inputs, and some of what was drawn.

    Each is an identity (of channels repeated, where there are more outputs than inputs) plus
    `_MIXED` times the filler's weights, in units of the standard deviation of the outputs:
    Zagoruyko and Komodakis, "DiracNets: Training Very Deep Neural Networks Without
    Skip-Connections", 2017. What the first one finds in an image thus reaches all others at once.
    The first one's inputs are whitened before, or of its outputs colour would be nearly all.
    """
    begin = 0
    for i, node in enumerate(net.nodes):
        if node.layer.type_name != "Convolution":
            continue
        weight = node.layer.blobs[0].data
        axes = tuple(range(1, weight.ndim))
        if not begin:
            weight[...] = whitened(weight, node.bottoms[0].data)
        else:  # inputs are not negative: what is common to them would be most of a sum
            weight -= weight.mean(axis=axes, keepdims=True)
        net.forward(begin, i)
        weight /= np.expand_dims(_per_channel(node.tops[0].data), axes)
        if begin:
            _mix_with_identity(weight, _per_channel(node.bottoms[0].data))
        begin = i  # its outputs change, so it runs again with what follows


def _mix_with_identity(weight, input_std):
    """Make weights (K, C / groups, h, w), whose outputs vary by 1, pass on inputs (C,) besides."""
    outputs, group_size = np.arange(len(weight)), weight.shape[1]
    groups = len(input_std) // group_size
    within = outputs % group_size
    inputs = outputs * groups // len(weight) * group_size + within
    weight *= np.expand_dims(_MIXED * input_std[inputs], (1, 2, 3))
    weight[outputs, within, weight.shape[2] // 2, weight.shape[3] // 2] += 1
    weight /= np.hypot(1, _MIXED)


def pass_on_parts(net, names):
    """Let hidden layers pass on parts of their inputs, beside what the filler drew.

    Of an InnerProduct the first C units get the means of the C channels over all positions, the
    next C over the left edge, and so on through `_parts`; those of a convolution get what is at the
    centre of its window. So what pretraining found, and where in a region it is, reach the scores
    and the boxes above from the first iteration.

    Args: names: of the layers to change, those of them that have a ReLU behind.
    """
    hidden = {node.bottoms[0] for node in net.nodes if node.type == "ReLU"}
    for node in net.nodes:
        if node.name not in names or node.tops[0] not in hidden:
            continue
        weight, (channels, *size) = node.layer.blobs[0].data, node.bottoms[0].shape[1:]
        if node.type == "InnerProduct" and not node.layer.transpose:
            parts = _parts(*size) if len(size) == 2 else np.ones((1, 1))
        elif node.type == "Convolution" and weight.shape[1] == channels:
            positions = np.arange(weight[0, 0].size)
            parts = (positions == positions.size // 2)[None].astype(float)
        else:
            continue
        by_channel = weight.reshape(len(weight), channels, -1)
        by_channel -= by_channel.mean(axis=(1, 2), keepdims=True)  # as of convolutions, above
        units = np.arange(len(weight))
        by_channel[units, units % channels] += parts[units // channels % len(parts)]


def _parts(height, width):
    """Weights (8, height * width) of means over parts of a region.

    The parts: all of it, its left, right, upper and lower edge, its centre, and the bands between
    two edges, upright and level.
    """
    edges = [max(1, round(_EDGE * n)) for n in (height, width)]
    inner = [slice(e, n - e) if n > 2 * e else slice(n) for e, n in zip(edges, (height, width))]
    (top, left), (rows, columns) = edges, inner
    everywhere = slice(None)
    masks = np.zeros((8, height, width))
    for mask, (y, x) in zip(masks, [
        (everywhere, everywhere),
        (everywhere, slice(left)), (everywhere, slice(width - left, width)),
        (slice(top), everywhere), (slice(height - top, height), everywhere),
        (rows, columns), (everywhere, columns), (rows, everywhere),
    ]):  # fmt: skip
        mask[y, x] = 1
    masks /= masks.sum(axis=(1, 2), keepdims=True)
    return masks.reshape(8, -1)


def _per_channel(values):
    """Standard deviations (C,) of (N, C, H, W), 1 for those that are 0."""
    std = values.std(axis=(0, 2, 3))
    std[std == 0] = 1
    return std


def whitened(weight, images):
    """Weights (K, C, h, w) that do to patches of `images` what `weight` does to whitened ones.

    Whitening makes all directions in the space of patches equally likely. Neighbouring pixels are
    alike, so that without it what tells a texture from another is but a small part of a patch.
    """
    channels, *kernel = weight.shape[1:]
    patches = np.lib.stride_tricks.sliding_window_view(images[:, :channels], kernel, axis=(2, 3))
    patches = patches[:, :, ::_PATCH_STEP, ::_PATCH_STEP].transpose(0, 2, 3, 1, 4, 5)
    patches = patches.reshape(-1, weight[0].size).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    scale = 1 / np.sqrt(values + _NOISE * values[-1])
    whitening = (vectors * scale) @ vectors.T
    return (weight.reshape(len(weight), -1) @ whitening).reshape(weight.shape)
