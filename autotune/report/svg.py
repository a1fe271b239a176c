"""Figures as SVG text for the page: its own font, and colours that follow the page from light to dark."""

import io
import re
import warnings

import matplotlib as mpl
from matplotlib.figure import Figure

INK, MUTED, LINE, BEFORE, AFTER, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", BEFORE: "before", AFTER: "after", BAD: "bad"}
"""Stand-ins that Matplotlib draws with, and the variables of the page's style that replace them."""

WIDTH_IN = 9.6

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def to_svg(figure: Figure, title: str) -> str:
    """An SVG element to put into a page: no prologue, no metadata, no fonts, no ids that two plots share."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # here, not in the browser
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d{1,5}"| font-family: [^;"]*;', "", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg
