"""The benchmarks' steps find the package on a machine where it is not installed."""

import importlib
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
print(gpu_all.lacking(["numpy", "no_such.module", "numpy.no_such"], environment))
print(gpu_all.lacking(["demitasse.engine.device", "caffe", "benchmarks.gpu_kernels"], environment))
found = "import demitasse, demitasse.solvers, caffe; print(demitasse.__path__[0])"
subprocess.run([*gpu_all.PYTHON, "-c", found], env=environment, cwd=gpu_all.ROOT, check=True)
"""


def test_steps_import_what_was_prepared(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TEXT, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    missing, nothing, folder = done.stdout.splitlines()
    assert missing == "no_such.module and numpy.no_such are missing" and not nothing
    assert folder == str(tmp_path / "demitasse")


def test_steps_that_cannot_run_are_named(tmp_path, monkeypatch, capfd):
    """A step without its module, one that fails, one that outlasts its time, and one too late."""
    monkeypatch.syspath_prepend(str(ROOT))
    gpu_all = importlib.import_module("benchmarks.gpu_all")
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "step_well.py").write_text("print('well done')")
    (steps / "step_badly.py").write_text("import sys; sys.exit('broken')")
    (steps / "step_slowly.py").write_text("import time; print('begun'); time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(steps))
    monkeypatch.setattr(gpu_all, "STEPS", [
        ("lame", ["step_well"], ("no_such_module",), 9), ("well", ["step_well"], ("numpy",), 9),
        ("badly", ["step_badly"], (), 9), ("slowly", ["step_slowly"], (), 1),
    ])  # fmt: skip
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gpu_all", "--out", str(out)])
    assert gpu_all.main() == 2
    said = capfd.readouterr().out
    assert "lame: skipped, because no_such_module is missing" in said
    assert "2 failed: badly, slowly" in said and "stopped after 1 s" in said
    assert (out / "gpu_well.txt").read_text() == "well done\n"
    assert "broken" in (out / "gpu_badly.txt").read_text()
    assert "begun" in (out / "gpu_slowly.txt").read_text()
    monkeypatch.setattr(sys, "argv", ["gpu_all", "--out", str(out), "--minutes", "0.1"])
    assert gpu_all.main() == 0
    assert "well: skipped, because the time is up" in capfd.readouterr().out
