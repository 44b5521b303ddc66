"""How a picture becomes part of a page: matplotlib drawings as inline SVG that follows the page's theme.

Colours are drawn as tokens and replaced by CSS variables, so that one SVG serves light and dark. A drawing whose
SVG would be too heavy is embedded as two PNGs, one for each theme. The bytes depend on the drawing alone.
"""

from __future__ import annotations

import base64
import io
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .page import DARK, LIGHT, escape
from .text import bytes_text, is_share

LARGEST_SVG = 400_000
SERIES = 8
ROLES = ("ink", "muted", "grid", "surface", "other")
# Tokens stand for colours in a drawing; nothing else is drawn in them.
TOKENS = {role: f"#0a0b0{index}" for index, role in enumerate(ROLES)}
TOKENS |= {f"series-{index}": f"#0a0b1{index}" for index in range(SERIES)}
HALF = 5.5
WIDE = 11.4
_LOCK = threading.Lock()
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "codistill",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.unicode_minus": True,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


@dataclass(frozen=True)
class Palette:
    """The colours of one rendering, by name: `ink`, `muted`, `grid`, `surface`, `other`, `series-0` to `series-7`."""

    colours: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.colours[name]

    def series(self, index: int) -> str:
        """Give the colour of a series; those after the eighth share the colour of `other`."""
        return self.colours[f"series-{index}"] if index < SERIES else self.colours["other"]


@dataclass(frozen=True)
class Picture:
    """One figure of a page: what it is called, what it says in words, and how it is drawn."""

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[Figure, Palette], None]
    width: float = HALF
    height: float = 3.3


def shades() -> LinearSegmentedColormap:
    """Give a colour map from clear to full, which stands on a light page as well as on a dark one."""
    red, green, blue = to_rgb("#3a82dc")
    return LinearSegmentedColormap.from_list("shades", [(red, green, blue, 0.0), (red, green, blue, 1.0)])


def value_axis(axes: Axes, metric: str) -> None:
    """Label the vertical axis in per cent for a share."""
    if is_share(metric):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g} %"))
    axes.yaxis.set_major_locator(MaxNLocator(6))


def bytes_axis(axes: Axes, direction: str, ticks: int = 5) -> None:
    """Label an axis in bytes, from zero."""
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value).replace(".0 ", " ")))


def rounds_axis(axes: Axes) -> None:
    """Label the horizontal axis in whole rounds."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("round")


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend above the drawing, in as few lines as its width allows."""
    room = 68 * figure.get_figwidth()
    columns = len(labels)
    while columns > 1 and columns * (30 + 5.2 * max(len(label) for label in labels)) > room:
        whole = 30 * len(labels) + 5.2 * sum(len(label) for label in labels)
        if columns == len(labels) and whole <= room:
            break
        columns -= 1
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _settings(palette: Palette) -> dict[Any, Any]:
    inks = dict.fromkeys(("text.color", "axes.titlecolor"), palette["ink"])
    muted = dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), palette["muted"])
    lines = dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), palette["grid"])
    return {**SETTINGS, **inks, **muted, **lines}


def _save(picture: Picture, palette: Palette, form: str, ground: str | None = None) -> bytes:
    """Draw and save, apart from whatever settings this process or its user has made for matplotlib."""
    with _LOCK, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that the measuring font lacks is drawn by the reader's fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(palette))
        figure = Figure(figsize=(picture.width, picture.height), layout="constrained")
        figure.patch.set(alpha=0.0) if ground is None else figure.patch.set(facecolor=ground)
        picture.draw(figure, palette)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        target = io.BytesIO()
        nameless = (
            {"Date": None, "Creator": None, "Format": None, "Type": None} if form == "svg" else {"Software": None}
        )
        figure.savefig(target, format=form, dpi=144, metadata=nameless)
    return target.getvalue()


def _inline(text: str, picture: Picture) -> str:
    """Turn matplotlib's SVG document into an element of a page: themed, described, with ids of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    variables = {token: f"var(--{name})" for name, token in TOKENS.items()}

    def tag(match: re.Match[str]) -> str:
        found = match.group(0)
        found = re.sub(r"#0a0b[01][0-9]", lambda token: variables.get(token.group(0), token.group(0)), found)
        found = re.sub(r"font: ([^;\"]*?px)[^;\"]*", r"font: \1 var(--font)", found)
        found = found.replace("xlink:href=", "href=")
        found = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{picture.name}-", found)
        return re.sub(r' xmlns(:\w+)?="[^"]*"', "", found)

    text = re.sub(r"<[^>]*>", tag, text)
    box = re.search(r'viewBox="([^"]*)"', text)
    words = f'<title id="{picture.name}-title">{escape(picture.title)}</title>'
    words += f'<desc id="{picture.name}-words">{escape(picture.alt)}</desc>'
    start = (
        f'<svg class="plot" role="img" viewBox="{box.group(1) if box else "0 0 1 1"}"'
        f' aria-labelledby="{picture.name}-title {picture.name}-words">{words}'
    )
    text = start + text[text.index(">") + 1 :]
    return re.sub(r">\s*\n\s*<", ">\n<", text.strip())


def _raster(picture: Picture) -> str:
    sources = []
    for theme in (LIGHT, DARK):
        drawn = _save(picture, Palette(theme), "png")
        sources.append("data:image/png;base64," + base64.b64encode(drawn).decode())
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{sources[1]}">'
        f'<img class="plot" src="{sources[0]}" alt="{escape(picture.title)}. {escape(picture.alt)}"></picture>'
    )


def png(picture: Picture) -> bytes:
    """Give a picture as a PNG on a ground of its own, for a page of any colour."""
    return _save(picture, Palette(LIGHT), "png", LIGHT["surface"])


def figure_markup(picture: Picture, largest_svg: int = LARGEST_SVG) -> str:
    """Give a picture as a `<figure>` with its title, its drawing and its caption."""
    drawn = _save(picture, Palette(TOKENS), "svg").decode()
    drawing = _inline(drawn, picture) if len(drawn) <= largest_svg else _raster(picture)
    kind = "wide" if picture.width > HALF else "half"
    return (
        f'<figure id="{picture.name}" class="{kind}"><h2>{escape(picture.title)}</h2>\n{drawing}\n'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )
