"""Carrying weights between nets and files: by layer name, with a report of what fitted."""

import logging
from dataclasses import dataclass, field

from . import caffemodel, hdf5
from .errors import NetError
from .files import foreign_kind

log = logging.getLogger("demitasse.net")


@dataclass
class CopyReport:
    """What `copy_from` did.

    Attributes:
        copied: names of the layers whose weights were copied.
        skipped: layers with weights in the source that the net does not have.
        missing: layers with weights in the net that were not copied.
        misfits: layers that are in both with other shapes (of `copy_fitting` alone).
    """

    copied: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    misfits: list = field(default_factory=list)


def copy_from(net, path):
    """Copy weights by layer name from a .caffemodel file, or from one that is or claims to be HDF5.

    Returns: a `CopyReport`.
    Raises: ModelFileError for a broken file; NetError where a layer's shapes differ, with both
        shapes. Layers before it have been copied by then.
    """
    return _copy(net, path, _read_layers(path), owners_only=_holds_hdf5(path))


def copy_fitting(net, path, wanted=None):
    """As `copy_from`, but layers of other shapes are left as they are and listed as `misfits`.

    Args: wanted: a function f(layer name) that says which layers are to be copied; None for all.
    """
    shapes = {node.name: [b.shape for b in node.layer.blobs] for node in reversed(net.nodes)}
    misfits = []

    def fitting():
        for name, blobs in _read_layers(path):
            if wanted is not None and not wanted(name):
                continue
            if name not in shapes or _fits(blobs, shapes[name]):
                yield name, blobs
            else:
                misfits.append(name)

    report = _copy(net, path, fitting(), owners_only=_holds_hdf5(path))
    report.misfits = misfits
    return report


def _fits(blobs, shapes):
    """Whether blobs of a file have the shapes of a layer's (some may be missing in a dict)."""
    if isinstance(blobs, list) and len(blobs) != len(shapes):
        return False
    return all(k < len(shapes) and _same_shape(b.shape, shapes[k]) for k, b in _pairs(blobs))


def _read_layers(path):
    """(layer name, blobs) of a weights file of either format."""
    if _holds_hdf5(path):
        return hdf5.read_weights_h5(path)
    return ((name, blobs) for name, _, blobs in caffemodel.read_weights(path))


def _holds_hdf5(path):
    return path.endswith(".h5") or is_hdf5(path)


def copy_from_hdf5(net, path):
    """As `copy_from`, from an HDF5 file of any name."""
    return _copy(net, path, hdf5.read_weights_h5(path), owners_only=True)


def is_hdf5(path):
    """Whether there is a file at `path` that begins as HDF5 files do."""
    try:
        with open(path, "rb") as file:
            return foreign_kind(file.read(32)) == "an HDF5 file"
    except (OSError, ValueError):
        return False  # reading it will say why


def _copy(net, path, layers, owners_only=False):
    report = CopyReport()
    nodes = {}
    for node in net.nodes:
        nodes.setdefault(node.name, node)  # Caffe fills the first layer of a name
    for name, blobs in layers:
        if name not in nodes:
            if blobs:
                report.skipped.append(name)
            continue
        targets = nodes[name].layer.blobs
        if len(blobs) != len(targets) and not owners_only:
            raise NetError(
                f"{path}, layer {name!r}", f"{len(targets)} parameter blob(s), as in the net",
                f"{len(blobs)}", "Rename the layer in the prototxt if it should not be loaded.",
            )  # fmt: skip
        if owners_only:
            _check_owned(net, path, nodes[name], blobs)
        for k, source in _pairs(blobs):
            _copy_blob(path, name, k, source, targets)
        if blobs:
            report.copied.append(name)
    copied = set(report.copied)
    report.missing = [name for name in net.params if name not in copied]
    for kind, names in (("not in the net", report.skipped), ("not in the file", report.missing)):
        if names:
            # A file that fits nowhere is hardly what was meant.
            level = logging.INFO if report.copied else logging.WARNING
            log.log(level, "%s: weights %s: %s", path, kind, ", ".join(names))
    return report


def _check_owned(net, path, node, blobs):
    """Raise unless all parameters that a layer owns are among `blobs` (shared ones need not be)."""
    for p in net.learnable:
        if net.nodes[p.layer] is node and p.index not in blobs:
            raise NetError(
                f"{path}, layer {node.name!r}", f"parameter {p.index} of shape {p.blob.shape}",
                f"only {sorted(blobs)}",
                "Rename the layer in the prototxt if it should not be loaded.",
            )  # fmt: skip


def _pairs(blobs):
    """(index, blob) of a list, or of a dict of those that are in the file."""
    return blobs.items() if isinstance(blobs, dict) else enumerate(blobs)


def _copy_blob(path, name, k, source, targets):
    if k >= len(targets):
        raise NetError(f"{path}, layer {name!r}", f"{len(targets)} parameter blob(s)", f"blob {k}")
    target = targets[k]
    if not _same_shape(source.shape, target.shape):
        raise NetError(
            f"{path}, layer {name!r}, parameter {k}", f"the net's shape {target.shape}",
            f"shape {tuple(source.shape)} in the file",
            "To learn this layer anew, give it another name in the prototxt; to load it, "
            "correct its num_output or its input.",
        )  # fmt: skip
    target.set_data(source.data)


def _same_shape(source, target):
    """Equal shapes, also when one of them is padded to four axes with leading ones (legacy)."""
    if tuple(source) == tuple(target):
        return True
    if len(source) == 4 and len(target) < 4:
        return tuple(source) == (1,) * (4 - len(target)) + tuple(target)
    return False


def share_with(net, other):
    """Have `net`'s layers use the memory of `other`'s parameters where names agree."""
    sources = {}
    for node in other.nodes:
        sources.setdefault(node.name, node)
    for node in net.nodes:
        if node.name not in sources:
            continue
        mine, theirs = node.layer.blobs, sources[node.name].layer.blobs
        shapes = [b.shape for b in mine], [b.shape for b in theirs]
        if shapes[0] != shapes[1]:
            raise NetError(
                f"sharing weights of layer {node.name!r}", f"equal shapes, here {shapes[0]}",
                f"{shapes[1]}",
            )  # fmt: skip
        for blob, source in zip(mine, theirs):
            blob.share_data(source)


def save(net, path, write_diff=False):
    """Write the net with its weights to a .caffemodel file, complete or not at all."""
    blobs = [node.layer.blobs for node in net.nodes]
    data = [[b.host_data for b in layer] for layer in blobs]
    diffs = [[b.host_diff for b in layer] for layer in blobs] if write_diff else None
    caffemodel.write_weights(path, net.to_proto(), data, diffs)


def save_hdf5(net, path, write_diff=False):
    """Write the weights to an HDF5 file; of shared parameters the owner's only, as Caffe does."""
    layers, diffs = [], []
    owners = {(p.layer, p.index): p for p in net.learnable}
    for i, node in enumerate(net.nodes):
        own = {k: b for k, b in enumerate(node.layer.blobs) if (i, k) in owners}
        layers.append((node.name, {k: b.host_data for k, b in own.items()}))
        diffs.append((node.name, {k: b.host_diff for k, b in own.items()} if write_diff else {}))
    hdf5.write_weights_h5(path, layers, diffs if write_diff else None)
