"""What a net hands to its layers: random numbers, the number of the pass, typed settings."""

from dataclasses import dataclass

from .files import find_beside
from .random import RandomStream


@dataclass(frozen=True)
class Shard:
    """The batches that a net sees of those that several processes share.

    Of `count` processes, number `index` takes the batches index, index + count, ...
    """

    index: int = 0
    count: int = 1

    def number(self, k):
        """The number, among all batches, of the k-th that this net sees."""
        return k * self.count + self.index

    def reader(self, open_reader):
        """`open_reader`, a function that returns a function of a batch's number, for this shard's
        own numbers."""
        if self.count == 1:
            return open_reader

        def opened():
            load = open_reader()
            return lambda k: load(self.number(k))

        return opened


class Context:
    """The surroundings of one net. There is no global configuration and no global random state.

    Attributes:
        random: the net's `RandomStream`.
        passes: the number of the present forward pass over the whole net, counted over all
            processes that share the data: each takes one in turn. Random layers and data layers
            key their draws by it, which makes a resumed run equal to one that was never
            interrupted, and n processes equal to one that makes n passes an iteration.
        shard: the `Shard` of the data that this net sees.
        folder: where the net's prototxt lies, or None; files and Python layers beside it are
            found there. solver_folder: where the solver's lies, or None.
    """

    def __init__(self, seed=None, settings=(), folder=None, solver_folder=None, shard=None):
        self.random = RandomStream(seed)
        self.shard = shard or Shard()
        self.passes = self.shard.number(0)
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
