"""Explorers for JupyterLab, over kept checkpoints and records; nothing trains.

Each has a part that computes (plain values in, plain values out), a part that draws, and a function that connects
widgets to both. Only the last needs a kernel.
"""

from base64 import b64encode
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, display

from trmlib import checkpoints, plots, solve
from trmlib.data import sudoku
from trmlib.data.text import MASK, UNK, question
from trmlib.errors import TrmError
from trmlib.evaluate import likeliest
from trmlib.experiments.masked_evaluations import SENTENCES
from trmlib.probe import dependency

FILLED = ("masked-baseline", "masked-joint")


# ---------------------------------------------------------------- 1: fill the blanks


def fill(name, sentence, k=3):
    """`evaluate.likeliest` words of a kept model for every blank of a sentence."""
    model, spec, about = checkpoints.load(name)
    tokens, at = question(sentence, about["words"], spec.data.context)
    return likeliest(model, tokens, at, about["words"], k)


def draw_fill(found, title=""):
    """A table for each model, {name: `likeliest` words}: a row a pass, a column a blank."""
    fig, axes = plt.subplots(len(found), 1, figsize=(7, 0.8 + 0.42 * sum(len(v) + 1 for v in found.values())), squeeze=False)
    for ax, (name, passes) in zip(axes[:, 0], found.items(), strict=True):
        cells = [[", ".join(f"{word} {p:.0%}" for word, p in blank) for blank in blanks] for blanks in passes]
        columns = [f"blank {b + 1}" for b in range(len(passes[0]))]
        rows = pd.DataFrame(cells, columns=columns)
        rows.insert(0, "", ["at first" if p == 0 else f"pass {p}" for p in range(len(passes))])
        plots.table(rows, ax)
        ax.set_title(name, fontsize=10)
    fig.suptitle(title, fontsize=10)
    return fig


def fill_the_blanks():
    """Type a sentence; see what each model says of its blanks, pass by pass."""
    import ipywidgets as w

    sentence = w.Text(SENTENCES[0], layout=w.Layout(width="90%"), continuous_update=False)
    return connected(lambda text: draw_fill({n: fill(n, text) for n in FILLED}, text), text=sentence)


# ---------------------------------------------------------------- 2: watch it think


def draw_thinking(puzzle, runs, step):
    """Boards of several starts side by side after a step; runs: [steps of `solve.solve`, …]."""
    fig, axes = plt.subplots(1, len(runs), figsize=(max(3.2, 7 * len(runs) / 3), 3.2), squeeze=False)
    for i, (ax, steps) in enumerate(zip(axes[0], runs, strict=True)):
        s = steps[step - 1]
        own = "own start" if i == 0 else f"random start {i}"
        title = f"{own}: {s['sure']:.0%} sure, " + ("solved" if s["legal"] else "rules broken")
        plots.board(s["digits"], ax, puzzle, confidence=s["confidence"], title=title)
    return fig


def puzzles_by_difficulty(count=200):
    """{rounds of deductions: a puzzle of that many}, generated, none of them trained on: easy ones, and harder than any trained on."""
    found = {}
    for corpus in ("sparse-9", "easy-9"):
        part = sudoku.load(sudoku.SudokuConfig(corpus, 1, 1, count)).test
        rounds = part.rounds().max(1).values
        found |= {int(r): part.x[rounds == r][0].numpy() for r in rounds.unique()}
    return dict(sorted(found.items()))


def watch_it_think(most=16, starts=2):
    """Paste a puzzle or pick one by difficulty; a slider and a play button go over the passes; random starts stand beside."""
    import ipywidgets as w

    known = puzzles_by_difficulty()
    level = w.Dropdown(options=[(f"{r} rounds of deductions", r) for r in known], description="puzzle")
    pasted = w.Text(placeholder="or 81 characters", continuous_update=False)
    play, step = w.Play(min=1, max=most, interval=700), w.IntSlider(1, 1, most, description="pass")
    w.jslink((play, "value"), (step, "value"))
    seen = {}

    def show(level, pasted, step):
        puzzle = solve.boards_of(pasted)[0][1] if pasted.strip() else known[level]
        key = tuple(puzzle)
        if key not in seen:
            seen[key] = [solve.solve(puzzle, most, start=s) for s in (None, *range(1, starts + 1))]
        return draw_thinking(puzzle, seen[key], step)

    return w.VBox([play, connected(show, level=level, pasted=pasted, step=step)])


# ---------------------------------------------------------------- 3: budget

AXES = {  # what it says → (column, unit)
    "inference MFLOP an example": ("inference_flops", 1e6), "serial depth": ("serial_depth", 1), "training PFLOP": ("train_flops", 1e15),
    "thousand parameters": ("parameters", 1e3),
}  # fmt: skip
SCORES = {"perplexity": "nll_b", "accuracy": "accuracy_b"}


