"""How many ranks there are to be, and on which devices."""

from dataclasses import dataclass

from ...engine import device as devices
from .communicator import ParallelError
from .place import place as place_of_process


@dataclass(frozen=True)
class Plan:
    """What a training is to run on.

    Attributes:
        size: how many ranks.
        gpus: the numbers of this machine's GPUs, one a rank; None for the CPU or for what the
            solver file says.
    """

    size: int = 1
    gpus: tuple | None = None

    def device(self, place):
        """The device of the rank at a `Place`: its GPU, or the CPU."""
        return devices.CPU if self.gpus is None else devices.gpu_device(self.gpus[place.local_rank])


def gpu_numbers(text, where="flag -gpu"):
    """The GPUs that a flag names: "0", "0,1", or "all"; an empty tuple for an empty text.

    Raises: ParallelError for other texts, for a GPU that is named twice or is not there;
        DeviceError if several are named and there is none at all.
    """
    if not text:
        return ()
    if text == "all":
        return tuple(range(devices.gpu_count())) or (0,)  # of which gpu_device says what is missing
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        expected = "numbers as in 0,1" if "," in text else "a number, or 'all'"
        raise ParallelError(where, expected, repr(text))
    numbers = tuple(int(word) for word in words)
    if len(set(numbers)) < len(numbers):
        raise ParallelError(where, "each GPU once", repr(text), "Each rank has a GPU of its own.")
    count = devices.gpu_count()
    if len(numbers) > 1 and not count:
        devices.gpu_device(numbers[0])  # says what is missing, once for all ranks
    if len(numbers) > 1 and max(numbers) >= count:
        raise ParallelError(
            where, f"GPUs below {count}, as many as this machine has", repr(text),
            "nvidia-smi lists them.",
        )  # fmt: skip
    return numbers


def make_plan(ranks=0, gpus=(), place=None):
    """The `Plan` that a command line asks for.

    Args:
        ranks: of the flag, 0 if it was not given.
        gpus: of `gpu_numbers`.
        place: the `Place` of this process. Where an mpirun has started it, that says how many
            ranks there are, and `gpus` are those of each machine.

    Raises: ParallelError for numbers that contradict each other.
    """
    place = place or place_of_process()
    if ranks < 0:
        raise ParallelError("flag -ranks", "at least 1", ranks)
    if place.started:
        if ranks not in (0, place.size):
            raise ParallelError(
                "flag -ranks", f"{place.size}, as many as mpirun has started", ranks,
                "Leave one of both out.",
            )  # fmt: skip
        if gpus and len(gpus) != place.local_size:
            raise ParallelError(
                "flag -gpu", f"a GPU for each of {place.local_size} ranks on this machine",
                ",".join(map(str, gpus)), "List as many GPUs as there are ranks.",
            )  # fmt: skip
        return Plan(place.size, gpus or None)
    if gpus and ranks not in (0, len(gpus)):
        raise ParallelError(
            "flag -ranks", f"{len(gpus)}, one a GPU of -gpu {','.join(map(str, gpus))}", ranks,
            "Leave out -ranks, or list as many GPUs.",
        )  # fmt: skip
    return Plan(ranks or len(gpus) or 1, gpus or None)
