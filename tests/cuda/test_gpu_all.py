"""The benchmarks' steps find the package on a machine where it is not installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In another process, since it is what is first on the path that counts.
TEXT = """
import subprocess, sys
from pathlib import Path
from benchmarks import gpu_all
environment = gpu_all.prepare(Path(sys.argv[1]), None)
print(gpu_all.lacking(["demitasse.engine.device", "caffe", "benchmarks.gpu_kernels"], environment))
found = "import demitasse, demitasse.solvers, caffe; print(demitasse.__path__[0])"
subprocess.run([*gpu_all.PYTHON, "-c", found], env=environment, cwd=gpu_all.ROOT, check=True)
"""


def test_steps_import_what_was_prepared(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TEXT, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "demitasse")]
