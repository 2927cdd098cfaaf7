"""The options that several commands share, declared once: name, help and bounds."""

from pathlib import Path
from typing import Annotated

import typer

Synthetic = Annotated[Path, typer.Argument(help="A synthetic set.", metavar="DIR")]
Seed = Annotated[int, typer.Option(min=0, help="Names every random number; the same seed, the same result.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where downloaded datasets are kept; the user's cache folder by default.")
]
Moved = Annotated[
    str | None,
    typer.Option("--dataset", help="Where the real data is now, if not where the set's card says."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; results do not depend on it.  [default: all cores]")
]
TrainingWorkers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Networks to train side by side; results do not depend on it.  [default: all cores, 1 on a GPU]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting, repeatable; see 'atom-nas list settings'."
    ),
]


def count(text: str) -> typer.models.OptionInfo:
    """An optional number of things, at least one."""
    option: typer.models.OptionInfo = typer.Option(min=1, help=text)
    return option
