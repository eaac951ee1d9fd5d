import re
import sys
import textwrap

import numpy as np
import pytest

from demitasse.engine.context import Context
from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers import python
from demitasse.layers.python import PythonLayer, allow_python_layers

HERE = __name__


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch, tmp_path):
    """No module is allowed, none of a test's own stays, and sys.path does not change."""
    monkeypatch.setattr(python, "_allowed", set())
    monkeypatch.delenv(python.ENVIRONMENT_VARIABLE, raising=False)
    path = list(sys.path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    monkeypatch.undo()
    assert sys.path == path


def make_net(
    module, layer, *, folder=None, param_str="", more="", phase=Phase.TEST, head="", tail=""
):  # fmt: skip
    text = f"""
        {head}
        layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "mine" type: "Python" bottom: "x" top: "y" {more}
                 python_param {{ module: "{module}" layer: "{layer}" param_str: "{param_str}" }} }}
        {tail}
        """
    context = Context(1, folder=None if folder is None else str(folder))
    return Net(parse_text(text, caffe_pb2.NetParameter, "net"), phase, context=context)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


MINE = """
    import caffe

    class Mine(caffe.Layer):
        def setup(self, bottom, top):
            pass

        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].data.shape)

        def forward(self, bottom, top):
            top[0].data[...] = 2 * bottom[0].data
    """
POISON = "raise SystemExit('this module must not be imported')"


# ---- layers of this very module, which counts as imported


class Affine(PythonLayer):
    """As users write them, with attributes named as they like."""

    def setup(self, bottom, top):
        self.param = self.device = self.dtype = self.context = None
        self.name = "overwritten"
        self.scale, self.shift = (float(v) for v in self.param_str.split(","))
        assert self.param_str_ == self.param_str
        self.blobs.add_blob(1)
        self.blobs.add_blob(*bottom[0].data.shape[1:])
        self.blobs[0].data[...] = self.scale

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.shift + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        self.blobs[1].diff[...] += top[0].diff.sum(axis=0)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data * top[0].diff


def test_a_layer_with_parameters():
    net = make_net(HERE, "Affine", param_str="2.5,-1", head="force_backward: true")
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    net.blobs["x"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs["y"].data, 2.5 * x - 1, rtol=1e-6)
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 2.5)
    assert [b.shape for b in net.params["mine"]] == [(1,), (3,)]
    assert {b.dtype for b in net.params["mine"]} == {np.dtype(np.float32)}
    np.testing.assert_allclose(net.params["mine"][0].diff, x.sum(), rtol=1e-5)
    np.testing.assert_allclose(net.params["mine"][1].diff, 2)


def test_the_gradient_check_works_on_users_layers():
    check_gradients(
        f'type: "Python" python_param {{ module: "{HERE}" layer: "Affine" param_str: "2,1" }}',
        [np.ones((2, 3))],
    )


class Facts(PythonLayer):
    """Notes what a layer is told."""

    def setup(self, bottom, top):
        self.seen = {
            "phase": self.phase, "str": str(self.phase), "type": self.type,
            "num": bottom[0].num, "channels": bottom[0].channels, "height": bottom[0].height,
            "count": bottom[0].count, "shape": list(bottom[0].shape), "tops": len(top),
        }  # fmt: skip
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.seen["data"] = bottom[0].data.shape, bottom[0].data.dtype, bottom[0].diff.shape


@pytest.mark.parametrize("phase", Phase)
def test_what_a_layer_is_told(phase):
    net = make_net(HERE, "Facts", phase=int(phase))
    net.forward()
    seen = net.nodes[1].layer.seen
    assert seen["phase"] == int(phase) and seen["str"] == phase.name
    assert (seen["num"], seen["channels"], seen["height"], seen["count"]) == (2, 3, 1, 6)
    assert seen["shape"] == [2, 3] and seen["tops"] == 1 and seen["type"] == "Python"
    assert seen["data"] == ((2, 3), np.float32, (2, 3))
    assert (net.phase, str(net.phase)) == (phase, phase.name)


def test_the_phase_of_the_layer_wins_over_that_of_the_net():
    net = make_net(HERE, "Facts", phase=Phase.TEST, more="phase: TRAIN")
    assert net.nodes[1].layer.seen["str"] == "TRAIN"


class Growing(PythonLayer):
    """Has no setup and no reshape: the size of its top is known in forward only."""

    def forward(self, bottom, top):
        rows = int(bottom[0].data[0, 0])
        top[0].reshape(rows, np.int64(3))
        top[0].data[...] = np.arange(rows * 3).reshape(rows, 3)


