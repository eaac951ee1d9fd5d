"""What the fuzz targets share. To fuzz for ten minutes rather than a moment:

    DEMITASSE_FUZZ_SECONDS=100 python -m pytest tests/fuzz

gives each target that many seconds. A failing input is shrunk and printed by hypothesis.
"""

import contextlib
import os
import random
import time
import tracemalloc
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import ModelFileError
from demitasse.engine.proto import caffe_pb2

SECONDS = float(os.environ.get("DEMITASSE_FUZZ_SECONDS", "0"))
GOLDEN = Path(__file__).parents[1] / "golden"

MAX_SECONDS = 3.0
"""The most processor time that one input may take, all of them being shorter than 100 KB."""

MAX_MEMORY = 64 * 2**20
"""The most memory that one input may make Python and NumPy take, in bytes."""


def fuzz(check, examples=40, **strategies) -> None:
    """Calls check(**values) for `examples` drawn values, and on until SECONDS have passed."""
    run = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(**strategies)(check))
    end = time.monotonic() + SECONDS
    run()
    while time.monotonic() < end:
        run()


@contextlib.contextmanager
def bounded():
    """A context in which any error but ModelFileError is a failure, and time and memory are few."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with contextlib.suppress(ModelFileError):
            yield
        seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < MAX_SECONDS
    assert peak < MAX_MEMORY


@st.composite
def mutated(draw, originals, dictionary):
    """One of the `originals` (bytes) after some cuts, flips, copies, insertions and splices."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 40))
        match draw(st.integers(0, 6)):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + size]
            case 2 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 3:
                data[at:at] = draw(st.sampled_from(dictionary))
            case 4:
                data[at:at] = data[at : at + size] * draw(st.integers(1, 20))
            case 5:
                data[at : at + size] = draw(st.binary(max_size=size))
            case 6:
                other = draw(st.sampled_from(originals))
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data[:100_000])


def random_message(kind, rng: random.Random, depth=0):
    """A message with random values in some of its fields, fewer the deeper it is."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if rng.random() > 1 / (3 + depth):
            continue
        values = [_random_value(field, rng, depth) for _ in range(rng.randint(1, 3))]
        target = getattr(message, field.name)
        if hasattr(target, "extend"):
            target.extend(values)
        elif field.message_type:
            target.CopyFrom(values[0])
        else:
            setattr(message, field.name, values[0])
    return message


def _random_value(field, rng, depth):
    if field.message_type:
        return random_message(getattr(caffe_pb2, field.message_type.name), rng, depth + 1)
    if field.enum_type:
        return rng.choice(field.enum_type.values).number
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice([0, -1.5, 1e-8, 0.1, 3e38, float("inf"), float("nan")])
    return {
        field.TYPE_STRING: "".join(rng.choices("aé\"'\\\n\t\0#{☕", k=rng.randint(0, 6))),
        field.TYPE_BYTES: rng.randbytes(rng.randint(0, 6)),
        field.TYPE_BOOL: rng.random() < 0.5,
    }.get(field.type, rng.choice([0, 1, 7, 2**31 - 1]))
