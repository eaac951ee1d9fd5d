"""The learnable parameters of a net: who owns which, who shares, and how fast each learns."""

from dataclasses import dataclass

from .blob import Blob
from .errors import LayerError
from .graph import layer_where
from .proto import caffe_pb2

_DEFAULT_SPEC = caffe_pb2.ParamSpec()


@dataclass
class Parameter:
    """One parameter blob of one layer.

    Attributes:
        blob: the Blob; one that shares uses its owner's memory.
        layer: index of the layer in the net.
        index: index of the blob in the layer.
        name: the name it is shared under; "" if it is not.
        owner: the Parameter whose memory this one uses, or None if it owns its own.
        lr_mult, decay_mult: multipliers of the solver's rates (an owner's count).
    """

    blob: Blob
    layer: int
    index: int
    name: str
    owner: "Parameter | None"
    lr_mult: float
    decay_mult: float

    @property
    def display_name(self):
        """What log lines call it: its name or its index."""
        return self.name or str(self.index)


class _Sharing:
    """Collects parameters layer by layer, joining those of equal name."""

    def __init__(self):
        self.parameters = []
        self._owners = {}  # name -> Parameter
        self._set = {}  # (id of owner, field) -> whether the prototxt gave it

    def add_layer(self, layer_index, param, blobs):
        if len(param.param) > len(blobs):
            raise LayerError(
                layer_where(param), f"at most {len(blobs)} param {{ }} entries, one a parameter",
                f"{len(param.param)}",
            )  # fmt: skip
        for k, blob in enumerate(blobs):
            spec = param.param[k] if k < len(param.param) else _DEFAULT_SPEC
            owner = self._owners.get(spec.name) if spec.name else None
            p = Parameter(
                blob, layer_index, k, spec.name, owner, spec.lr_mult, spec.decay_mult
            )  # fmt: skip
            self.parameters.append(p)
            if owner is None:
                if spec.name:
                    self._owners[spec.name] = p
                for field in ("lr_mult", "decay_mult"):
                    self._set[id(p), field] = spec.HasField(field)
            else:
                _check_shapes(param, k, spec, blob, owner.blob)
                for field in ("lr_mult", "decay_mult"):
                    self._merge(param, spec, owner, field)
                blob.share_data(owner.blob)
                blob.share_diff(owner.blob)

    def _merge(self, param, spec, owner, field):
        if not spec.HasField(field):
            return
        value = getattr(spec, field)
        if self._set[id(owner), field] and getattr(owner, field) != value:
            raise LayerError(
                layer_where(param), f"the {field} {getattr(owner, field):g} that shared parameter "
                f"{spec.name!r} has already", f"{value:g}", "Give it once.",
            )  # fmt: skip
        self._set[id(owner), field] = True
        setattr(owner, field, value)


def _check_shapes(param, k, spec, blob, owner):
    permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
    fits = blob.count == owner.count if permissive else blob.shape == owner.shape
    if not fits:
        raise LayerError(
            layer_where(param),
            f"{'as many elements as' if permissive else 'the shape'} {owner.shape} of shared "
            f"parameter {spec.name!r}", f"shape {blob.shape} for parameter {k}",
            "" if permissive else "share_mode: PERMISSIVE compares only the number of elements.",
        )  # fmt: skip


def collect_parameters(params, layers):
    """All parameters of the net in layer order, sharing memory by name.

    Args:
        params: the layers' LayerParameters.
        layers: the layer objects, with their blobs.
    """
    sharing = _Sharing()
    for i, (param, layer) in enumerate(zip(params, layers)):
        sharing.add_layer(i, param, layer.blobs)
    return sharing.parameters
