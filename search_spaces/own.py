"""The user's own model spaces: a class in a Python file, by `FILE.py:CLASS` or `module:CLASS`; and other
functions of theirs.

The file is run, as Python runs what it imports, in this process and in every worker. So a name has to come
from whoever starts a search, never from a folder that may be a stranger's.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from search_spaces.base import ImageShape, choose
from search_spaces.foreign import NniSpace, in_one_line
from search_spaces.sources import FromSource, Home, home_of, one_digest

_GIVEN = ("image_shape", "classes")
"""Parameters of a constructor that are not options: they come from the dataset."""
_PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


@dataclass(frozen=True)
class _Imported:
    """A file that was run.

    Attributes:
        module: what it defines.
        helpers: name -> file of the user's modules that it is made of besides.
        digests: of all these files, see `Home.digests`.
    """

    module: ModuleType
    helpers: Mapping[str, Path]
    digests: Mapping[str, str]

    @property
    def code(self) -> str:
        return one_digest(self.digests)


_imported: dict[Path, _Imported] = {}
_found: dict[str, Path] = {}
"""Name -> file of all modules of users' that were imported here."""


def resolve(name: str) -> str:
    """The same name whatever the working directory is: `/PATH/FILE.py:CLASS`.

    Raises:
        ValueError: there is no such file or module.
    """
    where, _, kind = name.rpartition(":")
    if not where or not kind.isidentifier():
        raise ValueError(f"{name!r} names no class or function: give FILE.py:NAME or module:NAME")
    path = Path(where).expanduser().absolute() if where.endswith(".py") else _file_of(where)
    if not path.is_file():
        raise ValueError(f"there is no file {path} to take {kind} from")
    return f"{path}:{kind}"


def load(name: str, options: Mapping[str, Any], image_shape: ImageShape, classes: int) -> NniSpace:
    """The space that a name stands for, made for images of a shape (C, H, W) and so many classes.

    Args:
        options: further arguments of its constructor: JSON values.
    Raises:
        ValueError: no such file or class, no `ModelSpace`, an option it does not take, or its constructor
            fails; one line.
    """
    path, _, kind = resolve(name).rpartition(":")
    given = json_text(options)
    return _load(Path(path), kind, _current(Path(path)).code, given, tuple(image_shape), classes)


@dataclass(frozen=True)
class UsersFunction:
    """A function of the user's in any process; its files must be as they were when it was found.

    Attributes:
        where: /PATH/FILE.py:FUNCTION.
        code: the digest of the files that it is made of.
    """

    where: str
    code: str

    def current(self, then: str) -> Callable[..., Any]:
        """The function itself.

        Raises:
            ValueError: its files have changed, what `then` is to be done; or as `load_function`.
        """
        function, code = load_function(self.where)
        if code != self.code:
            raise ValueError(f"{self.where} has changed {then}")
        return function


