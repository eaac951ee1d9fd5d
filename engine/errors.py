"""The project's errors. Each says where, what was expected, what was found, and what to do."""

import difflib


def describe(where, expected, found, hint=""):
    """The one form of every message: "where: expected ..., found .... What to do."""
    text = f"{where}: expected {expected}, found {found}."
    return f"{text} {hint}" if hint else text


def closest(name, known, count=3):
    """ "Did you mean ...?" for a misspelt `name`, or "" if nothing in `known` is near."""
    known = list(known)
    lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), list(lower), n=count, cutoff=0.6)
    return f"Did you mean {' or '.join(repr(lower[n]) for n in near)}?" if near else ""


class DemitasseError(RuntimeError):
    """Base of all errors raised for bad input; a RuntimeError, because pycaffe's errors were."""

    def __init__(self, where, expected=None, found=None, hint=""):
        if expected is None:
            super().__init__(where)
        else:
            super().__init__(describe(where, expected, found, hint))


class ModelFileError(DemitasseError, ValueError):
    """A file that cannot be read, parsed, or does not hold what it should."""


class NetError(DemitasseError, ValueError):
    """A net whose layers do not fit together, or a request that it cannot meet."""


class UnknownNameError(NetError, KeyError):
    """A name that nothing in a net has; a KeyError as well, which programs catch."""

    __str__ = Exception.__str__  # KeyError's would put it in quotes


class LayerError(NetError):
    """A layer given the wrong blobs, shapes or parameters."""


class DataError(DemitasseError, ValueError):
    """A data source that is missing, broken, or not of the form it should have."""


class SolverError(DemitasseError, ValueError):
    """A solver definition that cannot be trained with, or a training run that went bad."""


class DeviceError(DemitasseError):
    """A device that is not there or cannot do what is asked."""


# What CUDA and its libraries say, in errors of their own that are no MemoryErrors.
_NO_ROOM = ("cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def ran_out_of_memory(error):
    """Whether an exception says that there is no memory left, on the host or on a GPU."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_ROOM)


class OutOfMemoryError(DeviceError, MemoryError):
    """A device that has no room for what a net asks of it."""

    @classmethod
    def at(cls, where, error):
        """Of a MemoryError, whose text has the bytes asked for, at a place of the net."""
        return cls(
            where, "memory enough", str(error) or "none left",
            "Make the batch smaller (batch_size, TRAIN.IMS_PER_BATCH) or the images (crop_size, "
            'TRAIN.SCALES, TEST.SCALES), or build the net with keep="minimal".',
        )  # fmt: skip
