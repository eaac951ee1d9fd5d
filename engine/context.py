"""What a net hands to its layers: random numbers, the number of the pass, typed settings."""

from .random import RandomStream


class Context:
    """The surroundings of one net. There is no global configuration and no global random state.

    Attributes:
        random: the net's `RandomStream`.
        passes: how many forward passes over the whole net have begun before the present one.
            Random layers and data layers key their draws by it, which makes a resumed run equal
            to one that was never interrupted.
        folder: where the net's prototxt lies, or None; files and Python layers beside it are
            found there.
    """

    def __init__(self, seed=None, settings=(), folder=None):
        self.random = RandomStream(seed)
        self.passes = 0
        self.folder = folder
        self._settings = {type(s): s for s in settings}

    def get(self, settings_type):
        """The settings of the given dataclass type, or its defaults."""
        if settings_type not in self._settings:
            self._settings[settings_type] = settings_type()
        return self._settings[settings_type]
