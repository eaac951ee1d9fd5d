"""Dictionaries of a net's blobs and layers."""

from collections import OrderedDict

from .errors import UnknownNameError, closest


class ByName(OrderedDict):
    """Things of a net by name, in order; an unknown name is an error with the closest known."""

    def __init__(self, what, items):
        super().__init__(items)
        self._what = what

    def copy(self):
        """A plain copy."""
        return OrderedDict(self)

    def __missing__(self, name):
        hint = closest(str(name), self) or f"Known: {', '.join(self)}."
        raise UnknownNameError("net", f"the name of a {self._what}", repr(name), hint)
