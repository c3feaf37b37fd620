"""Figures: one style, functions (data, ax) → ax, no training inside, and of statistics only the false-discovery rate of a forest.

A figure is 1,400 pixels wide, readable on a phone and in the colours of the Okabe–Ito palette, which
colour-blind readers can tell apart. `save` writes PNG, SVG and a JSON with caption, alt text and the
digest of the records shown; a rebuild from the same records changes no byte.
"""

import json
import os
import re
import textwrap
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from trmlib import stats
from trmlib.runs import write_atomically

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
OWN = {
    "baseline": 0,
    "mask": 1,
    "TRM": 1,
    "joint": 1,
    "parallel": 2,
    "0.04M": 0,
    "0.1M": 1,
    "0.3M": 2,
    "1M": 3,
}  # the same colour in every figure
WIDTH, COMMITTED = 1400, ("png", "svg")  # pixels of a PNG, and the formats that are committed
FITS = 78  # characters of 10 points beside one another
LATER, EMPTY = "not recorded yet", "no records yet"  # what an empty panel says, and the caption of a figure without any other
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STYLE = {
    "figure.figsize": (7, 4), "figure.dpi": 100, "savefig.dpi": 200, "figure.constrained_layout.use": True, "font.family": "DejaVu Sans",
    "font.size": 11, "axes.titlesize": 12, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e6e6e6", "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.8, "lines.markersize": 6,
    "axes.prop_cycle": plt.cycler(color=COLOURS), "svg.hashsalt": "trmlib", "svg.fonttype": "path",
}  # fmt: skip


def style():
    """Use the report's style from here on."""
    plt.rcdefaults()
    plt.rcParams.update(STYLE)


def save(fig, name, folder, caption, alt, records, notebook):
    """Write `name`.png, .svg and .json into `folder`; `records` is the digest of what is shown. Where nothing is, the caption's last
    parenthesis, which names profile and seeds, says so. `trm export` asks for other formats and widths through the environment;
    `make reproduce` never does."""
    caption = re.sub(r"(\s\([^()]*\)\.?)?$", f" ({EMPTY})", caption, count=1) if empty(fig) and EMPTY not in caption else caption
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = f"{notebook}, records {records}"
    metadata = {  # what names the records, and neither a date nor a version
        "png": {"Title": name, "Source": source, "Software": None},
        "svg": {"Title": name, "Source": source, "Date": None, "Creator": None},
        "pdf": {"Title": name, "Subject": source, "CreationDate": None, "Creator": None, "Producer": None},
    }
    width = int(os.environ.get("TRM_FIGURE_WIDTH", WIDTH))
    for kind in os.environ.get("TRM_FIGURE_FORMATS", ",".join(COMMITTED)).split(","):
        path = folder / f"{name}.{kind}"
        fig.savefig(path, dpi=width / fig.get_figwidth(), metadata=metadata[kind])
        if kind == "svg":
            path.write_text(name_clips(path.read_text(), name))
    note = {"name": name, "caption": caption, "alt": alt, "notebook": notebook, "records": records}
    write_atomically(folder / f"{name}.json", (json.dumps(note, indent=1, ensure_ascii=False) + "\n").encode())
    return fig


def name_clips(svg, name):
    """The SVG with its clip paths named in order. Matplotlib names them by a hash of unrounded positions, whose last bit is another on another CPU."""
    found = {clip: f"{name}-clip-{i}" for i, clip in enumerate(re.findall(r'<clipPath id="(\w+)"', svg), 1)}
    return re.sub(r'(<clipPath id="|url\(#)(\w+)', lambda m: m[1] + found.get(m[2], m[2]), svg)