def test_a_top_reshaped_in_forward_reaches_later_layers():
    net = parse_text(
        f"""
        layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "g" type: "Python" bottom: "x" top: "y"
                 python_param {{ module: "{HERE}" layer: "Growing" }} }}
        layer {{ name: "r" type: "ReLU" bottom: "y" top: "z" }}
        """,
        caffe_pb2.NetParameter,
        "net",
    )
    net = Net(net, 1)
    for rows in (4, 2, 7):
        net.blobs["x"].data[...] = rows
        net.forward()
        assert (net.blobs["z"].data == np.arange(rows * 3).reshape(rows, 3)).all()


class Shapeless(PythonLayer):
    """Gives its top a shape neither in reshape nor in forward."""

    def forward(self, bottom, top):
        top[0].data[...] = 1


class Empty(PythonLayer):
    def forward(self, bottom, top):
        top[0].reshape(0)


def test_a_top_without_a_shape_is_an_error_where_it_is_used(caplog):
    message = r"'mine' \(Python\): .*a shape for top 0.*Call top\[0\]\.reshape"
    use = 'layer { name: "use" type: "ReLU" bottom: "y" top: "z" }'
    net = make_net(HERE, "Shapeless", tail=use)
    with pytest.raises(LayerError, match=message):
        net.forward()
    net = make_net(HERE, "Shapeless")
    net.forward()
    net.forward()
    assert len(caplog.records) == 1 and re.search(message, caplog.text)
    net = make_net(HERE, "Empty", tail=use)
    net.forward()
    assert net.blobs["z"].data.shape == (0,)


class NoForward(PythonLayer):
    pass


class NoBackward(PythonLayer):
    def forward(self, bottom, top):
        pass


class OldInit(PythonLayer):
    """Overrides __init__ with the one argument that Caffe gives."""

    def __init__(self, layer_param):
        super().__init__(layer_param)
        self.ready = True

    def setup(self, bottom, top):
        self.blobs.add_blob(2)


class ForgetfulInit(PythonLayer):
    def __init__(self, layer_param):
        pass


class FailingInit(PythonLayer):
    def __init__(self, layer_param):
        raise KeyError("rate")


class NotALayer:
    pass


def test_a_layer_without_forward():
    with pytest.raises(LayerError, match=r"layer 'mine' \(Python\): expected a method forward"):
        make_net(HERE, "NoForward").forward()


def test_a_layer_without_backward_is_missed_only_if_a_gradient_is_asked_for():
    net = make_net(HERE, "NoBackward")
    net.forward()
    net.backward()
    net = make_net(HERE, "NoBackward", head="force_backward: true")
    net.forward()
    with pytest.raises(LayerError, match=r"layer 'mine' .*a method backward.*propagate_down"):
        net.backward()


def test_constructors_of_users():
    net = make_net(HERE, "OldInit")
    assert net.nodes[1].layer.ready and net.params["mine"][0].shape == (2,)
    with pytest.raises(LayerError, match=r"layer 'mine' .*super\(\).__init__"):
        make_net(HERE, "ForgetfulInit")
    with pytest.raises(KeyError) as caught:
        make_net(HERE, "FailingInit")
    assert any("layer 'mine'" in note for note in caught.value.__notes__)


class Failing(PythonLayer):
    verb = "setup"

    def __getattribute__(self, name):
        if name == "verb" or name != type(self).verb:
            return super().__getattribute__(name)
        return lambda *args: 1 / 0


@pytest.mark.parametrize("verb", ["setup", "reshape", "forward", "backward"])
def test_errors_in_users_code_name_the_layer(verb, monkeypatch):
    monkeypatch.setattr(Failing, "verb", verb)
    monkeypatch.setattr(Failing, "forward", lambda *args: None)
    with pytest.raises(ZeroDivisionError) as caught:
        net = make_net(HERE, "Failing", head="force_backward: true")
        net.forward()
        net.backward()
    assert caught.value.__notes__ == [f"in {verb} of layer 'mine' (Python)"]


class BadShape(PythonLayer):
    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].num / 4, 1)


def test_errors_of_the_engine_in_users_code_name_the_layer():
    with pytest.raises(LayerError, match=r"layer 'mine' \(Python\): blob: .*integers.*0.5.*//"):
        make_net(HERE, "BadShape")


# ---- which modules are imported


@pytest.mark.parametrize("module, layer", [("", "Mine"), (HERE, ""), (HERE, "Nothing")])
def test_names_that_lead_nowhere(module, layer):
    with pytest.raises(LayerError, match=r"layer 'mine' \(Python\)"):
        make_net(module, layer)


@pytest.mark.parametrize("layer", ["NotALayer", "HERE", "np"])
def test_something_that_is_no_layer_class(layer):
    with pytest.raises(LayerError, match="a subclass of caffe"):
        make_net(HERE, layer)


def test_a_forbidden_module_is_not_imported_and_the_error_says_how_to_allow_it(
    tmp_path, monkeypatch
):
    write(tmp_path, "demitasse_forbidden.py", POISON)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LayerError) as caught:
        make_net("demitasse_forbidden", "Mine", folder=tmp_path)
    message = str(caught.value)
    assert "layer 'mine' (Python)" in message
    assert "caffe.allow_python_layers('demitasse_forbidden')" in message
    assert "--allow-python-layer demitasse_forbidden" in message
    assert "CAFFE_ALLOW_PYTHON_LAYERS=demitasse_forbidden" in message


