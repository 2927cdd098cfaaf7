"""The user's own modules that a space is made of: which files they are, and digests of them.

Imports are read off the files, also those that run later or under a condition, so that the same files give
the same digest in every process. Modules whose names are computed are known once they have been imported.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_INSTALLED = {"site-packages", "dist-packages"}
_SAID = 3
_OURS = {"atom_nas", "distill", "reports", "search_spaces"}


@dataclass(frozen=True)
class Home:
    """Where the user's modules are.

    Attributes:
        path: the file that was named.
        root: the folder that imports begin at: its own, or the one that its top-level package lies in.
        module: the file's name from there, with dots.
    """

    path: Path
    root: Path
    module: str

    @property
    def dotted(self) -> bool:
        """Whether the file is of a package."""
        return "." in self.module

    def owns(self, file: Path) -> bool:
        """Whether a file is of a module of the user's: beside the named one or in its package."""
        top = self.root
        if _INSTALLED & set(self.root.parts):
            top = top / self.module.partition(".")[0]
        if not file.is_relative_to(top) or file.is_relative_to(sysconfig.get_path("stdlib")):
            return False
        inside = file.relative_to(self.root).parts
        return not _INSTALLED & set(inside) and inside[0] not in _OURS

    def reachable(self) -> dict[str, Path]:
        """Name -> file of the user's modules that the named file imports, directly or not."""
        found: dict[str, Path] = {}
        left = [(self.module, self.path)]
        while left:
            for name in _named(*left.pop()):
                file = self._file(name)
                if file and file != self.path and name not in found:
                    found[name] = file
                    left.append((name, file))
        return found

    def digests(self, files: Mapping[str, Path]) -> dict[str, str]:
        """File, from the root -> `sha256:` and its digest; the named one first, the others in order."""
        others = sorted({file for file in files.values() if file.is_file()} - {self.path})
        return {
            file.relative_to(self.root).as_posix(): f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
            for file in (self.path, *others)
        }

    def _file(self, name: str) -> Path | None:
        place = self.root.joinpath(*name.split("."))
        files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
        return next((file for file in files if file.is_file() and self.owns(file)), None)


def home_of(path: Path) -> Home:
    """Where the modules are that a file may import as its own."""
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return Home(path, folder, ".".join(names))


def one_digest(digests: Mapping[str, str]) -> str:
    """Of all files; of a single one its own."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return f"sha256:{hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()}"


def have_changed(files: Sequence[str]) -> str:
    """The beginning of a sentence."""
    names = [name if name.isprintable() else repr(name) for name in files[:_SAID]]
    more = [f"{len(files) - _SAID} more"] if len(files) > _SAID else []
    return f"{' and '.join([*names, *more])} {'has' if len(files) == 1 else 'have'} changed"


class FromSource(MetaPathFinder):
    """Finds the user's modules, and has them read from their source: a compiled file may be of another state.

    Attributes:
        found: name -> file of what was found.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.found: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`; None for whatever is not the user's."""
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            return None
        if not self._home.owns(Path(spec.origin)):
            return None
        spec.loader = _SourceLoader(fullname, spec.origin)
        self.found[fullname] = Path(spec.origin)
        return spec


class _SourceLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _named(module: str, file: Path) -> Iterator[str]:
    """Every module that a file may import, with the packages it lies in; nothing of what does not parse."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    yield from _with_packages(package)
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from _with_packages(base)
            yield from (f"{base}.{alias.name}" for alias in node.names if base)


def _with_packages(name: str) -> Iterator[str]:
    """a, a.b and a.b.c for a.b.c."""
    parts = name.split(".") if name else []
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
