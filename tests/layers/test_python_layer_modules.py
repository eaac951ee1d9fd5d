"""Which modules are imported for layers written in Python, and from where."""

import textwrap

import pytest
from python_nets import AFFINE, MINE, make_net, write

from demitasse.engine.errors import LayerError
from demitasse.layers import python
from demitasse.layers.python import allow_python_layers

pytestmark = pytest.mark.usefixtures("no_python_layers_allowed")
HERE = __name__
POISON = "raise SystemExit('this module must not be imported')"


class NotALayer:
    pass


# ---- names and permissions


@pytest.mark.parametrize("module, layer", [("", "Mine"), (HERE, ""), (HERE, "Nothing")])
def test_names_that_lead_nowhere(module, layer):
    with pytest.raises(LayerError, match=r"layer 'mine' \(Python\)"):
        make_net(module, layer)


@pytest.mark.parametrize("layer", ["NotALayer", "HERE", "pytest"])
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
    monkeypatch.setitem(python.module_aliases, "elsewhere.affine_layer", AFFINE[0])


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
