"""Independent random streams, one per key, so that no result depends on what ran before it.

A stream is named by what it is for, e.g. `stream(seed, "batch", iteration, klass)`. Nothing has to be
saved to resume, and work split over processes draws the same numbers as one process would.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

Key = int | str


def derive_seed(*key: Key) -> int:
    """A 63-bit seed that depends on every part of the key and on nothing else, on any platform."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def stream(*key: Key) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*key)`."""
    return torch.Generator().manual_seed(derive_seed(*key))


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """What is drawn within from the global generators of torch, NumPy and Python depends on the seed alone;
    they are then put back. It is for networks, whose layers may draw from any of them."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_globally(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def seed_globally(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python; call it within `own_randomness`."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
