"""Where arrays lie, for libraries that are called with addresses."""


def address(array):
    """The address of a device array's first element, as a number."""
    held = getattr(array, "held", None)  # of a StrictArray
    return array.data.ptr if held is None else held.ctypes.data