def budget_frame(df, x, score):
    """A row an arm: mean of the axis and of the score over seeds (perplexity for an NLL), from a frame of records."""
    if SCORES[score] not in df:
        return pd.DataFrame(columns=["arm", x, score, "seeds"])
    g = df[df.status == "recorded"].groupby("arm", sort=False)
    value = np.exp(g.nll_b.mean()) if score == "perplexity" else g[SCORES[score]].mean()
    column, unit = AXES[x]
    return pd.DataFrame({x: g[column].mean() / unit, score: value, "seeds": g.size()}).reset_index()


def draw_budget(table, x, score, arms=None):
    """Arms as labelled points."""
    fig, ax = plt.subplots()
    if not len(table):
        return plots.pending(ax, score).figure
    table = table[table.arm.isin(arms)] if arms else table
    ax.scatter(table[x], table[score], color=plots.COLOURS[0])
    plots.plain_log(ax, "x")
    ax.set_xlabel(x)
    ax.set_ylabel(score)
    plots.labels(ax, table[x], table[score], table.arm)
    return fig


def budget(frames):
    """Accuracy or perplexity against compute, arms and axes to choose; frames: {chapter: frame of records}."""
    import ipywidgets as w

    chapter = w.Dropdown(options=[n for n, df in frames.items() if len(df)], description="chapter")
    x, score = w.Dropdown(options=list(AXES), description="across"), w.Dropdown(options=list(SCORES), description="up")
    arms = w.SelectMultiple(description="arms", rows=6)

    def known(*_):
        arms.options = list(dict.fromkeys(frames[chapter.value].arm)) if chapter.value else []

    chapter.observe(known, "value")
    known()
    show = lambda chapter, x, score, arms: draw_budget(budget_frame(frames[chapter], x, score), x, score, list(arms))  # noqa: E731
    return connected(show, chapter=chapter, x=x, score=score, arms=arms)


# ---------------------------------------------------------------- 4: is it leaking?


def leak(name, hidden=True, windows=64):
    """The dependency matrix of a kept model of blanks on random words, its blanks masked or, wrongly, left in."""
    model, spec, _ = checkpoints.load(name)
    if not hasattr(spec.data, "blanks"):
        raise TrmError(f"checkpoint {name!r} does not fill blanks; choose one of {', '.join(FILLED)}")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(UNK, spec.data.vocab, (windows, spec.data.context), generator=generator)
    at = torch.tensor([[4, 9]]).expand(windows, 2)
    partners = at.flip(1).unsqueeze(-1)

    def predict(targets):
        return model(tokens.scatter(1, at, torch.full_like(targets, MASK) if hidden else targets), at, partners)

    return dependency(predict, tokens.gather(1, at), spec.data.vocab)


def is_it_leaking():
    """The dependency probe on a model of your choice."""
    import ipywidgets as w

    model = w.Dropdown(options=[n for n in checkpoints.names() if n.startswith("masked")], description="model")
    hidden = w.ToggleButtons(options=[("blanks masked", True), ("words left in", False)])

    def show(model, hidden):
        fig, ax = plt.subplots(figsize=(3.6, 3.4))
        return plots.matrix(leak(model, hidden), ax, f"{model}").figure

    return connected(show, model=model, hidden=hidden)


# ---------------------------------------------------------------- widgets


def connected(show, **controls):
    """Controls above an output that shows the figure of `show(**values)`, or the one line that says what is wrong."""
    import ipywidgets as w

    out = w.Output()

    def update(*_):
        with out:
            out.clear_output(wait=True)
            try:
                fig = show(**{k: c.value for k, c in controls.items()})
            except TrmError as e:
                print(e)
                return
            display(fig)
            plt.close(fig)

    for c in controls.values():
        c.observe(update, "value")
    update()
    return w.VBox([*controls.values(), out])


def stepper(figures, labels):
    """HTML of a slider over figures, self-contained: it needs no kernel and no network. Closes the figures."""
    images = []
    for fig in figures:
        buffer = BytesIO()
        fig.savefig(buffer, dpi=110, metadata={"Software": None})
        images.append(f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}")
        plt.close(fig)
    shown = "".join(
        f'<img src="{src}" alt="{label}" style="max-width:100%;display:{"none" if i else "block"}">'
        for i, (src, label) in enumerate(zip(images, labels, strict=True))
    )
    move = "const p=this.parentNode,v=+this.value;p.querySelectorAll('img').forEach((e,i)=>e.style.display=i==v?'block':'none');p.querySelector('output').value=p.querySelectorAll('img')[v].alt"
    return HTML(
        f'<div>{shown}<input type="range" min="0" max="{len(images) - 1}" value="0" aria-label="pass" oninput="{move}"> <output>{labels[0]}</output></div>'
    )
