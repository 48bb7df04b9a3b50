"""The look of the figures, and what makes their SVG accessible and fit for inlining."""

import re
from html import escape

INK = "#111213"  # stands for the colour of the page's text, which differs between light and dark
FAINT = "#80808066"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "\\\\", "xx", "--", "||")  # dots would make the file ten times as large
OUTCOME = {"holds": ("#56B4E9", ""), "fails": ("#D55E00", "xxx"), "not applicable": ("#80808033", "//")}
WIDTH = 10.0  # inches, of every figure, so that all text has one size on the page
WIDE = 10  # a range of perplexities that asks for a log scale
STYLE = {
    "svg.hashsalt": "certified-pruning",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "hatch.color": INK,
}


def accessible(svg: str, name: str, title: str, description: str) -> str:
    """The bare element with a title, a description, the page's ink, and ids that no other figure shares."""
    name = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg).replace(INK, "currentColor")
    told = f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-desc">{escape(description)}</desc>'
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
    return re.sub(r"<svg ([^>]*)>", lambda found: f"{opening}{found[1]}>\n{told}", svg, count=1)
