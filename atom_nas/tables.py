"""CSV files that users bring: lists of architectures, and published rankings."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.ranking import FORMULA_STARTS
from reports.scores import RANKING_COLUMNS
from reports.store import LARGEST
from search_spaces.base import Space

Row = tuple[int, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class ArchitectureList:
    """Architectures to score instead of sampling.

    Attributes:
        architectures: their string forms, each once, in the order of the file.
        duplicates: lines dropped because their architecture had come before.
        beyond: architectures left out because their networks cost more than they may.
    """

    architectures: tuple[str, ...]
    duplicates: int
    beyond: int = 0


@dataclass(frozen=True, kw_only=True)
class ReferenceTable:
    """A published ranking, as far as it is of the space.

    Attributes:
        scores: string form -> finite score, higher is better.
        foreign: rows left out because the space has no such architecture.
        why_foreign: the first of them, with its line and what is wrong; None if there is none.
    """

    scores: Mapping[str, float]
    foreign: int = 0
    why_foreign: str | None = None

    @property
    def left_out(self) -> str | None:
        """A word on the rows that are not of the space; None if all are."""
        if not self.foreign:
            return None
        of = f"{self.foreign} of {self.foreign + len(self.scores)} rows of the reference"
        return f"{of} are not of this space ({self.why_foreign})"

    def of(self, architectures: Sequence[str], source: str, way_out: str) -> dict[str, float]:
        """The scores of those among `architectures` that it has.

        Args:
            source: where it came from.
            way_out: what to do if there are none.
        Raises:
            ValueError: there are none.
        """
        known = {name: self.scores[name] for name in architectures if name in self.scores}
        if not known:
            raise ValueError(
                f"none of the {len(architectures)} architectures of this search is among the "
                f"{len(self.scores)} of {source}: {way_out}"
            )
        return known


def read_architectures(path: Path, space: Space) -> ArchitectureList:
    """Read the column `architecture` of a CSV file.

    Raises:
        ValueError: no such file, no such column, no row, or a string the space cannot parse (with its line).
    """
    parsed = [_parse(space, row, line, path) for line, row in _rows(path, ("architecture",))]
    if not parsed:
        raise ValueError(f"{path} lists no architecture: one a line is needed below the header")
    unique = tuple(dict.fromkeys(parsed))
    return ArchitectureList(architectures=unique, duplicates=len(parsed) - len(unique))


SCORE = "score"
"""The column of a published ranking that holds the scores, unless another one is named."""


def read_reference(path: Path, space: Space, column: str = SCORE) -> ReferenceTable:
    """Read the columns `architecture` and `column` of a published ranking; higher scores are better.

    Identical lines count once; those with nothing in a `column` that was named are left out. Published tables
    may cover more than the space, or more than what a narrowed one has: rows of other architectures are
    counted and left out.

    Raises:
        ValueError: no such file or column, no row, none that is of the space, a score that is not a finite
            number (with its line), or two scores for one architecture.
    """
    scores: dict[str, float] = {}
    foreign: list[str] = []
    for line, row in _rows(path, ("architecture", column), others="--reference-column"):
        if column != SCORE and not row[column]:
            continue
        score = _score(row[column], line, path)
        try:
            architecture = _parse(space, row, line, path)
        except ValueError as error:
            foreign.append(str(error))
            continue
        if scores.setdefault(architecture, score) != score:
            raise ValueError(
                f"{path}, line {line}: {architecture} has the score {score} here and {scores[architecture]} "
                "earlier: keep one"
            )
    if not scores and foreign:
        raise ValueError(f"{foreign[0]}; no other row is of the space {space.name!r} as given here either")
    if not scores:
        raise ValueError(f"{path} holds no score: rows of architecture,{column} are needed below the header")
    return ReferenceTable(scores=scores, foreign=len(foreign), why_foreign=foreign[0] if foreign else None)


def reference_csv(scores: Mapping[str, float]) -> str:
    """The text of a CSV file with the columns architecture and score."""
    return "".join(["architecture,score\n", *(f"{name},{score!r}\n" for name, score in scores.items())])


def _rows(path: Path, columns: tuple[str, ...], others: str = "") -> Iterator[Row]:
    """Line number and named values of each row that is not blank; the option `others` names other columns."""
    if not path.is_file():
        raise ValueError(f"no file {path}: a CSV file with {_columns(columns)} is needed")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            twice = [column for column in columns if header.count(column) > 1]
            if twice:
                raise ValueError(f"{path} has two columns {twice[0]!r}: keep one")
            _require_columns(path, columns, header, others)
            for row in reader:
                _require_no_more(row, header, f"{path}, line {reader.line_num}")
                if not any((value or "").strip() for value in row.values()):
                    continue
                yield reader.line_num, {column: _cell(row, column) for column in columns}
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
        except csv.Error as error:
            after = f"after line {reader.line_num}"
            raise ValueError(f"{path} cannot be read as a CSV file {after}: {error}") from error


def _require_columns(path: Path, columns: Sequence[str], header: Sequence[str], others: str) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(header) or "none"
        way_out = f"; name one by {others}" * bool(others and missing[0] != "architecture")
        apart = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
        way_out = f"; separate them by commas, not by {apart!r}" if apart else way_out
        raise ValueError(f"{path} has no column {missing[0]!r}; its columns are: {found}{way_out}")
    if others and SCORE in columns and set(header) >= set(RANKING_COLUMNS):
        raise ValueError(
            f"{path} is a ranking of a report's: its column {SCORE!r} is what that search ranked by, and no "
            f"reference; its real scores are named by {others} reference"
        )


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' * (len(names) > 1)} {', '.join(names)}"


def _require_no_more(row: Mapping[Any, Any], header: Sequence[str], where: str) -> None:
    """Refuse a row with more cells than there are columns: a comma was meant as part of one."""
    beyond = [cell for cell in row.get(None) or () if cell.strip()]
    if beyond:
        raise ValueError(
            f"{where}: {len(header)} columns are named, and {beyond[0]!r} stands in none of them; write 94.3 "
            "for 94,3, and quote cells that hold a comma"
        )


def _cell(row: Mapping[str | Any, str | Any], column: str) -> str:
    return str(row[column] or "").strip()


def _parse(space: Space, row: Mapping[str, str], line: int, path: Path) -> str:
    name = row["architecture"]
    marked = name.startswith("'") and name[1:].startswith(FORMULA_STARTS)  # as reports write such names
    try:
        return str(space.parse(name[1:] if marked else name))
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from error


def _score(text: str, line: int, path: Path) -> float:
    try:
        # Python's own numbers may be written 9_4, or with digits of any script; in a table that is a slip.
        plain = text.isascii() and "_" not in text
        score = float(text) if plain else math.nan
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{path}, line {line}: the score {text!r} is not a finite number")
    if abs(score) > LARGEST:
        raise ValueError(
            f"{path}, line {line}: the score {text!r} is out of range: at most {LARGEST:g} either way"
        )
    return score
