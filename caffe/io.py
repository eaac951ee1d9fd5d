"""Images and arrays in and out of Caffe's messages (pycaffe: io.py).

Images are float32 arrays (H, W, K), RGB, in [0, 1]; Caffe's models take BGR in [0, 255]: see
`Transformer`. Where pycaffe used scikit-image, this uses OpenCV to read and SciPy to resize.
"""

import math

import numpy as np

from demitasse.engine.errors import DataError
from demitasse.layers.data_transform import datum_pixels, decode_image, image_pixels, read_image

from .proto import caffe_pb2
from .transformer import Transformer

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovecor_str",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]

# Luminance of linear RGB (ITU-R BT.709), as scikit-image computes it.
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])


# ---- messages and arrays -------------------------------------------------------------------


def blobproto_to_array(blob, return_diff=False):
    """The data (or diff) of a BlobProto, a float64 array of the shape the message states."""
    data, doubles = (blob.diff, blob.double_diff) if return_diff else (blob.data, blob.double_data)
    values = doubles if len(doubles) else data
    if any(map(blob.HasField, ("num", "channels", "height", "width"))):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    else:
        shape = tuple(blob.shape.dim)
    kind = "diff" if return_diff else "data"
    return _shaped(np.fromiter(values, np.float64, len(values)), shape, f"BlobProto {kind}")


def array_to_blobproto(arr, diff=None):
    """A BlobProto of an array and, if given, its diff, which must have the same shape."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(arr.ravel().tolist())
    if diff is not None:
        if diff.shape != arr.shape:
            raise DataError("array_to_blobproto", f"a diff of shape {arr.shape}", diff.shape)
        blob.diff.extend(diff.ravel().tolist())
    return blob


def arraylist_to_blobprotovector_str(arraylist):
    """A list of arrays as the bytes of a BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector()
    vector.blobs.extend(array_to_blobproto(arr) for arr in arraylist)
    return vector.SerializeToString()


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str  # as pycaffe spells it


def blobprotovector_str_to_arraylist(str):
    """The arrays in the bytes of a BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector.FromString(str)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr, label=None):
    """A Datum of an array (K, H, W): bytes for uint8, floats for any other dtype."""
    if arr.ndim != 3:
        raise DataError("array_to_datum", "an array (channels, height, width)", arr.shape)
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2])
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.ravel().tolist())
    if label is not None:
        datum.label = int(label)
    return datum


def datum_to_array(datum, where="Datum"):
    """The array (K, H, W) of a Datum, uint8 or float64. The label stays in `datum.label`.

    NOTE: pycaffe fails on an encoded datum; here it is decoded, as Caffe's data layers do:
    BGR, or one channel if the image is grey.
    """
    if datum.encoded:
        return image_pixels(decode_image(datum.data, None, where), where).copy()
    pixels = datum_pixels(datum, where)
    return pixels.copy() if datum.data else pixels.astype(np.float64)


def _shaped(values, shape, where):
    """`values` in `shape`, which comes from a file and may be anything."""
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        raise DataError(where, f"values for shape {tuple(shape)}", f"{values.size} values")
    return values.reshape(shape)


# ---- images --------------------------------------------------------------------------------


def load_image(filename, color=True):
    """Read an image file.

    Returns: float32 in [0, 1], (H, W, 3) RGB; or, if not `color`, (H, W, 1) luminance. An alpha
    channel is dropped; 16-bit images are scaled by 65535.
    Raises: DataError naming the file if it is missing or holds no image.
    """
    image = read_image(filename, None, "load_image")
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.iinfo(image.dtype).max
    image = np.atleast_3d(image)
    if image.shape[2] >= 3:
        image = image[:, :, 2::-1]  # BGR or BGRA -> RGB
        if not color:
            image = (image @ _LUMINANCE)[:, :, np.newaxis]
    elif color:
        image = np.repeat(image[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(image, np.float32)


def resize_image(im, new_dims, interp_order=1):
    """Resize an image by spline interpolation.

    Args: `im`, (H, W, K); `new_dims`, (height, width); `interp_order`, 0 (nearest) to 5, with
    1 (linear) the default.
    Returns: float32 (height, width, K).

    The results are those of pycaffe with the scikit-image of its time: with 1 or 3 channels,
    pixels are areas (their centres at i + 0.5), nothing is smoothed before shrinking, and beyond
    the border lies the image's least value, which darkens the rim of an enlarged image. With any
    other number of channels corner pixels map to corner pixels. Orders above 1 are B-splines
    (scikit-image at that time: other polynomials, so they agree only roughly).
    """
    from scipy.ndimage import zoom

    dims = tuple(int(d) for d in new_dims)
    if im.ndim != 3 or 0 in im.shape:
        raise DataError("resize_image", "an image (height, width, channels)", im.shape)
    if len(dims) != 2 or min(dims) < 1:
        raise DataError("resize_image", "new dimensions (height, width) of at least 1", dims)
    if not np.issubdtype(im.dtype, np.floating):
        im = im.astype(np.float64)
    scale = (dims[0] / im.shape[0], dims[1] / im.shape[1], 1)
    if im.shape[2] not in (1, 3):
        return zoom(im, scale, order=interp_order).astype(np.float32)
    low, high = im.min(), im.max()
    resized = zoom(im, scale, order=interp_order, mode="grid-constant", cval=low, grid_mode=True)
    return np.clip(resized, low, high).astype(np.float32)


def oversample(images, crop_dims):
    """Crop the four corners and the centre out of each image, and mirror them.

    Args: `images`, a sequence of N images (H, W, K) of one size; `crop_dims`, (height, width).
    Returns: float32 (10 * N, height, width, K): for each image top left, top right, bottom
    left, bottom right, centre, then the five mirrored.
    """
    height, width = (int(d) for d in crop_dims)
    shape = images[0].shape
    if len(shape) != 3 or any(im.shape != shape for im in images):
        found = ", ".join(sorted({str(im.shape) for im in images}))
        raise DataError("oversample", "images (height, width, channels) of one shape", found)
    if not (0 < height <= shape[0] and 0 < width <= shape[1]):
        raise DataError("oversample", f"crops within {shape[:2]}", (height, width))
    bottom, right = shape[0] - height, shape[1] - width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = np.empty((len(images), 2, 5, height, width, shape[2]), np.float32)
    for index, im in enumerate(images):
        for place, (y, x) in enumerate(corners):
            crops[index, 0, place] = im[y : y + height, x : x + width]
    crops[:, 1] = crops[:, 0, :, :, ::-1]
    return crops.reshape(-1, height, width, shape[2])  # (N, 2, 5, h, w, K) -> (10 * N, h, w, K)
