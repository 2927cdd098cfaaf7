"""Whether two networks are one and the same: a digest of everything that a network is made of.

Networks that were built from one state of all generators and have one digest are of the same classes, with
the same settings, weights, buffers and ties: whatever trains them finds no difference. The reverse does not
hold, and what cannot be read has no digest.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

_ITS_NAME = {"_frozen_context", "_label_scope", "label_scope", "trace_args", "trace_kwargs"}
"""Where NNI keeps which architecture a module is, and how it was called: no forward reads them."""
_TORCH = {"_parameters", "_buffers", "_modules"}
_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, torch.dtype, torch.device)


class _UnreadableError(Exception):
    """A value of which it cannot be told whether another is the same."""


def identity_of(network: nn.Module) -> str | None:
    """The digest of a network, `sha256:...`; None where part of it cannot be read."""
    digest = hashlib.sha256()
    try:
        for part in _parts(network):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    except _UnreadableError:
        return None
    return f"sha256:{digest.hexdigest()}"


def _parts(network: nn.Module) -> Iterator[bytes]:
    seen: dict[int, str] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        first = seen.setdefault(id(module), name)
        yield repr((name, first, _class(type(module)))).encode()
        if first != name:
            continue
        for key, value in sorted(vars(module).items()):
            if key in _ITS_NAME or key in _TORCH:
                continue
            yield repr((key, _form(value))).encode()
        for kind in ("_parameters", "_buffers"):
            for key, tensor in vars(module)[kind].items():
                own = seen.setdefault(id(tensor), f"{name}.{key}")
                yield repr((kind, key, own, tensor is None or tensor.requires_grad)).encode()
                if tensor is not None and own == f"{name}.{key}":
                    yield _bytes(tensor)


def _form(value: Any) -> Any:
    """Of a module's attribute: equal for equal values, and without addresses."""
    if isinstance(value, enum.Enum):
        return _class(type(value)), value.name
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, list | tuple):
        return type(value).__name__, [_form(each) for each in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(repr(_form(each)) for each in value)
    if isinstance(value, Mapping):
        return type(value).__name__, [(_form(key), _form(each)) for key, each in value.items()]
    if isinstance(value, torch.Tensor):
        return "tensor", hashlib.sha256(_bytes(value)).hexdigest()
    return _named(value)


def _named(value: Any) -> Any:
    """Of what is told by where it was defined."""
    if isinstance(value, type):
        return "class", _class(value)
    if isinstance(value, functools.partial):
        return "partial", _form(value.func), _form(value.args), _form(value.keywords)
    if isinstance(value, types.FunctionType) and value.__closure__ is None:
        code, defaults = value.__code__, (value.__defaults__, value.__kwdefaults__)
        constants = _without_addresses(repr((code.co_consts, code.co_names)))
        return (
            "function",
            value.__module__,
            value.__qualname__,
            code.co_code.hex(),
            constants,
            _form(defaults),
        )
    bound = getattr(value, "__self__", None)
    if isinstance(value, types.BuiltinFunctionType) and isinstance(bound, types.ModuleType | types.NoneType):
        return "function", value.__module__, value.__qualname__
    own = type(value).__module__.partition(".")[0]
    if own == "nni" and not isinstance(value, nn.Module):  # a choice, as the space declares it
        return "choice", _without_addresses(repr(value))
    raise _UnreadableError


def _class(kind: type[Any]) -> str:
    if "<locals>" in kind.__qualname__:  # its methods may read what the function around it had chosen
        raise _UnreadableError
    return f"{kind.__module__}.{kind.__qualname__}"


def _without_addresses(text: str) -> str:
    if " at 0x" in text:
        raise _UnreadableError
    return text


def _bytes(tensor: torch.Tensor) -> bytes:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise _UnreadableError
    plain = tensor.detach().cpu().contiguous()
    head = repr((plain.dtype, tuple(plain.shape))).encode()
    return head + plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else head
