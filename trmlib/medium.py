"""The Medium kit: the filled article as one folder to upload from.

Medium takes plain tags and pictures: no tables, no LaTeX, no embedded images. So tables and display equations become pictures (and
CSV), inline equations Unicode, and every picture is numbered in the article's order, with its caption and its alt text beside it."""

import html
import re
import shutil
import unicodedata
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import mistune
import numpy as np
import pandas as pd
from PIL import Image

from trmlib import compare, plots
from trmlib.errors import TrmError
from trmlib.experiments import sudoku_report
from trmlib.figures import known, note, waiting
from trmlib.runs import write_atomically
from trmlib.tables import shown

PLAIN = ("h1", "h2", "h3", "p", "strong", "em", "figure", "figcaption", "img", "pre", "ul", "ol", "li", "a")  # all that article.html holds
GIF_BYTES = 3_000_000
SIGNS = {
    "times": "×", "cdot": "·", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "equiv": "≡",
    "in": "∈", "to": "→", "infty": "∞", "sum": "Σ", "prod": "Π", "partial": "∂", "sqrt": "√", "ldots": "…", "mid": "|",
    **{name: name for name in ("log", "ln", "exp", "max", "min")},
}  # fmt: skip
SCRIPTS = {
    "^": dict(zip("0123456789+-=()nik", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵏ", strict=True)),
    "_": dict(zip("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True)),
}


def unicode(latex):
    r"""Inline LaTeX as Unicode: `\alpha x_i^2` → αxᵢ²; what Unicode has no sign for is an error."""

    def symbol(m):
        name = m[1]
        if name not in SIGNS:
            try:
                return unicodedata.lookup(
                    f"GREEK {'CAPITAL' if name[0].isupper() else 'SMALL'} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}"
                )
            except KeyError:
                raise TrmError(f"the inline equation ${latex}$ has no Unicode for \\{name}; make it a display equation, $$…$$") from None
        return SIGNS[name]

    def script(m):
        try:
            return "".join(SCRIPTS[m[1]][c] for c in m[2] or m[3])
        except KeyError as e:
            raise TrmError(
                f"the inline equation ${latex}$ has no Unicode for {m[1]}{e.args[0]}; make it a display equation, $$…$$"
            ) from None

    text = re.sub(r"([_^])(?:\{([^{}]*)\}|(\w))", script, latex)
    text = re.sub(r"\\([A-Za-z]+)", symbol, text)
    return re.sub(r"\\[,;: ]|[{}]", "", text).replace("-", "−")


def picture(fig, path):
    """Save a drawing that is no figure of a notebook."""
    fig.savefig(path, dpi=plots.WIDTH / fig.get_figwidth(), metadata={"Software": None})
    plt.close(fig)


def equation(latex, path, size=17):
    """Display LaTeX as PNG, drawn by matplotlib's mathtext; smaller where it would not fit."""
    fig = plt.figure(figsize=(7, 1), layout="none")
    try:
        drawn = fig.text(
            0.5, 0.5, "\n".join(f"${line.strip()}$" for line in latex.strip().splitlines()), ha="center", va="center", size=size
        )
        extent = drawn.get_window_extent()
    except ValueError as e:
        plt.close(fig)
        raise TrmError(f"matplotlib cannot draw the equation {' '.join(latex.split())!r}: {str(e).strip().splitlines()[-1]}") from None
    drawn.set_size(size * min(1, 0.94 * fig.bbox.width / extent.width))
    fig.set_figheight(extent.height / fig.dpi + 0.4)
    picture(fig, path)


def table(df, path):
    """A frame of strings as `path`.png and .csv."""
    fig, _ = plots.table_figure(df)
    picture(fig, path.with_suffix(".png"))
    write_atomically(path.with_suffix(".csv"), df.to_csv(index=False).encode())


def board(strip, title):
    """A Sudoku pass by pass (`sudoku_report.strips`) as the bytes of a GIF: the givens, then the answer after every pass."""
    read = lambda line: [0 if c == "." else int(c) for c in line]  # noqa: E731
    puzzle, target = read(strip["puzzle"]), read(strip["target"])
    passes = [puzzle, *map(read, strip["digits"])]
    last = next((i for i, digits in enumerate(passes) if digits == target), len(passes) - 1)
    frames = []
    for i, digits in enumerate(passes[: last + 1]):
        fig, ax = plt.subplots(figsize=(2.8, 3))
        confidence = strip["confidence"][i - 1] if i else np.zeros(len(puzzle))
        plots.board(digits, ax, puzzle, target, confidence, f"{title}: {f'after pass {i}' if i else 'the puzzle'}")
        drawn = BytesIO()
        fig.savefig(drawn, format="png", dpi=250)
        plt.close(fig)
        frames.append(Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    out = BytesIO()
    frames[0].save(
        out, "GIF", save_all=True, append_images=frames[1:], duration=[1500, *[700] * (len(frames) - 2), 4000][: len(frames)], loop=0
    )
    return out.getvalue()


def solved_board(store, profile="full"):
    """(GIF, caption, alt) of a Sudoku that the TRM's first seed solved, or None where no records hold one."""
    df, profile = shown(store, "sudoku", profile)
    strip = next((s for s in sudoku_report.strips(store, df, "TRM") if s["solved"]), None)
    if strip is None:
        return None
    rate = compare.scores(df, "TRM", sudoku_report.METRIC).mean()
    caption = (
        f"A Sudoku, pass by pass, chosen among the solved: of all held-out puzzles the model solves {rate:.1%}. "
        f"Black digits are given, orange ones wrong, darker ground is more confident ({compare.label(df, profile, ['TRM'])})."
    )
    return board(strip, "TRM"), caption, "Animation of a Sudoku board that fills pass by pass until every cell is right."


def plain(text):
    """HTML of an inline text → its text."""
    return html.unescape(re.sub(r"<[^>]*>", "", text))


class Kit(mistune.HTMLRenderer):
    """Markdown → the plain tags of PLAIN; every picture is written to `out` under its number. `items` lists them in order."""

    def __init__(self, figures, out, gif=None):
        super().__init__()
        self.figures, self.out, self.gif = Path(figures), out, gif
        self.notes, self.items, self.title, self.section, self.code = known(figures), [], "", "", 0

    def place(self, name, caption, alt):
        """Number a picture: (its path, its HTML)."""
        file = f"{len(self.items) + 1:02d}-{name}"
        self.items.append({"file": file, "caption": caption, "alt": alt})
        escaped = [html.escape(v, quote) for v, quote in ((alt, True), (caption, False))]
        return self.out / file, f'<figure><img src="{file}" alt="{escaped[0]}"><figcaption>{escaped[1]}</figcaption></figure>\n'

    def solved(self):
        """The GIF, once."""
        if self.gif is None:
            return ""
        (data, caption, alt), self.gif = self.gif, None
        if len(data) >= GIF_BYTES:
            raise TrmError(f"the solved-board GIF has {len(data):,} bytes; fewer than {GIF_BYTES:,} were expected: show fewer passes")
        path, text = self.place("solved-board.gif", caption, alt)
        write_atomically(path, data)
        return text

    def image(self, text, url, title=None):
        name = Path(url).stem
        about = note(name, self.notes)
        source = self.figures / f"{name}.png"
        if (width := Image.open(source).width) != plots.WIDTH:
            raise TrmError(f"{source} is {width} pixels wide; {plots.WIDTH} were expected: run `make reproduce`")
        path, figure = self.place(source.name, about["caption"], about["alt"])
        write_atomically(path, source.read_bytes())
        if (csv := source.with_suffix(".csv")).exists():
            write_atomically(path.with_suffix(".csv"), csv.read_bytes())
        return figure + (self.solved() if about["notebook"].startswith("05_") else "")

    def table_cell(self, text, align=None, head=False):
        return f"{plain(text)}\0"

    def table_row(self, text):
        return f"{text}\1"

    table_head = table_row

    def table_body(self, text):
        return text

    def table(self, text):
        head, *rows = [row.split("\0")[:-1] for row in text.split("\1")[:-1]]
        df = pd.DataFrame(rows, columns=head)
        path, figure = self.place("table.png", self.section, f"Table of {len(df)} rows with the columns {', '.join(head)}.")
        table(df, path)
        return figure

    def block_math(self, text):
        path, figure = self.place("equation.png", "", f"Equation: {' '.join(text.split())}")
        equation(text, path)
        return figure.replace("<figcaption></figcaption>", "")

    def inline_math(self, text):
        return html.escape(unicode(text), False)

    def heading(self, text, level, **attrs):
        self.section, level = plain(text), min(level, 3)
        self.title = self.title or self.section
        return f"<h{level}>{text}</h{level}>\n"

    def paragraph(self, text):
        return text if text.startswith("<figure>") else f"<p>{text}</p>\n"

    def block_code(self, code, info=None):
        self.code += 1
        return f"<pre>{html.escape(code.rstrip(), False)}</pre>\n"

    def link(self, text, url, title=None):
        return f'<a href="{html.escape(url)}">{text}</a>' if url.startswith("http") else text  # a path leads nowhere on Medium

    def list(self, text, ordered, **attrs):
        tag = "ol" if ordered else "ul"
        return f"<{tag}>\n{text}</{tag}>\n"

    def codespan(self, text):
        return html.escape(text, False)

    def linebreak(self):
        return " "

    def block_quote(self, text):
        return text

    def thematic_break(self):
        return ""


def kit(article, out, figures, gif=None):
    """Write the kit of a filled article (Markdown) into the folder `out`; returns the pictures in order, as dicts."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    plots.style()
    found, renderer = gif is not None, Kit(figures, out, gif)
    body = mistune.create_markdown(renderer=renderer, plugins=["table", "math"])(article) + renderer.solved()
    head = f'<head><meta charset="utf-8"><title>{html.escape(renderer.title)}</title></head>'
    write_atomically(out / "article.html", f'<!DOCTYPE html>\n<html lang="en">\n{head}\n<body>\n{body}</body>\n</html>\n'.encode())
    lines = [
        f"{i}. `{p['file']}`\n   - caption: {p['caption'] or 'none'}\n   - alt text: {p['alt']}" for i, p in enumerate(renderer.items, 1)
    ]
    write_atomically(out / "captions.md", "\n".join(["# Pictures, in the article's order", "", *lines, ""]).encode())
    write_atomically(out / "checklist.md", checklist(renderer, found).encode())
    return renderer.items


def checklist(kit, found):
    """What to do by hand, and what the kit lacks."""
    empty = [p["file"] for p in kit.items if waiting(p)]
    steps = [
        f"Open `article.html` in a browser, select all, copy, and paste into a new story. The title is “{kit.title}”.",
        f"Compare the {len(kit.items)} pictures with `captions.md`. Where one did not come along, upload it at its place: the numbers are the order.",
        "Give each picture its alt text (select it, “Alt text”) and its caption, both from `captions.md`.",
        *([f"Medium's import drops code: paste the {kit.code} code block(s) by hand."] if kit.code else []),
        *([f"Attach or link the CSV files that lie beside the {n} table(s)."] if (n := len(list(kit.out.glob('*.csv')))) else []),
        "Link the repository, its page of corrections and the site (`make site`).",
        "Say that WikiText is by the authors of Wikipedia, CC BY-SA 3.0 (`NOTICE.md`).",
        "Read the preview on a phone, and follow every link, before you publish.",
    ]  # fmt: skip
    lacks = [
        *([] if found else ["the solved-board GIF: no Sudoku that was solved pass by pass is recorded yet (chapter 05)"]),
        *(f"`{file}` is drawn without records: something it shows is still to be trained" for file in empty),
    ]
    done = [f"- [ ] {step}" for step in steps]
    missing = ["", "## What is missing", "", *(f"- {line}" for line in lacks)] if lacks else []
    return "\n".join(["# Before it is published", "", *done, *missing, ""])


def make(store, article, figures, out):
    """`make medium`: the folder `out` anew."""
    if not article.exists():
        raise TrmError(f"no {article}: run `make reproduce`, which fills the article")
    shutil.rmtree(out, ignore_errors=True)
    items = kit(article.read_text(), out, figures, solved_board(store))
    print(f"{out}: article.html and {len(items)} pictures; checklist.md says what to do with them")
