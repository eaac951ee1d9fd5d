"""`python_param { param_str }` of the detector's layers: a YAML mapping of a few known keys."""

import reprlib

from ..engine.errors import LayerError, closest

_LARGEST = 1e9
_short = reprlib.Repr()
_short.maxlevel = 2  # few characters hold long lists of long lists, by YAML's references


def parse_param_str(text, where, known):
    """The values of a `param_str` by key; of lists, tuples of floats.

    Nothing but plain values is made of the text, whatever tags it has; py-faster-rcnn's
    `!!python/tuple` is a list.

    Args:
        text: YAML, or "" for no keys. where: how errors name the layer.
        known: the keys that the layer has, of those in `_FORMS`.

    Raises:
        LayerError: the text is not YAML, or a key or a value is not one that the layer has.
    """
    values = _load(text, where)
    if not isinstance(values, dict):
        raise LayerError(where, "param_str of the form \"'feat_stride': 16\"", _shown(values))
    for key, value in values.items():
        if key not in known:
            hint = closest(key, known) if isinstance(key, str) else ""
            names = ", ".join(sorted(known))
            raise LayerError(where, f"param_str with keys of {names}", _shown(key), hint)
        fits, form = _FORMS[key]
        if not fits(value):
            raise LayerError(where, f"{key} in param_str to be {form}", _shown(value))
    return {k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in values.items()}


def _load(text, where):
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", Loader.construct_yaml_seq)
    try:
        values = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as e:
        raise LayerError(where, "param_str in YAML", " ".join(str(e).split())) from e
    return {} if values is None else values


def _shown(value):
    try:
        return _short.repr(value)
    except ValueError:  # from Python's limit on digits
        return "an integer of thousands of digits"


def _is_number(value):
    # Comparisons, unlike conversions, also take integers beyond all floats.
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def _is_positive(value):
    return _is_number(value) and value > 0


def _is_whole(value):
    return type(value) is int and _is_number(value)


def _are_positive(value):
    return isinstance(value, list) and bool(value) and all(map(_is_positive, value))


_FORMS = {
    "feat_stride": (_is_positive, "a number above 0"),
    "scales": (_are_positive, "a list of numbers above 0"),
    "ratios": (_are_positive, "a list of numbers above 0"),
    "allowed_border": (_is_number, "a number"),
    "num_classes": (lambda v: _is_whole(v) and v > 1, "a whole number above 1"),
    "RPN_NMS_THRESH": (_is_number, "a number"),
    "RPN_PRE_NMS_TOP_N": (_is_whole, "a whole number"),
    "RPN_POST_NMS_TOP_N": (_is_whole, "a whole number"),
    "RPN_MIN_SIZE": (_is_number, "a number"),
}
