import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.layers import prefetch
from demitasse.layers.prefetch import Prefetcher


def batch(k):
    return [np.full(3, k)]


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch-")]


def numbers(prefetcher, n):
    return [int(prefetcher.next()[0][0]) for _ in range(n)]


@given(
    depth=st.integers(0, 5),
    threads=st.integers(1, 4),
    seeks=st.lists(st.integers(0, 50), max_size=3),
)
@settings(deadline=None, max_examples=30)
def test_batches_come_in_order_and_after_seeks(depth, threads, seeks):
    def load(k):
        time.sleep(0.001 * (k % 3))  # threads overtake each other
        return batch(k)

    p = Prefetcher(lambda: load, depth, threads)
    assert numbers(p, 5) == [0, 1, 2, 3, 4]
    for index in seeks:
        p.seek(index)
        assert numbers(p, 4) == [index, index + 1, index + 2, index + 3]
    p.close()
    assert not prefetch_threads()


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def test_reads_ahead_no_further_than_its_depth():
    loaded = []
    p = Prefetcher(lambda: lambda k: loaded.append(k) or batch(k), 3)
    assert loaded == []  # nothing before the first use
    p.next()
    wait_until(lambda: len(loaded) >= 4)
    time.sleep(0.05)
    assert loaded == [0, 1, 2, 3]
    p.close()


def test_reads_ahead_no_more_than_a_limit_of_bytes(monkeypatch):
    monkeypatch.setattr(prefetch, "_MAX_AHEAD_BYTES", 2 * batch(0)[0].nbytes)
    loaded = []
    p = Prefetcher(lambda: lambda k: loaded.append(k) or batch(k), 50)
    p.next()
    wait_until(lambda: len(loaded) >= 3)
    time.sleep(0.05)
    assert loaded == [0, 1, 2]
    p.close()


def test_an_error_is_raised_at_its_batch_and_a_retry_reads_again():
    broken = {2}

    def load(k):
        if k in broken:
            raise ValueError(f"batch {k}")
        return batch(k)

    p = Prefetcher(lambda: load, 4)
    assert numbers(p, 2) == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="batch 2"):
            p.next()
    broken.clear()
    assert numbers(p, 2) == [2, 3]
    p.close()


def test_an_error_in_opening_is_raised():
    def open_reader():
        raise OSError("no such source")

    with pytest.raises(OSError, match="no such source"):
        Prefetcher(open_reader, 4).next()
    assert not prefetch_threads()


def test_threads_end_when_the_prefetcher_is_collected():
    p = Prefetcher(lambda: batch, 4, 3)
    p.next()
    assert len(prefetch_threads()) == 3
    del p
    gc.collect()
    assert not prefetch_threads()


def test_a_forked_child_starts_its_own_threads():
    p = Prefetcher(lambda: batch, 4)
    assert numbers(p, 3) == [0, 1, 2]
    pid = os.fork()
    if pid == 0:
        ok = numbers(p, 3) == [3, 4, 5]
        p.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert numbers(p, 3) == [3, 4, 5]
    p.close()


def test_the_interpreter_exits_while_threads_read():
    program = """
import numpy as np, time
from demitasse.layers.prefetch import Prefetcher
p = Prefetcher(lambda: lambda k: [np.zeros(3)], 2)
p.next()
print("last line", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "last line\n", "")
