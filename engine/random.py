"""Random numbers from a counter-based generator (Philox), keyed by what they are for.

A draw depends on the seed and on its key (which layer, which pass, which image) and on nothing
else: not on what was drawn before, not on threads, not on the device. A resumed run, a prefetching
reader or a second rank therefore needs no saved random state.
"""

import hashlib
import secrets

import numpy as np

_MASK = (1 << 64) - 1
_default_seed = None


def set_default_seed(seed):
    """Seed of every `RandomStream` made from now on without one (`caffe.set_random_seed`)."""
    global _default_seed
    _default_seed = None if seed is None else int(seed) & _MASK


class RandomStream:
    """A family of independent generators under one 64-bit seed.

    Without a seed, the default seed counts if one was set, else the operating system's entropy.
    """

    def __init__(self, seed=None):
        if seed is None:
            seed = secrets.randbits(63) if _default_seed is None else _default_seed
        self.seed = int(seed) & _MASK

    def key(self, *key):
        """(seed, stream), 64 bits each: what `key`, strings and integers, stands for."""
        # repr tells apart what no joining would; NumPy's integers count as Python's.
        text = repr([k if isinstance(k, str) else int(k) for k in key])
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return self.seed, int.from_bytes(digest, "little")

    def generator(self, *key):
        """A `numpy.random.Generator` for `key`, a sequence of strings and integers."""
        bits = np.random.Philox(key=np.array(self.key(*key), dtype=np.uint64))
        return np.random.Generator(bits)
