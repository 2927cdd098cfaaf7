"""A distillation in parts: which classes belong to which shard, and the folder that one leaves.

A shard's folder is a synthetic set's, but for its record: `shard.json` stands in the place of `card.json`, so
that nothing takes the part for the whole. See `distill.merging` for the way from shards to a set.
"""

import re
from dataclasses import dataclass

_FORM = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1.

    Raises:
        ValueError: if there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"shard {self}: there must be at least 1 part, as in 1/1")
        if not 1 <= self.index <= self.count:
            raise ValueError(
                f"shard {self}: the parts of {self.count} are 1/{self.count} to {self.count}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`INDEX/COUNT`, e.g. 2/8.

        Raises:
            ValueError: if it has another form, or there is no such part.
        """
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise ValueError(f"shard {text!r}: part and number of parts are wanted, e.g. 2/8")
        return cls(int(match[1]), int(match[2]))

    def class_numbers(self, classes: int) -> tuple[int, ...]:
        """The classes of this part of 0..classes-1: those of all parts are contiguous and nearly as many.

        Raises:
            ValueError: if there are more parts than classes.
        """
        if self.count > classes:
            raise ValueError(f"shard {self}: {classes} classes make at most {classes} shards")
        first, last = (classes * number // self.count for number in (self.index - 1, self.index))
        return tuple(range(first, last))
