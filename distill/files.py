"""Files that are either whole or absent, and folders that one process at a time writes to."""

import os
import re
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

LOCK = ".lock"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp", re.DOTALL)


def cache_folder() -> Path:
    """`ATOM_NAS_CACHE`, else `atom-nas` in `XDG_CACHE_HOME`, else `~/.cache/atom-nas`."""
    own = os.environ.get("ATOM_NAS_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "atom-nas"


def open_regular(path: Path, most: int | None = None) -> BinaryIO:
    """Open a file for reading that may be a stranger's: never wait for a pipe, nor read a device.

    Args:
        most: the most bytes that it may have; None: any number.
    Raises:
        ValueError: it is no regular file, or larger.
        OSError: there is none, or it cannot be read.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        state = os.fstat(number)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError(f"{path} is not a regular file")
        if most is not None and state.st_size > most:
            raise ValueError(f"{path} has {state.st_size:,} bytes, more than the {most:,} that it may have")
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """All of a file; see `open_regular`."""
    with open_regular(path, most) as file:
        return file.read(most)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary file beside `path`, then rename it into place."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`, for bytes.

    Raises:
        OSError: the disk is full or read-only; `path` is as it was, and nothing else is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:  # made here, so that no link leads elsewhere
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a name may outlive a power cut without what it stands for
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # what the user knows of
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let names in it outlive a power cut, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def is_temporary(path: Path) -> bool:
    """Whether `path` is named as the temporary files of `write_bytes` are."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_stale_temporaries(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes left of writing `names` in `folder`; call it under the folder's lock."""
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and match["name"] in names:
            path.unlink(missing_ok=True)


def printable(text: object) -> str:
    """The text of a path for a message, with escapes for what cannot be printed: bytes that are not UTF-8."""
    return str(text).encode(errors="backslashreplace").decode()


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write where links in a folder, which may be a stranger's, would have files elsewhere changed.

    Args:
        names: of what is written to, below the folder; what is not there is fine.
    Raises:
        ValueError: one of them is a symbolic link.
    """
    for path in (folder / name for name in names):
        if path.is_symlink():
            raise ValueError(f"{path} is a link: remove it, what is written stays in the folder itself")


def lock_folder(folder: Path, what: str) -> IO[str]:
    """Hold a lock on `folder` until the returned file is closed or the process ends, however it ends.

    Args:
        folder: exists; `.lock` is made in it.
        what: who else might hold it, for the message ("search", ...).
    Raises:
        ValueError: if another process holds it, or `.lock` is a link.
    """
    refuse_links(folder, [LOCK])
    handle = (folder / LOCK).open("w")
    with suppress(ImportError):  # Windows: no lock
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.close()
            raise ValueError(
                f"another {what} is writing to {folder}: wait for it, or choose another --out"
            ) from error
        except OSError:  # a filesystem without locks
            pass
    return handle
