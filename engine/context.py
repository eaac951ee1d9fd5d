"""What a net hands to its layers: random numbers, the number of the pass, typed settings."""

from .files import find_beside
from .random import RandomStream


class Context:
    """The surroundings of one net. There is no global configuration and no global random state.

    Attributes:
        random: the net's `RandomStream`.
        passes: how many forward passes over the whole net have begun before the present one.
            Random layers and data layers key their draws by it, which makes a resumed run equal
            to one that was never interrupted.
        folder: where the net's prototxt lies, or None; files and Python layers beside it are
            found there. solver_folder: where the solver's lies, or None.
    """

    def __init__(self, seed=None, settings=(), folder=None, solver_folder=None):
        self.random = RandomStream(seed)
        self.passes = 0
        self.folder, self.solver_folder = folder, solver_folder
        self._settings = {type(s): s for s in settings}

    def find(self, name):
        """The path of a file or folder that the net names (see `files.find_beside`).

        NOTE: Caffe looks in the working directory only. Beside the net or solver a data source is
        found from everywhere, as the net itself is. What is nowhere keeps its name, for the error
        of what opens it.
        """
        folders = [f for f in (self.folder, self.solver_folder) if f is not None]
        return find_beside(name, folders) or name

    def get(self, settings_type):
        """The settings of the given dataclass type, or its defaults."""
        if settings_type not in self._settings:
            self._settings[settings_type] = settings_type()
        return self._settings[settings_type]
