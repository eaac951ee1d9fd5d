"""Machine code on disk belongs to one version of all kernel files."""

from demitasse.engine.kernels.cpu import blas, sources_digest


def test_a_kernel_is_stamped_with_all_sources():
    assert blas._products._cache._cache_file._source_stamp[1] == sources_digest()


def test_an_edit_of_any_file_changes_the_stamp(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "kernel.py").write_text("from .helper import f")
        (folder / "helper.py").write_text(f"f = {name!r}")
    assert sources_digest(tmp_path / "one") != sources_digest(tmp_path / "two")