@pytest.mark.parametrize(
    "module",
    [
        "poison.sub",
        "poison",
        "good.poison",  # inside a package that is imported but not allowed
        "good_poison",  # the name of an allowed module is only its beginning
        "allowed.poison/../../poison",
        "allowed/../poison",
        "./poison",
        ".poison",
        "allowed..poison",
        "allowed.",
        "poison\\0",
        "allowed poison",
        "__init__",
    ],
)
def test_tricks_with_names_import_nothing(module, tmp_path, monkeypatch):
    write(tmp_path, "poison/__init__.py", POISON)
    write(tmp_path, "poison/sub.py", POISON)
    write(tmp_path, "__init__.py", POISON)
    write(tmp_path, "good/__init__.py", "")
    write(tmp_path, "good/poison.py", POISON)
    write(tmp_path, "good_poison.py", POISON)
    write(tmp_path, "allowed/__init__.py", POISON)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    __import__("good")
    # Only a whole name or its parent package allows: not `allowed` itself by its submodule.
    allow_python_layers("goo", "allowed.submodule")
    with pytest.raises(LayerError):
        make_net(module, "Mine", folder=tmp_path)


@pytest.mark.parametrize("names", ["pkg_one", "other,pkg_one", "other: pkg_one.layers :"])
def test_the_environment_variable_allows(names, tmp_path, monkeypatch):
    write(tmp_path, "pkg_one/__init__.py", "")
    write(tmp_path, "pkg_one/layers.py", MINE)
    monkeypatch.setenv("CAFFE_ALLOW_PYTHON_LAYERS", names)
    net = make_net("pkg_one.layers", "Mine", folder=tmp_path)
    net.blobs["x"].data[...] = 3
    net.forward()
    assert (net.blobs["y"].data == 6).all()


def test_a_module_beside_the_prototxt_and_its_helpers(tmp_path):
    write(tmp_path, "mine_beside.py", "import helper_beside\n" + textwrap.dedent(MINE))
    write(tmp_path, "helper_beside.py", "")
    allow_python_layers("mine_beside")
    make_net("mine_beside", "Mine", folder=tmp_path).forward()


def test_the_folder_does_not_shadow_what_is_on_the_path(tmp_path, monkeypatch):
    write(tmp_path, "installed/mine_twice.py", MINE)
    write(tmp_path, "downloaded/mine_twice.py", POISON)
    write(tmp_path, "downloaded/json.py", POISON)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    allow_python_layers("mine_twice")
    make_net("mine_twice", "Mine", folder=tmp_path / "downloaded").forward()


def test_a_module_that_the_program_has_imported_is_allowed(tmp_path, monkeypatch):
    write(tmp_path, "mine_imported.py", MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("mine_imported")
    make_net("mine_imported", "Mine").forward()


def test_an_allowed_module_that_is_not_there(tmp_path):
    allow_python_layers("mine_missing")
    with pytest.raises(LayerError, match=r"'mine' .*mine_missing.*beside the prototxt"):
        make_net("mine_missing", "Mine", folder=tmp_path)


@pytest.mark.parametrize(
    "text, error", [("import nothing_of_the_kind", LayerError), ("1 / 0", ZeroDivisionError)]
)
def test_an_allowed_module_that_fails(text, error, tmp_path):
    write(tmp_path, "mine_failing.py", text)
    allow_python_layers("mine_failing")
    with pytest.raises(error) as caught:
        make_net("mine_failing", "Mine", folder=tmp_path)
    said = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("layer 'mine' (Python)" in line for line in said)


# ---- names that are ours


@pytest.fixture
def alias(monkeypatch):
    monkeypatch.setitem(python.module_aliases, "elsewhere.affine_layer", HERE)


def test_an_alias_needs_no_permission(alias):
    make_net("elsewhere.affine_layer", "Affine", param_str="1,0").forward()


@pytest.mark.parametrize("how", ["imported", "allowed", "environment"])
def test_the_users_own_module_counts_before_an_alias(alias, how, tmp_path, monkeypatch):
    write(tmp_path, "elsewhere/__init__.py", "")
    write(tmp_path, "elsewhere/affine_layer.py", MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    if how == "imported":
        __import__("elsewhere.affine_layer")
    elif how == "allowed":
        allow_python_layers("elsewhere")
    else:
        monkeypatch.setenv("CAFFE_ALLOW_PYTHON_LAYERS", "elsewhere")
    net = make_net("elsewhere.affine_layer", "Mine")
    net.blobs["x"].data[...] = 1
    net.forward()
    assert (net.blobs["y"].data == 2).all()
