"""The built-in layers, one type a file. Importing this package registers them all."""

import importlib
import importlib.util

BUILT_INS = ("relu", "split", "inner_product", "python")

import os as _os
for _name in sorted(f[:-3] for f in _os.listdir(_os.path.dirname(__file__)) if f.endswith(".py") and f != "__init__.py"):
    importlib.import_module(f".{_name}", __package__)
