"""Files: opening with clear errors, saying what a foreign file is, writing all or nothing."""

import contextlib
import os
from pathlib import Path

from .errors import ModelFileError

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a ZIP archive (a PyTorch or .npz file, perhaps)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<!DOCTYPE html", "a web page (a failed download, perhaps)"),
    (b"<!doctype html", "a web page (a failed download, perhaps)"),
    (b"<html", "a web page (a failed download, perhaps)"),
)


def foreign_kind(head: bytes) -> str | None:
    """Names the file format that begins with `head`, or None if it is none that we know."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def looks_like_text(head: bytes) -> bool:
    """True if `head` has no control characters but white space."""
    return bool(head) and not any(byte < 32 and byte not in b"\t\n\r\f\v" for byte in head)


def find_beside(name, folders, is_there=os.path.exists):
    """The path of what a file names, relative to the working directory or beside that file.

    It is looked for from the working directory, then from each of `folders` and its parents, the
    nearest first. `is_there` says of a path whether it is what is looked for.

    Returns: `name` itself if it is there from the working directory; else an absolute path, or
        None if it is nowhere.
    """
    try:
        if not name or is_there(name):
            return os.fspath(name) or None
        for folder in folders:
            home = Path(folder).resolve()
            for place in (home, *home.parents):
                if is_there(place / name):
                    return str(place / name)
    except (OSError, ValueError):  # too long for a name, or with a null character in it
        pass
    return None


def open_file(path, what: str):
    """Opens `path` for reading bytes; `what` names the kind of file for the error.

    Raises:
        ModelFileError: it is missing, a folder, or may not be read.
    """
    try:
        file = open(os.fspath(path), "rb")  # noqa: SIM115 (the caller closes it)
    except FileNotFoundError:
        folder = os.path.dirname(os.path.abspath(path))
        found = "no such file" if os.path.isdir(folder) else f"no folder {folder}"
        raise ModelFileError(path, what, found, "Check the path.") from None
    except IsADirectoryError:
        raise ModelFileError(path, what, "a folder", "Name the file in it.") from None
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(repr(path), what, f"that it cannot be opened ({reason})") from None
    return file


def read_limited(path, what: str, limit: int) -> bytes:
    """Returns the bytes of a file of at most `limit` bytes, and takes no more memory than that."""
    with open_file(path, what) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise ModelFileError(path, what, f"that it cannot be read ({error.strerror})") from None
    if len(data) > limit:
        raise ModelFileError(
            path, f"{what} of at most {limit // 2**20} MB", "a larger file", "Check the path."
        )
    return data


@contextlib.contextmanager
def atomic_write(path):
    """A context that gives a file to write, which takes the name `path` only when all is written.

    The bytes go to a temporary name in the same folder, are flushed to the disk, and are then
    renamed, so that a reader, or a restart after a power cut, finds the old file or the new one
    and never a part of it. An exception inside the context removes the temporary file.

    Raises:
        ModelFileError: the file cannot be written (no such folder, no permission, disk full).
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ModelFileError(
            path, "a file to write", "a folder or a device", "Choose another name."
        )
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(
            path,
            "to write this file",
            error.strerror or str(error),
            "Check the folder and the disk.",
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` last through a power cut, where the system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse; the rename itself has been done.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
