"""How every figure looks and is saved: matplotlib's object interface, no pyplot, no global figures.

Colours are Okabe and Ito's (2008), told apart under every common colour blindness.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"
INK, FAINT, PALE_BLUE = "#222222", "#DDDDDD", "#9CC3DD"
DOTS_PER_INCH = 160

STYLE: dict[str, object] = {
    # Names of runs and methods are shown as they are, dollar signs included.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.hashsalt": "atom-nas",
}


@contextmanager
def house_style() -> Iterator[None]:
    """The style, while figures are drawn and saved; matplotlib's own settings are restored afterwards."""
    import matplotlib

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # its stub lists every key as a literal
        yield


def new_figure(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes side by side, sizes in inches, laid out so that nothing overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Writes NAME.png and NAME.svg; the same figure gives the same SVG, byte for byte."""
    figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
    figure.set_layout_engine("none")  # laid out by the first save; doing it again takes as long as drawing
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, dpi=DOTS_PER_INCH)


def copy_picture(source: Path, target: Path) -> bool:
    """Draws a PNG again, so that only its pixels are copied; False, and nothing written, where it is none.

    A run folder may come from a stranger: a link could name any file, which a page would then show to whoever
    it is sent to, and a file that only claims to be a picture could hold anything.
    """
    from PIL import Image

    if source.is_symlink() or not source.is_file():
        return False
    damaged = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=["PNG"]) as image:
                pixels = image.convert("L" if image.mode in {"1", "L"} else "RGB")
    except (*damaged, *too_large):
        return False
    pixels.info.clear()
    pixels.save(target, format="PNG")
    return True
