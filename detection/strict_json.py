"""JSON that every reader takes: what is not a finite number is null."""

import json
import math


def dumps(value, **options):
    """JSON text of nested dictionaries and lists; `options` are those of `json.dumps`."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
