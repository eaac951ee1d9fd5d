"""HDF5Output: writes two blobs to an HDF5 file."""

import os

from ..engine.layer import Layer, register


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes its bottoms to the datasets `data` and `label` (Caffe: HDF5OutputLayer).

    Bottoms: (N, ...) and (N, ...), of at most four dimensions; written with four. The file is
    complete after every forward pass and holds the last one.
    """

    num_bottom = 2
    num_top = 0

    def setup(self, bottom, top):
        self.path = self.param.hdf5_output_param.file_name
        self._write({})

    def reshape(self, bottom, top):
        for blob in bottom:
            if blob.num_axes > 4:
                raise self.error("bottoms of at most 4 dimensions", f"shape {blob.shape}")
        if bottom[0].num != bottom[1].num:
            raise self.error(
                "two bottoms with the same number of rows",
                f"shapes {bottom[0].shape} and {bottom[1].shape}",
            )

    def forward(self, bottom, top):
        # NOTE: Caffe keeps the file open, and a second pass ends in an error of the HDF5 library;
        # here every pass replaces the file.
        shapes = [blob.shape + (1,) * (4 - blob.num_axes) for blob in bottom]
        arrays = [blob.host_data.reshape(shape) for blob, shape in zip(bottom, shapes)]
        self._write(dict(zip(("data", "label"), arrays)))

    def backward(self, top, propagate_down, bottom):
        for blob, wanted in zip(bottom, propagate_down):
            if wanted:
                blob.grad[...] = 0

    def _write(self, datasets):
        import h5py

        try:
            with h5py.File(self.path, "w") as f:
                for name, values in datasets.items():
                    f.create_dataset(name, data=values)
        except OSError as e:
            raise self.error(
                f"a file_name that can be written, relative to {os.getcwd()!r}",
                f"{self.path!r}: {e}",
            ) from None
