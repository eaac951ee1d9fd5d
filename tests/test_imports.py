"""Who may import whom (docs: architecture), and what `import caffe` must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Package of ours -> those it may import besides itself.
ALLOWED = {
    "engine": set(),
    "boxes": {"engine"},
    "layers": {"engine", "boxes"},
    "solvers": {"engine"},
    "caffe": {"engine", "layers", "solvers"},
    "detection": {"engine", "layers", "solvers", "boxes", "prototxt"},
    "tools": {"engine", "layers", "solvers", "boxes", "caffe", "detection", "prototxt"},
    "prototxt": {"engine"},
    "demitasse": set(),
}
# What the heavy ones cost is paid by those who use them.
HEAVY = ("numba", "cupy", "cv2", "matplotlib", "scipy", "h5py", "lmdb", "yaml")


def sources():
    return [p for package in ALLOWED for p in sorted((ROOT / package).rglob("*.py"))]


def module_of(path):
    """The installed name of a source file, as parts: engine/net.py -> demitasse.engine.net."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return parts if parts[0] in ("caffe", "demitasse") else ["demitasse", *parts]


def imports_of(path):
    """All that a file imports anywhere in it, as absolute dotted names."""
    parts = module_of(path)
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from x import y` may import the module x.y.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _import_module_call(node, package)


def _import_module_call(node, package):
    """The name given to importlib.import_module, if it is written out."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name not in ("import_module", "__import__") or not node.args:
        return
    text = node.args[0]
    if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
        return
    dots = len(text.value) - len(text.value.lstrip("."))
    base = package[: len(package) - dots + 1] if dots else []
    yield ".".join([*base, text.value.lstrip(".")])


def package_of(name):
    """Which of our packages a dotted name belongs to, or None."""
    parts = name.split(".")
    if parts[0] == "demitasse":
        return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "demitasse"
    return "caffe" if parts[0] == "caffe" else None


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = path.relative_to(ROOT).parts[0]
    for name in imports_of(path):
        package = package_of(name)
        if own == "engine" and path.name == "layer.py" and name == "demitasse.layers":
            continue  # the registry loads the built-in layers as a whole, by no layer's name
        allowed = package in (None, own, "demitasse") or package in ALLOWED[own]
        assert allowed, f"{name}: {own} may import only {sorted(ALLOWED[own])}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_names_that_are_not_installed_are_not_imported(path):
    """`engine` and so on are folders of the repository; a user's program may have its own."""
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert not tops & (set(ALLOWED) - {"caffe", "demitasse"})


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_in_one_place(path):
    tops = {name.split(".")[0] for name in imports_of(path)}
    where = path.relative_to(ROOT).as_posix()
    cuda = where.startswith("engine/kernels/cuda/")
    assert "cupy" not in tops or cuda or where == "engine/device.py"
    assert "numba" not in tops or where.startswith(("engine/kernels/", "boxes/"))
    assert "cv2" not in tops or where == "engine/opencv.py"  # where its threads are limited


def test_the_test_sees_what_is_imported(tmp_path):
    """Each form of import is found, relative ones made absolute."""
    source = tmp_path / "engine" / "sub" / "module.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        "import a.b, c as d\nfrom ..net import Net\nfrom . import other\nfrom x.y import z\n"
        "def f():\n    import lazy\n    importlib.import_module('...layers', __package__)\n"
    )
    global ROOT
    real, ROOT = ROOT, tmp_path
    try:
        found = set(imports_of(source))
    finally:
        ROOT = real
    assert found == {
        "a.b", "c", "demitasse.engine.net.Net", "demitasse.engine.sub.other", "x.y.z", "lazy",
        "demitasse.layers",
    }  # fmt: skip


def loaded_after(program):
    """Which of HEAVY a fresh interpreter has loaded after running `program`."""
    program += f"\nimport sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_import_caffe_is_light():
    assert loaded_after("import caffe") == []


def test_building_a_net_is_light(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h"
                inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
        layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
        layer { name: "softmax" type: "Softmax" bottom: "h" top: "p" }
        """
    )
    program = f"import caffe; caffe.Net({str(tmp_path / 'net.prototxt')!r}, caffe.TEST)"
    assert loaded_after(program) == []