def pending(ax, what):
    """An empty panel that says what is missing."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, f"{what}\n{LATER}", ha="center", va="center", transform=ax.transAxes, color="#666666")
    return ax


def empty(fig):
    """Does a figure hold nothing but panels that are `pending`?"""
    said = [t.get_text().endswith(LATER) for ax in fig.axes for t in ax.texts]
    return bool(said) and all(said) and not any(ax.has_data() or ax.tables for ax in fig.axes)


def looks(names):
    """{name: place among COLOURS and MARKERS}: its own (`OWN`), or, in order, one that is left."""
    own = {}
    for name in names:
        if OWN.get(name) not in (None, *own.values()):
            own[name] = OWN[name]
    left = cycle(i for i in range(len(COLOURS)) if i not in own.values())
    return {name: own[name] if name in own else next(left) for name in names}


def band_lines(bands, ax, x="step", label=None, front=()):
    """Lines with interval bands: {name: (x values, mean, low, high)}; those in `front` over the others and stronger, the last the least, so that
    lines which lie on one another are all seen."""
    places = looks(bands)
    for name, (xs, mean, low, high) in bands.items():
        strong = {"linewidth": 2.2 * (len(front) - front.index(name)), "zorder": 3} if name in front else {}
        (line,) = ax.plot(xs, mean, label=label(name) if label else name, color=COLOURS[places[name]], **strong)
        ax.fill_between(xs, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    ax.set_xlabel(x)
    ax.legend()
    return ax


def forest(rows, ax, zone=None, xlabel="", percent=True):
    """Estimates with intervals, one row each: dicts with `name`, `effect` (or None: pending), in % or in points of a share. Filled are
    those that hold at a false-discovery rate of 10 % over all rows; a pending one counts as p = 1."""
    found = [row["effect"] for row in rows if row["effect"] is not None]
    if not found:
        return pending(ax, "all of these comparisons")
    q = dict(zip(map(id, found), stats.benjamini_hochberg([e.p for e in found] + [1.0] * (len(rows) - len(found))), strict=False))
    for y, row in enumerate(rows):
        e = row["effect"]
        if e is None:
            ax.text(0.99, y, "pending", va="center", ha="right", color="#888888", fontsize=9, transform=ax.get_yaxis_transform())
            continue
        ax.plot([100 * e.low, 100 * e.high], [y, y], color=COLOURS[0], linewidth=2.4)
        ax.plot(100 * e.estimate, y, "o", color=COLOURS[0], markerfacecolor=COLOURS[0] if q[id(e)] <= 0.1 else "white")
    if zone:
        ax.axvspan(-100 * zone, 100 * zone, color="#999999", alpha=0.15, linewidth=0)
    ax.axvline(0, color="#444444", linewidth=1)
    low, high = ax.get_xlim()
    reach = max(abs(low), abs(high))  # zero and some room on either side are seen, and no more of a side that holds nothing
    ax.set_xlim(min(1.05 * low, -0.1 * reach, -3), max(1.05 * high, 0.1 * reach, 3))
    ax.set_yticks(range(len(rows)), [r["name"] for r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(xlabel + "\nhollow: not shown at a false-discovery rate of 10 %")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))
    ax.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %" if percent else ""))
    return ax


def matrix(values, ax, title="", labels=None):
    """A small heat map with its numbers written in: the dependency probe's matrix."""
    values = np.asarray(values)
    labels = labels or [f"{i + 1}" for i in range(len(values))]
    ax.imshow(values, vmin=0, vmax=1, cmap="Blues")
    ax.grid(False)
    for (i, j), v in np.ndenumerate(values):
        ax.text(j, i, "0" if v == 0 else f"{v:.2f}", ha="center", va="center", color="white" if v > 0.6 else "black", fontsize=10)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xlabel("target changed at slot")
    ax.set_ylabel("prediction at slot")
    ax.set_title(title, fontsize=11)
    return ax


def heat(values, ax, title="", marks=()):
    """A heat map of shares in 0 … 1, rows from below; `marks` are values of y at which a line is drawn."""
    image = ax.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto", interpolation="nearest")
    ax.grid(False)
    for y in marks:
        ax.axhline(y, color="white", linestyle="--", linewidth=1.2)
    ax.set_title(title, fontsize=10)
    return image