def load_function(name: str) -> tuple[Callable[..., Any], str]:
    """The function that a name stands for, and one digest of the user's files that it is made of.

    Raises:
        ValueError: no such file or function, or the file cannot be run; one line.
    """
    path, _, function = resolve(name).rpartition(":")
    imported = _current(Path(path))
    found = getattr(imported.module, function, None)
    if callable(found):
        return found, imported.code
    own = [
        each
        for each, value in vars(imported.module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == imported.module.__name__
    ]
    choose(f"function or class of {path}", function, own)
    raise ValueError(f"{function} of {path} is no function or class")


def json_text(options: Mapping[str, Any]) -> str:
    """Options as a record keeps them.

    Raises:
        ValueError: there is something among them that JSON has no form for.
    """
    try:
        return json.dumps(dict(options), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"an option of the space is neither text, number, list nor mapping: {error}"
        ) from None


@lru_cache(maxsize=8)
def _load(path: Path, kind: str, code: str, options: str, image_shape: ImageShape, classes: int) -> NniSpace:
    """Cached, since a worker asks for every architecture anew."""
    from search_spaces import _nni

    title = f"{path.name}:{kind}"
    made = _class_of(path, kind)
    parameters = _nni.parameters(made)
    values: dict[str, Any] = json.loads(options)
    check_options(title, parameters, values)

    def arguments(shape: ImageShape, count: int) -> dict[str, Any]:
        of_data = {"image_shape": tuple(shape), "classes": count}
        return {**values, **{each: of_data[each] for each in _GIVEN if each in parameters}}

    finder = FromSource(home := home_of(path))
    with in_one_line(f"the constructor of {title} fails"), _importable(home.root, finder):
        declared = _nni.declared(made, arguments(image_shape, classes))
    _found.update(finder.found)
    return NniSpace(
        name=f"{path}:{kind}",
        title=title,
        kind=made,
        arguments=arguments,
        finish=lambda network, *_: network,
        declared=declared,
        code=code,
        sources=_imported[path].digests,
    )


def check_options(
    title: str, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> None:
    """Hold options against the constructor that is to take them.

    Raises:
        ValueError: it does not take one, needs another, or wants a value of another type.
    """
    kinds = inspect.Parameter
    own = {k: p for k, p in parameters.items() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
    anything = any(each.kind is kinds.VAR_KEYWORD for each in parameters.values())
    for option, value in options.items():
        if option in _GIVEN:
            raise ValueError(f"{option} of {title} comes from the dataset: leave it out")
        if option not in own and anything:
            continue
        note = own[choose(f"option of {title}", option, [each for each in own if each not in _GIVEN])]
        wanted = getattr(note.annotation, "__name__", note.annotation)
        types = _PLAIN.get(wanted) if isinstance(wanted, str) else None
        if types and (not isinstance(value, types) or (isinstance(value, bool) and wanted != "bool")):
            raise ValueError(f"{option} is {value!r}: {title} takes {wanted} there")
    missing = [k for k, p in own.items() if p.default is p.empty and k not in options and k not in _GIVEN]
    if missing:
        raise ValueError(f"{title} needs {', '.join(missing)}: add --set-space {missing[0]}=VALUE")


def _class_of(path: Path, kind: str) -> type[Any]:
    from search_spaces import _nni

    module = _imported[path].module
    found: Any = getattr(module, kind, None)
    if _nni.is_model_space(found):
        kind_of_space: type[Any] = found
        return kind_of_space
    if found is not None:
        raise ValueError(
            f"{path.name}:{kind} is not a ModelSpace of NNI: derive it from nni.nas.nn.pytorch.ModelSpace"
        )
    spaces = [name for name, value in vars(module).items() if _nni.is_model_space(value)]
    choose(f"model space of {path}", kind, spaces)
    raise AssertionError


def _current(path: Path) -> _Imported:
    """What the file defines; run again only if it has changed, or what it imports of the user's has."""
    home, known = home_of(path), _imported.get(path)
    helpers = home.reachable()
    if known and home.digests({**known.helpers, **helpers}) == known.digests:
        return known
    _forget(home, known, helpers)
    finder = FromSource(home)
    module = _run(home, finder)
    _found.update(finder.found)
    helpers |= finder.found
    _imported[path] = _Imported(module, helpers, home.digests(helpers))
    return _imported[path]


def _forget(home: Home, known: _Imported | None, helpers: Mapping[str, Path]) -> None:
    """Have modules imported anew, as they are now: those that were imported here, and what has changed."""
    stale = {name: file for name, file in _found.items() if home.owns(file) or name in helpers}
    if known:
        both = {**known.helpers, **helpers}
        now = home.digests(both)
        changed = {home.root / name for name in now if now[name] != known.digests.get(name)}
        stale |= {name: file for name, file in both.items() if file in changed}
    for name, file in stale.items():
        _found.pop(name, None)
        module = sys.modules.get(name)
        if getattr(module, "__file__", None) != str(file):
            continue
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if getattr(sys.modules.get(package), last, None) is module:
            delattr(sys.modules[package], last)


def _run(home: Home, finder: FromSource) -> ModuleType:
    """torch's generator is left as it was."""
    from search_spaces import _nni

    with (
        torch.random.fork_rng(devices=[]),
        _nni.importing(),
        _importable(home.root, finder),
        in_one_line(f"{home.path} cannot be run"),
    ):
        return _of_package(home.module, home.path) if home.dotted else _of_file(home.path)


def _of_file(path: Path) -> ModuleType:
    # Under a name that hides no other module; from the source, since a compiled file may be of another state.
    name = f"_space_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _of_package(dotted: str, path: Path) -> ModuleType:
    known = dotted in sys.modules
    module = importlib.import_module(dotted)
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ValueError(f"another package hides it: Python finds {module.__file__} for {dotted}")
    return importlib.reload(module) if known else module


def _file_of(module: str) -> Path:
    """The file of a module that can be imported from the working directory."""
    with _importable(Path.cwd()):
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            found = None
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise ValueError(
            f"there is no module {module!r} in {Path.cwd()}, and none is installed: give FILE.py:NAME or "
            "module:NAME"
        )
    return Path(found.origin).absolute()


@contextmanager
def _importable(folder: Path, *finders: FromSource) -> Iterator[None]:
    """Let modules of a folder be found first meanwhile, by finders if given, and last from then on."""
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    sys.meta_path[:0] = finders
    try:
        yield
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
