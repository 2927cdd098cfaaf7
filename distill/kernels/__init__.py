"""Hand-written CPU kernels: compiled once a machine by its C++ compiler, loaded with ctypes.

Plain C++ without torch's headers, so that compiling takes seconds and the result suits any torch version.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from distill.files import cache_folder

LANES = 16
"""Channels of a map come in multiples of this."""
_HERE = Path(__file__).parent
_SOURCES = tuple(_HERE / f"{name}.cpp" for name in ("attention", "patches", "tail", "winograd"))
_HEADERS = tuple(_HERE / f"{name}.h" for name in ("parallel", "product", "values", "vectors"))
_FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno", "-std=c++17", "-fPIC", "-pthread")
_COMPILE_SECONDS = 300

_log = logging.getLogger(__name__)
_int, _long, _float, _pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_BLOCK = [_int, _int, *[_long] * 4, *[_float] * 3, *[_pointer] * 3]
_CONVOLUTION = [_int, *[_long] * 5]
_TAIL = [*[_int] * 4, _float, *[_long] * 4]
_ARGUMENTS = {
    "attention_forward": [*_BLOCK, *[_pointer] * 5],
    "attention_backward": [*_BLOCK, *[_pointer] * 6],
    "bias_gradient": [_int, _long, _long, *[_pointer] * 2],
    "patches_backward": [*_CONVOLUTION, _long, *[_pointer] * 3],
    "patches_forward": [*_CONVOLUTION, *[_pointer] * 3],
    "patches_gradient": [*[_long] * 5, *[_pointer] * 3],
    "own_backward": [*_TAIL, _pointer, _long, *[_pointer] * 9],
    "own_forward": [*_TAIL, _pointer, _long, _float, *[_pointer] * 6],
    "tail_backward": [*_TAIL, _int, *[_pointer] * 11],
    "tail_forward": [*_TAIL, *[_pointer] * 4],
    "tail_statistics": [_int, _int, *[_long] * 3, *[_pointer] * 3],
    "winograd_filters": [_int, *[_long] * 6, *[_pointer] * 2],
    "winograd_forward": [*_CONVOLUTION, *[_pointer] * 4],
    "winograd_gradient": [*_CONVOLUTION, *[_long] * 4, *[_pointer] * 3],
}


class KernelError(Exception):
    """The kernels cannot be compiled or loaded here; the message says why."""


@functools.cache
def why_unavailable() -> str | None:
    """Why there are no kernels here, or None; compiles them if need be, which takes seconds, once."""
    try:
        library()
    except KernelError as error:
        return str(error)
    return None


def way() -> str:
    """How trainings go on a CPU here: "fused" or "eager", whose results differ in rounding."""
    return "eager" if why_unavailable() else "fused"


def library() -> Any:
    """The compiled kernels, from the cache folder or compiled now.

    Raises:
        KernelError: there is no C++ compiler, it fails, or the cache folder cannot be written.
    """
    return load() if _clock is None else _Timed(load(), _clock)


_clock: Counter[str] | None = None


@contextmanager
def timed() -> Iterator[Counter[str]]:
    """Within, the wall seconds of every kernel's calls are added up in what this gives, by name."""
    global _clock
    _clock = Counter()
    try:
        yield _clock
    finally:
        _clock = None


class _Timed:
    def __init__(self, loaded: ctypes.CDLL, seconds: Counter[str]) -> None:
        self._loaded, self._seconds = loaded, seconds

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self._loaded, name)

        def call(*arguments: Any) -> None:
            started = time.perf_counter()
            function(*arguments)
            self._seconds[name] += time.perf_counter() - started  # type: ignore[assignment]

        return call


@functools.cache
def load() -> ctypes.CDLL:
    """See `library`."""
    compiler = next(
        (c for c in (os.environ.get("CXX"), "g++", "clang++", "c++") if c and shutil.which(c)), None
    )
    if compiler is None:
        raise KernelError("there is no C++ compiler (g++ or clang++)")
    name = f"kernels-{_key(compiler)}"
    # One that is whole may be of a machine with the same processor and other system libraries.
    with suppress(OSError):
        for path in filter(partial(_is_ours, name), _folder().glob(f"{name}-*.so")):
            with suppress(OSError, AttributeError):
                return _bound(path)
    _log.info("compiling the kernels for this processor with %s, which takes some seconds", compiler)
    try:
        return _bound(_compile(compiler, name))
    except (OSError, AttributeError) as error:
        raise KernelError(f"the kernels cannot be loaded ({error})") from None


def _bound(path: Path) -> ctypes.CDLL:
    """The library, its functions with the types of their arguments."""
    loaded = ctypes.CDLL(str(path))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def _is_ours(name: str, path: Path) -> bool:
    """Whether it is whole, and nothing that just anybody could have put there: what it holds is run."""
    try:
        state, folder = path.stat(), path.parent.stat()
        own = state.st_uid in (os.getuid(), 0) and not state.st_mode & stat.S_IWOTH
        trusted = own or not (state.st_mode | folder.st_mode) & stat.S_IWOTH
        return trusted and path.is_file() and path.name == _named(name, path)
    except OSError:  # a folder, a link to nothing, or not to be read
        return False


def _named(name: str, path: Path) -> str:
    """The file's name by its content: what a full disk or a power cut left of one must not be loaded."""
    return f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:20]}.so"


def _folder() -> Path:
    """ATOM_NAS_KERNELS, else `kernels` in the cache folder."""
    own = os.environ.get("ATOM_NAS_KERNELS")
    return Path(own) if own else cache_folder() / "kernels"


def _key(compiler: str) -> str:
    """A digest of source, flags, compiler and processor: `-march=native` code runs on no older one."""
    sources = [source.read_bytes() for source in (*_SOURCES, *_HEADERS)]
    parts = [*sources, " ".join((compiler, *_FLAGS)).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = info.read_text().splitlines()
    return "\n".join(next((x for x in lines if x.startswith(field)), "") for field in ("model name", "flags"))


def _compile(compiler: str, name: str) -> Path:
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            objects = [Path(folder) / f"{source.stem}.o" for source in _SOURCES]
            made = Path(folder) / f"{name}.so"
            commands = [["-c", str(s), "-o", str(o)] for s, o in zip(_SOURCES, objects, strict=True)]
            with ThreadPoolExecutor(len(commands)) as pool:
                list(pool.map(partial(_run, compiler), commands))
            _run(compiler, ["-shared", *map(str, objects), "-o", str(made)])
            made.chmod(0o755)  # whatever the process gives new files
            return made.replace(_folder() / _named(name, made))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"the kernels cannot be compiled into {_folder()} ({error})") from None


def _run(compiler: str, arguments: Sequence[str]) -> None:
    command = [compiler, *_FLAGS, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPILE_SECONDS)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise KernelError(f"{compiler} fails ({lines[0]})")
