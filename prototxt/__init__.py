"""Model definitions, one folder a network, and where to find them.

For example:

    from demitasse import prototxt

    net = caffe.Net(prototxt.path("vgg16", "classification.prototxt"), weights, caffe.TEST)
"""

from pathlib import Path

from ..engine.errors import ModelFileError, closest

FOLDER = Path(__file__).resolve().parent


def path(network, file="classification.prototxt"):
    """The path of a definition, for example `path("vgg16", "classification.prototxt")`.

    Raises: ModelFileError if there is no such network or no such file, with those there are.
    """
    folder = _choose(FOLDER, network, "a network", (p.name for p in FOLDER.iterdir() if p.is_dir()))
    files = (p.name for p in folder.glob("*.prototxt"))
    return str(_choose(folder, file, f"a definition of {network}", files))


def names():
    """The networks that there are definitions of, sorted."""
    return sorted(p.parent.name for p in FOLDER.glob("*/classification.prototxt"))


def _choose(folder, name, what, known):
    known = sorted(k for k in known if not k.startswith("_"))
    if name not in known:
        hint = closest(str(name), known)
        raise ModelFileError("prototxt.path", f"{what}: {', '.join(known)}", repr(name), hint)
    return folder / name
