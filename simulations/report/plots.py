"""Drawing charts: as SVG that takes its colours from the page (light or dark), and as PNG.

matplotlib draws with fixed colours; in the SVG each of them is replaced by a variable of the page's style sheet.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from p2pnode.simulations.report.charts import Chart, Curve
from p2pnode.simulations.report.units import MINUTES_FROM_S, shown, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FOREGROUND", "LINES", "draw_png", "draw_svg"]

# Chosen by us: eight colours that stay apart for the colour-blind; page.css has the same for a dark page.
COLOURS = ("#0b62c4", "#c2410c", "#15803d", "#7c3aed", "#b0177a", "#0e7490", "#8a5a00", "#57606a")
FOREGROUND, LINES = "#1f2329", "#d1d7df"
_WIDTH, _HEIGHT = 6.4, 3.6  # inches of 72 points in the SVG, which the page scales
_PNG_DPI = 160
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a user's setting may hold dollar signs
    "axes.edgecolor": LINES,
    "axes.labelcolor": FOREGROUND,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "xtick.color": FOREGROUND,
    "ytick.color": FOREGROUND,
    "text.color": FOREGROUND,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
}
_LABEL_MAX = 60
_one_at_a_time = threading.Lock()  # matplotlib's style, and the filter of warnings, belong to the whole process
_STEPS_S = (6, 12, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800)


def draw_svg(chart: Chart) -> str:
    """Return an <svg> element to stand in a page: no ids in common with others, colours from the page's variables."""
    import matplotlib as mpl

    salt = hashlib.sha256(f"{chart.file}/{chart.title}".encode()).hexdigest()[:12]
    style: Any = {**_STYLE, "svg.hashsalt": salt}
    with _one_at_a_time, mpl.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its font lacks; the page's has them
        buffer = io.StringIO()
        _figure(chart).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), chart, salt)


def draw_png(chart: Chart) -> bytes:
    """Return a picture on white."""
    import matplotlib as mpl

    with _one_at_a_time, mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its font lacks
        buffer = io.BytesIO()
        figure = _figure(chart)
        figure.subplots_adjust(top=0.92)
        figure.suptitle(_short(chart.title), fontsize=12)
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, facecolor="white")
    return buffer.getvalue()


def _figure(chart: Chart) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    axes = figure.add_subplot()
    # Room for our longest tick ("1,234 ms") and the axis titles; matplotlib's own layout would take twice the time.
    figure.subplots_adjust(left=0.15, right=0.96, bottom=0.16, top=0.97)
    for number, curve in enumerate(chart.curves):
        _draw_curve(axes, curve, COLOURS[_colour_of(chart, number) % len(COLOURS)])
    _dress(axes, "x", chart.x_label, chart.x_name, log=chart.log_x)
    _dress(axes, "y", chart.y_label, chart.y_name, log=chart.log_y)
    if not chart.log_y:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if chart.y_name and _top(chart) <= 1 and shown(chart.y_name, 1.0) == "100 %":
        axes.set_ylim(0, 1.02)
    if len(chart.curves) > 1:
        axes.legend(loc="best")
    return figure


def _colour_of(chart: Chart, number: int) -> int:
    """A fit has the colour of what it is fitted to."""
    label = chart.curves[number].label
    for at, curve in enumerate(chart.curves):
        if label == f"fit: {curve.label}":
            return at
    return number


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    style = "--" if curve.dashed else "-"
    # matplotlib hides labels that begin with an underscore; names of users' samples may.
    label = "\u200b" + _short(curve.label)
    where = "steps-post" if curve.steps else "default"
    marker = "o" if curve.dots or len(curve.x) == 1 else ""
    axes.plot(curve.x, curve.y, style, color=colour, label=label, drawstyle=where, marker=marker, markersize=3.5)
    if curve.low and len(curve.x) > 1:
        step: Literal["post"] | None = "post" if curve.steps else None
        alpha = 0.08 if curve.dashed else 0.18
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=alpha, linewidth=0, step=step)
    elif curve.low:
        axes.vlines(curve.x, curve.low, curve.high, color=colour, alpha=0.5)


def _dress(axes: Axes, which: str, label: str, name: str, *, log: bool) -> None:
    """Label an axis and give its ticks the unit that the name tells."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
        if high < 1000 * low:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    step = 0.0 if log else _time_step(name, *(axes.get_xlim() if which == "x" else axes.get_ylim()))
    if step:
        axis.set_major_locator(MultipleLocator(step))
    in_hours = step >= 3600

    def tick(value: float, _position: object) -> str:
        if step:
            return f"{value / 3600:g} h" if in_hours else f"{value / 60:g} min"
        return shown(name, float(value), with_per=False)

    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_label_text(_short(label))
    axis.set_tick_params(length=0, which="both")


def _time_step(name: str, low: float, high: float) -> float:
    """Return the distance of ticks that are whole minutes or hours, once times are shown in those; else 0."""
    if unit(name) != ("s", "") or high < MINUTES_FROM_S:
        return 0
    return next((step for step in _STEPS_S if high - low <= 7 * step), 0)


def _top(chart: Chart) -> float:
    return max((y for curve in chart.curves for y in (*curve.y, *curve.high)), default=0.0)


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_MAX else text[: _LABEL_MAX - 1] + "\u2026"


def _for_page(svg: str, chart: Chart, salt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag.group()), svg)  # tags only: labels stay as they are
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    title = f'<title id="t{salt}">{escape(chart.title)}</title>'
    head, rest = svg.split(">", 1)
    return re.sub(r"\n\s*", "\n", f'{head} role="img" aria-labelledby="t{salt}">{title}{rest}')


def _tag_for_page(tag: str) -> str:
    # matplotlib gives groups the same names in every plot, and nothing refers to them.
    tag = re.sub(r'^<g id="[^"]*"(/?)>$', r"<g\1>", tag)
    if "style=" in tag:
        for number, colour in enumerate(COLOURS, 1):
            tag = tag.replace(colour, f"var(--c{number})")
        tag = tag.replace(FOREGROUND, "currentColor").replace(LINES, "var(--line)")
        tag = re.sub(r"font-family: [^;\"]*; ?", "", tag)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)  # a hundredth of a point is enough
