"""Figures as files: which there are, which cell made each, and the same in other widths and formats.

A committed figure is a PNG of 1,400 pixels and an SVG. Anything else is drawn anew: the figure's notebook is executed from the
records and saves at that width, in that format. That is the only exact way: text and lines are laid out again, nothing is rescaled,
and no renderer of SVG joins the dependencies."""

import ast
import json
from difflib import get_close_matches
from pathlib import Path

from trmlib.build import ROOT, parameters_for, reproduce
from trmlib.errors import TrmError
from trmlib.pairs import choose
from trmlib.plots import COMMITTED, EMPTY, WIDTH
from trmlib.runs import write_atomically


def known(folder):
    """{name: caption, alt, notebook and records} of the figures in a folder."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(Path(folder).glob("*.json"))}


def note(name, notes):
    """What is known of a figure; an unknown name is an error that names the nearest."""
    if name not in notes:
        near = get_close_matches(name, notes, 3, 0.4) or list(notes)
        raise TrmError(f"unknown figure {name!r}; there are, among {len(notes)}: {', '.join(near) or 'none, run `make reproduce`'}")
    return notes[name]


def waiting(about):
    """Is a figure drawn without any records? Its caption says so (`compare.label`, or `plots.save` where nothing is drawn)."""
    return EMPTY in about["caption"]


def saved_by(source):
    """Names of the figures that a cell's code saves: the second argument of `save`, `plots.save` or `save_table`."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and len(n.args) > 1]
    names = [c.args[1] for c in calls if getattr(c.func, "attr", getattr(c.func, "id", "")) in ("save", "save_table")]
    return [n.value for n in names if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def export(names, formats, width, out, figures=ROOT / "figures", notebooks=ROOT / "notebooks", build=ROOT / "build" / "export"):
    """Copy figures to `out`, or draw them anew where they are not committed so. Returns the paths written."""
    notes, out = known(figures), Path(out)
    chapters = sorted({note(name, notes)["notebook"] for name in names})
    if anew := [kind for kind in formats if kind not in COMMITTED or (kind == "png" and width != WIDTH)]:
        sources = [py for chapter in chapters for py in choose(notebooks, chapter)]
        required = {"profile": "full", "figures": str((build / "figures").resolve())}
        environment = {"TRM_FIGURE_WIDTH": str(width), "TRM_FIGURE_FORMATS": ",".join(anew)}
        reproduce(sources, build, parameters_for(sources, required, {}, {}), 1, environment)
    paths = []
    for name in names:
        for kind in formats:
            drawn = (build / "figures" if kind in anew else Path(figures)) / f"{name}.{kind}"
            paths.append(out / drawn.name)
            write_atomically(paths[-1], drawn.read_bytes())
    return paths
