"""A model space of NNI's as one of our spaces: the string form of its architectures, and networks from them.

An architecture is `conv=3x3+width=64`: the space's labels in order, each with the text of its value, or with
its place among the values where they have no short text of their own. A label within a scope, for NNI a/b, is
a.b here; what is not a letter, a digit or one of _ - . / is written as in a URL.
"""

from __future__ import annotations

import faulthandler
import hashlib
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch
from torch import Tensor, nn

from search_spaces.base import ImageShape, choose, some_architectures

if TYPE_CHECKING:
    from search_spaces._nni import Declared

_LONGEST = 120
_PROBES = 8


@dataclass(frozen=True)
class Chosen:
    """One architecture: each choice and the text of its value, in the order of the space."""

    texts: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "+".join(f"{name}={text}" for name, text in self.texts)


@dataclass(frozen=True, kw_only=True)
class NniSpace:
    """What a `ModelSpace` declares, as a space whose values are texts.

    An architecture that the space's own constraints refuse is a misfit. Which ones fail on images of some
    shape is known only once they are built; what they are drawn from is torch's generator.

    Attributes:
        name: under which `search_spaces.load` finds it, on this machine.
        title: the name without a path, for records and reports.
        kind: the class of the model space.
        arguments: what its constructor is given, of image shape and number of classes.
        finish: what is still done to a network, with image shape and number of classes.
        declared: its choices.
        code: one digest of the user's files that it is made of; None for NNI's own.
        sources: digests of these files, the one that defines it first: see `search_spaces.sources`.
    """

    name: str
    title: str
    kind: type[Any]
    arguments: Callable[[ImageShape, int], dict[str, Any]]
    finish: Callable[[nn.Module, ImageShape, int], nn.Module]
    declared: Declared
    code: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    _values: dict[str, dict[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = {_name(label): _texts(each) for label, each in self.declared.values.items()}
        if not values:
            raise ValueError(
                f"{self.title} leaves nothing to choose: declare choices, e.g. by nni.choice, and "
                "use each in a layer (MutableConv2d, LayerChoice, Repeat, ...) or by self.add_mutable(...)"
            )
        object.__setattr__(self, "_values", values)

    @property
    def choices(self) -> Mapping[str, tuple[str, ...]]:
        return {name: tuple(values) for name, values in self._values.items()}

    @property
    def file(self) -> str | None:
        """Where a user's class is defined; None for NNI's own."""
        return self.name.rpartition(":")[0] if self.code else None

    @property
    def digest(self) -> str:
        """Of the choices, their values and the constraints' labels."""
        text = json.dumps([self.choices, list(self.declared.constraints)], separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def changed(self, code: Any, sources: Any = None) -> tuple[str, ...]:
        """Which of its files are not as they were.

        Args:
            code, sources: what they were, as records have it, of which anything may be wrong; without
                `sources` it was the one file that defines it, or that alone was known.
        """
        if not self.sources or not isinstance(code, str) or code == self.code:
            return ()
        main = next(iter(self.sources))
        if not isinstance(sources, dict) or not sources:
            return (main,) if self.sources[main] != code else ()
        names = dict.fromkeys((*self.sources, *map(str, sources)))
        return tuple(name for name in names if self.sources.get(name) != sources.get(name))

    def architecture(self, sample: Mapping[str, Any]) -> Chosen:
        return Chosen(tuple((name, sample[name]) for name in self._values))

    def sample_of(self, architecture: Chosen) -> dict[str, Any]:
        return dict(architecture.texts)

    def parse(self, text: str) -> Chosen:
        sample: dict[str, str] = {}
        for part in text.split("+"):
            name, equals, value = part.partition("=")
            if not equals or name in sample:
                example = str(self.architecture({each: next(iter(v)) for each, v in self._values.items()}))
                form = f"LABEL=VALUE+..., such as {_shown(example)}"
                raise ValueError(f"{_shown(text)} is not of the form {form}")
            _require(f"choice of {self.title}", name, self._values)
            _require(name, value, self._values[name])
            sample[name] = value
        missing = [name for name in self._values if name not in sample]
        if missing:
            raise ValueError(f"{_shown(text)} does not say {missing[0]!r}, a choice of {self.title}")
        return self.architecture(sample)

    def misfit(self, architecture: Any, image_shape: ImageShape) -> str | None:  # noqa: ARG002
        return self.declared.violation(self._sample(architecture)) if self.declared.constraints else None

    def build(self, architecture: Chosen, image_shape: ImageShape, classes: int) -> nn.Module:
        from search_spaces import _nni

        reason = self.misfit(architecture, image_shape)
        if reason is not None:
            raise ValueError(f"{architecture} does not fit images of shape {image_shape}: {reason}")
        with in_one_line(f"{architecture} cannot be built"):
            arguments = self.arguments(image_shape, classes)
            network = _nni.frozen(self.kind, arguments, self._sample(architecture))
        return self.finish(network, image_shape, classes)

    def _sample(self, architecture: Chosen) -> dict[str, Any]:
        """As NNI has it."""
        chosen = zip(self.declared.values, architecture.texts, strict=True)
        return {label: self._values[name][text] for label, (name, text) in chosen}


def probe(space: NniSpace, image_shape: ImageShape, classes: int) -> None:
    """Build an architecture and apply it to two images; where that fails, a few others.

    Raises:
        ValueError: none works; one line with what is wrong with the first.
    """
    fitting = (each for each in some_architectures(space) if space.misfit(each, image_shape) is None)
    reasons: list[str] = []
    for architecture in itertools.islice(fitting, _PROBES):
        reason = _fault(space, architecture, image_shape, classes)
        if reason is None:
            return
        reasons.append(reason)
    if reasons:
        raise ValueError(
            f"no architecture of {space.title} that was tried works on images of shape {image_shape} and "
            f"{classes} classes: {reasons[0]}"
        )


def warn_of_probabilities(logits: Tensor, who: str) -> None:
    """Say that a network seems to end in a softmax: trained by cross-entropy of logits it hardly learns.

    Args:
        logits: what it makes of some images, (N, K).
    """
    sums = logits.float().sum(dim=1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        warnings.warn(
            f"{who} seems to end in a softmax; it is trained by a loss that takes logits, so leave that out",
            stacklevel=3,
        )


def _fault(space: NniSpace, architecture: Any, image_shape: ImageShape, classes: int) -> str | None:
    try:
        with in_one_line(str(architecture)[:_LONGEST]), _crashes_located():
            _apply(space, architecture, image_shape, classes)
    except ValueError as error:
        return str(error)
    return None


def _apply(space: NniSpace, architecture: Any, image_shape: ImageShape, classes: int) -> None:
    with torch.random.fork_rng(devices=[]):
        network = space.build(architecture, image_shape, classes).train()
        logits = network(torch.zeros(2, *image_shape))
    given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if given != [2, classes]:
        raise ValueError(f"gives {given} for two images, not logits of shape [2, {classes}]")
    warn_of_probabilities(logits.detach(), str(architecture)[:_LONGEST])
    logits.sum().backward()


@contextmanager
def _crashes_located() -> Iterator[None]:
    """Where native code under the network ends the process, Python says at which line of whose code."""
    if sys.__stderr__ is None or faulthandler.is_enabled():
        yield
        return
    faulthandler.enable(sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.disable()


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Turn whatever code that is not ours raises into one line; what it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        lines = lines_of(error)
        said = lines[:1] if isinstance(error, ValueError) else [type(error).__name__, *lines[:1]]
        raise ValueError(": ".join([what, *said])) from error


def lines_of(error: BaseException) -> list[str]:
    """The message's lines, without those that are empty; none where it cannot be told."""
    try:
        return [line.strip() for line in str(error).splitlines() if line.strip()]
    except (Exception, SystemExit):  # noqa: BLE001 - its class may be the user's, too
        return []


def _name(label: str) -> str:
    """NNI takes no slash in the name of a choice that is declared anew."""
    return ".".join(quote(part, safe="").replace(".", "%2E") for part in label.split("/"))


def _texts(values: Sequence[Any]) -> dict[str, Any]:
    """Text -> value; the place is the text where some value has none or two have the same."""
    texts = [_text(value) for value in values]
    if None in texts or len(set(texts)) < len(texts):
        texts = [str(place) for place in range(len(values))]
    return {str(text): value for text, value in zip(texts, values, strict=True)}


def _text(value: Any) -> str | None:
    """`64`, `relu`, `3x3` for (3, 3), `0~2` for the inputs [0, 2]; None for what has no short text."""
    if isinstance(value, tuple | list):
        parts = [_text(each) for each in value]
        mark = "~" if isinstance(value, list) else "x"
        text = "" if None in parts else mark.join(map(str, parts)) or "none"
    elif value is None or type(value) in (bool, int, float, str):
        text = quote(str(value), safe="/").replace("~", "%7E")
    else:
        text = ""
    return text if 0 < len(text) <= _LONGEST else None


def _require(kind: str, text: str, allowed: Mapping[str, Any]) -> None:
    if text not in allowed:
        choose(kind, f"{text[:_LONGEST]}..." if len(text) > _LONGEST else text, allowed)


def _shown(text: str) -> str:
    return repr(text[:_LONGEST])
