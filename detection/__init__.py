"""The R-CNN family: data sets, training, testing and evaluation of detectors.

For example: `from demitasse.detection import Detector`, and then
`Detector("output/.../vgg16_faster_rcnn_final.prototxt").detect("photo.jpg")`.
"""

__all__ = ["Detection", "Detector"]


def __getattr__(name):
    # Imported when asked for: the package's other modules need neither nets nor layers.
    if name in __all__:
        from . import detector

        return getattr(detector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