def board(digits, ax, puzzle, target=None, confidence=None, title=""):
    """A Sudoku board of N² digits (0: blank): givens black, the model's digits on a colour that says how sure it is, wrong ones red."""
    n = int(len(digits) ** 0.5)
    height, width = {4: (2, 2), 6: (2, 3), 9: (3, 3)}[n]
    sure = np.where(np.asarray(puzzle) > 0, np.nan, 1.0 if confidence is None else confidence)
    ax.imshow(np.reshape(sure, (n, n)), vmin=0, vmax=2.5, cmap="Blues")
    ax.grid(False)
    for i, d in enumerate(digits):
        given, wrong = puzzle[i] > 0, target is not None and d != target[i]
        colour = "black" if given else COLOURS[1] if wrong else "#08306b"  # dark on light blue
        if d:
            ax.text(
                i % n, i // n, str(d), ha="center", va="center", color=colour, fontsize=8, weight="bold" if given or wrong else "normal"
            )
    for k in range(n + 1):
        ax.axhline(k - 0.5, color="#444444", linewidth=1.4 if k % height == 0 else 0.3)
        ax.axvline(k - 0.5, color="#444444", linewidth=1.4 if k % width == 0 else 0.3)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    return ax


def lines(series, ax, xlabel="", ylabel=""):
    """Marked lines {name: (x, y)} or {name: (x, y, low, high)}, told apart by colour and marker."""
    places = looks(series)
    for name, (x, y, *interval) in series.items():
        colour = COLOURS[places[name]]
        ax.plot(x, y, marker=MARKERS[places[name]], label=name, color=colour)
        if interval:
            ax.fill_between(x, *interval, color=colour, alpha=0.15, linewidth=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend()
    return ax


def points(series, ax, aside=0.0, first=0):
    """Marked points with their intervals, {name: (x, mean, low, high)}, each series `aside` of the last; colours from number `first`."""
    for i, (name, (x, *values)) in enumerate(series.items()):
        mean, low, high = np.array(values, float)
        x = np.asarray(x) + aside * (i - (len(series) - 1) / 2)
        style = {"marker": MARKERS[i], "color": COLOURS[(first + i) % len(COLOURS)], "markersize": 5, "linewidth": 1.4}
        ax.errorbar(x, mean, [mean - low, high - mean], label=name, **style)
    return ax


def ways(found, ax, unit=1e6):
    """What was reached against compute in MFLOP (or another `unit`), with intervals: {way: [(arm, FLOPs, mean, low, high)]}. The points of
    "filling" are models, no series."""
    for i, (way, points) in enumerate(found.items()):
        flops, mean, low, high = np.array([p[1:] for p in points], float).T
        line = "" if way == "filling" else "-"
        ax.errorbar(flops / unit, mean, [mean - low, high - mean], marker=MARKERS[i], color=COLOURS[i], label=way, linestyle=line)
    return ax


def bars(long, ax, x, y, hue, xlabel=""):
    """Grouped horizontal bars of the mean over rows, with the spread of the seeds (standard deviation) as whiskers."""
    sns.barplot(long, x=x, y=y, hue=hue, ax=ax, palette=[COLOURS[i] for i in (7, 2, 1)], errorbar="sd", err_kws={"linewidth": 1})
    ax.set_xlabel(xlabel)
    ax.set_ylabel("")
    ax.legend(title="", loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    return ax


def plain_log(ax, which="y", ticks=(1, 1.2, 1.5, 2, 3, 5, 7)):
    """A logarithmic axis whose ticks are plain numbers: `ticks` times the powers of ten."""
    ax.set(**{f"{which}scale": "log"})
    axis = getattr(ax, f"{which}axis")
    axis.set_major_locator(LogLocator(10, subs=ticks))
    axis.set_major_formatter("{x:.10g}")
    axis.set_minor_locator(NullLocator())
    return ax


def doubling(ax, ticks, names=None, **text):
    """An x axis on which each doubling is as wide as the last, with a tick at each of `ticks`."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, ticks if names is None else names, **text)
    ax.xaxis.set_minor_locator(NullLocator())
    return ax


def tuning(found, ax):
    """Perplexity against the learning rate, a line a model (`compare.tuning`)."""
    if not found:
        return pending(ax, "learning rates")
    lines(found, ax, "learning rate", "perplexity, part A")
    ax.set_xscale("log")
    if legend := ax.get_legend():  # beside the lines: several models leave it no room among them
        legend.remove()
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return plain_log(ax)


def labels(ax, x, y, texts, fontsize=8):
    """Labels of points, right above each, moved up until none lies on another; with a hair line to their point where they moved."""
    ax.figure.canvas.draw()  # the layout decides where points lie
    width, taken = ax.get_window_extent().x1 / ax.figure.dpi * 72, []
    for xi, yi, text in sorted(zip(x, y, texts, strict=True)):
        left, low = ax.transData.transform((xi, yi)) / ax.figure.dpi * 72 + (0, 13)  # points
        left = min(left, width - 0.55 * fontsize * len(text))
        start = low
        while any(abs(low - b) < 1.25 * fontsize and left < r and le < left + 0.55 * fontsize * len(text) for le, r, b in taken):
            low += 1.3 * fontsize
        taken.append((left, left + 0.55 * fontsize * len(text), low))
        at = ax.transData.inverted().transform((left / 72 * ax.figure.dpi, low / 72 * ax.figure.dpi))
        line = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6} if low > start else None
        ax.annotate(text, (xi, yi), xytext=at, fontsize=fontsize, arrowprops=line)
    return ax


def tasks(df, ax, ticks=(1, 2, 4, 8, 16), top=None, room=0.5):
    """Tasks over what they need: a frame with `number`, `depth` (0: none, NaN: not known), `coordination` (NaN: not measured, then on a
    strip below), `trained` and `thinking` (gains; NaN: not tested), `unit`, `thin` and `loses` (bool). The area of a ring is the gain from trained
    depth, of a disc that from thinking time, of a cross what that loses; broken rings are thin evidence. Tasks at one place stand side by side."""
    unknown, depth = 0.25, df.depth.to_numpy(float)
    x = np.log2(np.where(np.isnan(depth), unknown, np.maximum(depth, 0.5)))
    y = df.coordination.to_numpy(float, copy=True)
    top = (np.nanmax(y, initial=1) if top is None else top) + room
    strip = np.isnan(y)
    y[strip] = -0.75
    for _ in range(20):  # move those apart that lie on one another
        for i, j in np.argwhere(np.tri(len(x), k=-1, dtype=bool)):
            if abs(y[i] - y[j]) < 0.3 and (gap := abs(x[i] - x[j])) < 0.5:
                x[i] += (0.5 - gap) * (1 if x[i] >= x[j] else -1)
    area = lambda gain: 40 + 1500 * np.clip(np.nan_to_num(gain), 0, 1)  # noqa: E731
    for xi, yi, r in zip(x, y, df.itertuples(), strict=True):
        colour = COLOURS[0] if r.unit == "points" else COLOURS[1]
        if r.loses:
            ax.scatter(xi, yi, area(-r.thinking), color=colour, marker="x", linewidths=2.4, zorder=5)
        elif r.thinking == r.thinking:
            ax.scatter(xi, yi, area(r.thinking), color=colour, linewidths=0, alpha=0.85, zorder=3)
        ax.scatter(
            xi, yi, area(r.trained), facecolors="none", edgecolors=colour, linewidths=1.6, linestyles="--" if r.thin else "-", zorder=4
        )
        up = 3 + (max(area(r.trained), area(abs(r.thinking))) / np.pi) ** 0.5
        ax.annotate(str(r.number), (xi, yi), (0, up), textcoords="offset points", ha="center", fontsize=11, weight="bold", zorder=5)
    if strip.any():
        ax.axhspan(-1.2, -0.42, color="#eeeeee", linewidth=0, zorder=0)
    names = (["not known"] if np.isnan(depth).any() else []) + ["none", *map(str, ticks)]
    at = ([unknown] if np.isnan(depth).any() else []) + [0.5, *ticks]
    ax.set_xticks(np.log2(at), names)
    ax.set_xlim(np.log2(at[0]) - 0.6, max(np.log2(at[-1]), x.max(initial=0)) + 0.5)
    ax.set_ylim(-1.2 if strip.any() else -0.4, top)
    steps = np.arange(0, top, 0.5)
    ax.set_yticks([*([-0.81] if strip.any() else []), *steps], [*(["not\nmeasured"] if strip.any() else []), *(f"{v:.1f}" for v in steps)])
    ax.grid(axis="x")
    return ax


def cards(entries, ax, width=74, sizes=(11, 11, 9.5)):
    """Short texts one below the other: each entry is (title, text, note), broken at `width` characters of the second size."""
    ax.set_axis_off()
    lines = []
    for entry in entries:
        for i, (part, size) in enumerate(zip(entry, sizes, strict=True)):
            broken = textwrap.wrap(part, int(width * sizes[1] / size * (0.92 if i == 0 else 1)))
            lines += [(line, i, size, 0.55 if i == 2 and n == len(broken) - 1 else 0) for n, line in enumerate(broken)]
    total = sum(1 + gap for *_, gap in lines)
    y = 1.0
    for line, i, size, gap in lines:
        style = {"weight": "bold"} if i == 0 else {"color": "#666666"} if i == 2 else {}
        ax.text(0, y, line, fontsize=size, va="top", transform=ax.transAxes, **style)
        y -= (1 + gap) / total
    return total


def wrapped(df, fits=FITS):
    """A frame of strings whose columns hold no more than about `fits` characters together: the widest are broken first, none within a word
    or an interval."""
    whole = lambda v: re.sub(r" (?=%)|(?<=,) (?=[^\[]*\])", "\u00a0", str(v))  # noqa: E731
    lines = {name: [whole(v) for v in (name, *df[name])] for name in df}
    width = {name: max(map(len, texts)) for name, texts in lines.items()}
    least = {name: max(len(w) for text in texts for w in re.split("[ \n]", text)) for name, texts in lines.items()}
    while sum(width.values()) + 2 * len(width) > fits and (broad := [name for name in width if width[name] > least[name]]):
        width[max(broad, key=width.get)] -= 1
    columns = [["\n".join(textwrap.wrap(v, width[name])) for v in texts] for name, texts in lines.items()]
    return pd.DataFrame([list(row) for row in zip(*(c[1:] for c in columns), strict=True)], columns=[c[0] for c in columns])


def lines_of(df):
    """Lines of text of each row of a frame of strings, that of the column names first."""
    return [max(str(v).count("\n") + 1 for v in row) for row in (df.columns, *df.values)]


def table_figure(df, fontsize=10):
    """A figure of a frame of strings, as high as it needs: (figure, axes)."""
    df = wrapped(df)
    fig, ax = plt.subplots(figsize=(7, 0.4 + sum(0.12 + 0.2 * n for n in lines_of(df))))
    return fig, table(df, ax, fontsize)


def table(df, ax, fontsize=10):
    """A frame of strings drawn as a table over the whole width, its widest columns broken until all fit; smaller if that is not enough."""
    ax.set_axis_off()
    fits = round(FITS * 10 / fontsize)
    df = wrapped(df, fits)
    width = [max(len(line) for v in (name, *df.iloc[:, i]) for line in v.split("\n")) + 2 for i, name in enumerate(df.columns)]
    fontsize = min(fontsize, fontsize * fits / sum(width))
    drawn = ax.table(
        cellText=df.values, colLabels=list(df.columns), bbox=(0, 0, 1, 1), cellLoc="right", colLoc="right", edges="horizontal",
        colWidths=[w / sum(width) for w in width],
    )  # fmt: skip
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(fontsize)
    high = [0.12 + 0.2 * n for n in lines_of(df)]
    for (row, col), cell in drawn.get_celld().items():
        cell.set_height(high[row] / sum(high))
        cell.set_edgecolor("#cccccc")
        cell.get_text().set_linespacing(1.1)
        if row == 0:
            cell.get_text().set_weight("bold")
        if col == 0:
            cell.get_text().set_ha("left")
            cell._loc = "left"
    return ax
