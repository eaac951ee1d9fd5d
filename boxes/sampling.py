"""Random choice of the boxes that are learnt from. `rng` is a numpy.random.Generator."""

import numpy as np


def choose(indices, count, rng):
    """`count` of the indices (all, if there are fewer) at random, in their given order."""
    if count >= len(indices):
        return indices
    return indices[np.sort(rng.choice(len(indices), count, replace=False, shuffle=False))]


def sample(foreground, background, count, most_foreground, rng):
    """Of two arrays of indices, `count` in all, at most `most_foreground` of them foreground.

    Background fills up what there is too little foreground for; there may be too little of both.
    """
    foreground = choose(foreground, min(count, most_foreground), rng)
    return foreground, choose(background, count - len(foreground), rng)


def subsample_labels(labels, count, fg_fraction, rng):
    """A copy of labels (N,) in which `count` remain 1 or 0 and the others become -1.

    At most a fraction `fg_fraction` of `count` remains 1 (Detectron2 has a function of this name).
    """
    foreground, background = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    foreground, background = sample(foreground, background, count, int(fg_fraction * count), rng)
    out = np.full_like(labels, -1)
    out[foreground], out[background] = 1, 0
    return out
