"""Explorers for JupyterLab, over kept checkpoints and records; nothing trains.

Each has a part that computes (plain values in, plain values out), a part that draws, and a function that connects
widgets to both. Only the last needs a kernel.
"""

from base64 import b64encode
from html import escape
from io import BytesIO
from textwrap import fill as wrapped

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import HTML

from trmlib import budget, checkpoints, compare, plots, solve
from trmlib.data import sudoku
from trmlib.data.text import MASK, UNK, question
from trmlib.errors import TrmError
from trmlib.evaluate import likeliest
from trmlib.experiments.masked_evaluations import SENTENCES
from trmlib.experiments.when_report import CHAPTERS
from trmlib.models.chunk import ChunkLM
from trmlib.probe import dependency, leaks
from trmlib.tables import shown

FILLED = ("masked-baseline", "masked-joint")


# ---------------------------------------------------------------- 1: fill the blanks


def fill(name, sentence, k=3):
    """`evaluate.likeliest` words of a kept model for every blank of a sentence."""
    model, spec, about = checkpoints.load(name)
    tokens, at = question(sentence, about["words"], spec.data.context)
    return likeliest(model, tokens, at, about["words"], k)


def draw_fill(found, title=""):
    """A table for each model, {name: `likeliest` words}: a row a pass, a column a blank."""
    heights = [len(passes) + 1 for passes in found.values()]
    fig, axes = plt.subplots(len(found), 1, figsize=(7, 0.9 + 0.42 * sum(heights)), squeeze=False, height_ratios=heights)
    for ax, (name, passes) in zip(axes[:, 0], found.items(), strict=True):
        cells = [[", ".join(f"{word} {p:.0%}" for word, p in blank) for blank in blanks] for blanks in passes]
        columns = [f"blank {b + 1}" for b in range(len(passes[0]))]
        rows = pd.DataFrame(cells, columns=columns)
        rows.insert(0, "", ["at first" if p == 0 else f"pass {p}" for p in range(len(passes))])
        plots.table(rows, ax)
        ax.set_title(name, fontsize=11, weight="bold")
    fig.suptitle(title, fontsize=10)
    return fig


def draw_words(found, k, title=""):
    """The same after pass k as bars: a row a model, a column a blank. A model without passes says the same throughout."""
    rows = {name: passes[min(k, len(passes) - 1)] for name, passes in found.items()}
    fig, axes = plt.subplots(len(rows), len(next(iter(rows.values()))), figsize=(5, 0.7 + 1.5 * len(rows)), squeeze=False)
    for i, (name, blanks) in enumerate(rows.items()):
        for j, words in enumerate(blanks):
            ax = axes[i, j]
            ax.barh([w for w, _ in words], [p for _, p in words], color=plots.COLOURS[i])
            ax.set(xlim=(0, 1), title=f"{name}, blank {j + 1}")
            ax.title.set_fontsize(10)
            ax.invert_yaxis()
    fig.suptitle(wrapped(title, 50), fontsize=10)
    return fig


def step_through_words(said):
    """A `stepper` over {sentence: {model: `likeliest` words}}, pass by pass."""
    steps = [(s, found, k) for s, found in said.items() for k in range(max(map(len, found.values())))]
    labels = [f"{s}: {'at first' if k == 0 else f'after pass {k}'}" for s, _, k in steps]
    return stepper((draw_words(found, k, s) for s, found, k in steps), labels)


def fill_the_blanks():
    """Type a sentence; see what each model says of its blanks, pass by pass."""
    import ipywidgets as w

    sentence = w.Text(SENTENCES[-1], layout=w.Layout(width="90%"), continuous_update=False)
    return connected(lambda text: draw_fill({n: fill(n, text) for n in FILLED}, text), text=sentence)


# ---------------------------------------------------------------- 2: watch it think


def draw_thinking(puzzle, runs, step, columns=3):
    """Boards of several starts side by side after a step; runs: [steps of `solve.solve`, …]."""
    columns = min(columns, len(runs))
    down = -(-len(runs) // columns)
    fig, axes = plt.subplots(down, columns, figsize=(7 * columns / 3, 2.7 * down), squeeze=False)
    for ax in axes.flat[len(runs) :]:
        ax.set_axis_off()
    for i, (ax, steps) in enumerate(zip(axes.flat, runs, strict=False)):
        s = steps[step - 1]
        own = "own start" if i == 0 else f"random start {i}"
        title = f"{own}\n{s['sure']:.0%} sure, " + ("solved" if s["legal"] else "rules broken")
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


def from_starts(puzzle, steps, starts):
    """[steps of `solve.solve`, …] from the kept model's own start and from that many random ones."""
    return [solve.solve(puzzle, steps, start=s) for s in (None, *range(1, starts + 1))]


def disagreement(steps=8, starts=3):
    """(rounds of deductions, puzzle, `from_starts`) of the easiest generated puzzle that is solved from some starts only, or None."""
    for rounds, puzzle in puzzles_by_difficulty().items():
        runs = from_starts(puzzle, steps, starts)
        if 0 < sum(run[-1]["legal"] for run in runs) < len(runs):
            return rounds, puzzle, runs


def step_through_starts(rounds, puzzle, runs):
    """A `stepper` over a `disagreement`, pass by pass."""
    passes, about = range(1, len(runs[0]) + 1), f"{rounds} rounds of deductions"
    solved = {k: sum(run[k - 1]["legal"] for run in runs) for k in passes}
    labels = [f"{about}: pass {k} of {len(passes)}, {n} of {len(runs)} starts solved" for k, n in solved.items()]
    return stepper((draw_thinking(puzzle, runs, k, 2) for k in passes), labels)


def step_through_board(strip, what):
    """A `stepper` over a recorded board (`sudoku_report.strips`), pass by pass; `what` says which it is."""
    puzzle, target, *passes = ([0 if c == "." else int(c) for c in line] for line in (strip["puzzle"], strip["target"], *strip["digits"]))

    def draw(i):
        fig, ax = plt.subplots(figsize=(3.6, 3.6))
        plots.board(passes[i], ax, puzzle, target, strip["confidence"][i], f"{what}, after pass {i + 1}")
        return fig

    labels = [f"{what}: pass {i + 1} of {len(passes)}, {sure:.0%} sure" for i, sure in enumerate(strip["sure"])]
    return stepper(map(draw, range(len(passes))), labels)


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
            seen[key] = from_starts(puzzle, most, starts)
        return draw_thinking(puzzle, seen[key], step)

    return w.VBox([play, connected(show, level=level, pasted=pasted, step=step)])


# ---------------------------------------------------------------- 3: budget

COMPUTE = "inference MFLOP an example"
AXES = {COMPUTE: ("flops", 1e6), "blocks one after the other": ("depth", 1)}  # what it says → (column, unit)


def draw_budget(panels, x=COMPUTE, columns=2):
    """Score against what it costs at test time: {title: rows of `budget.curves`}, a panel each."""
    column, unit = AXES[x]
    down = -(-len(panels) // columns)
    fig, axes = plt.subplots(down, columns, figsize=(7 if columns > 1 else 5, 4.2 * down), squeeze=False)
    for ax, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        ax.set_title(title, fontsize=10)
        rows = rows[rows[column] > 0]
        if not len(rows):
            plots.pending(ax, "curves")
            continue
        lines = {line: g[["at", column, "mean", "low", "high"]].itertuples(index=False) for line, g in rows.groupby("line", sort=False)}
        plots.ways({line: list(points) for line, points in lines.items()}, ax, unit)
        plots.plain_log(ax, "x", (1, 2, 5) if rows[column].max() < 50 * rows[column].min() else (1,))
        if (rows.score == "perplexity").all():
            plots.plain_log(ax)
        ax.set_xlabel(x)
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return fig


def step_through_budgets(table):
    """A `stepper` over the tasks and scores of `budget.curves`."""
    both = [(r.task, r.score) for r in table[["task", "score"]].drop_duplicates().itertuples()]
    titles = [f"{task}: {score}" for task, score in both]
    figures = (draw_budget({title: budget.chosen(table, *of)}, columns=1) for title, of in zip(titles, both, strict=True))
    return stepper(figures, titles, "task")


def weigh_compute(table):
    """Score against test-time compute; task, score, axis and lines to choose. `table` is of `budget.curves`."""
    import ipywidgets as w

    task, x = w.Dropdown(options=list(dict.fromkeys(table.task)), description="task"), w.Dropdown(options=list(AXES), description="across")
    score, lines = w.Dropdown(description="up"), w.SelectMultiple(description="lines", rows=6)

    def known(*_):
        of = table[table.task == task.value]
        score.options, lines.options = (list(dict.fromkeys(of[column])) for column in ("score", "line"))

    task.observe(known, "value")
    known()

    def show(task, score, lines, x):
        return draw_budget({f"{task}: {score}": budget.chosen(table, task, score, lines)}, x, 1)

    return connected(show, task=task, score=score, lines=lines, x=x)


# ---------------------------------------------------------------- 4: is it leaking?


PROBED = {  # experiment → (arm, how it was probed), as far as recorded
    "shakespeare": (("target", "as trained"), ("baseline", "as trained"), ("mask", "as trained")),
    "masked": (("baseline", "masked"), ("joint", "masked"), ("joint", "words left in")),
    "autoregressive": (("baseline, no shift", "as trained"), ("TRM, no shift", "as trained"), ("TRM", "as trained")),
}


def probed(store, profile):
    """({title: (recorded dependency matrix, mean over seeds, may it depend on earlier slots?)}, {chapter: (records, profile)})."""
    found, used = {}, {}
    for experiment, wanted in PROBED.items():
        df, of = shown(store, experiment, profile)
        matrices = compare.leak_matrices(store, df)
        for arm, how in wanted:
            if how in matrices.get(arm, {}):
                causal = df[df.arm == arm].record.iloc[0]["spec"]["model"].get("causal", False)
                name = CHAPTERS[experiment]
                found[f"{name}: {arm}" + ("" if how in ("as trained", "masked") else f", {how}")] = matrices[arm][how], causal
                used[name] = df, of
    return found, used


def verdict(matrix, causal):
    """What the probe says of a model."""
    return "LEAKS" if leaks(matrix, "autoregressive" if causal else "parallel") else "no leak"


def draw_leaks(found, columns=3):
    """Dependency matrices with what they say: {title: (matrix, causal)}."""
    down = -(-max(1, len(found)) // columns)
    fig, axes = plt.subplots(down, columns, figsize=(7, 3.1 * down) if columns > 1 else (4.4, 3.8), squeeze=False)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax, (title, of) in zip(axes.flat, found.items(), strict=False):
        plots.matrix(of[0], ax, f"{wrapped(title, 66 // columns)}\n{verdict(*of)}")
        ax.title.set_fontsize(9)
    if not found:
        plots.pending(axes[0, 0], "the dependency probe")
    return fig


def step_through_leaks(found):
    """A `stepper` over models."""
    return stepper(
        (draw_leaks({title: of}, 1) for title, of in found.items()), [f"{t}: {verdict(*of)}" for t, of in found.items()], "model"
    )


def leak(name, shown=False, windows=64):
    """(dependency matrix of a kept model on random words or characters, may it depend on earlier slots?); with `shown` it is
    shown what it is asked for: its blanks left in, or its slots started at their targets."""
    model, spec, about = checkpoints.load(name)
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, ChunkLM):
        vocab = len(about["words"])
        tokens = torch.randint(vocab, (windows, model.context + model.chunk), generator=generator)
        passes = spec.model.T * spec.train.n_sup

        def predict(targets):
            return model(torch.cat([tokens[:, : model.context], targets], 1), start=targets if shown else None, passes=passes)[0]

        return dependency(predict, tokens[:, model.context :], vocab), spec.model.causal
    if not hasattr(spec.data, "blanks"):
        raise TrmError(f"checkpoint {name!r} predicts no words; choose one of {', '.join(probes())}")
    tokens = torch.randint(UNK, spec.data.vocab, (windows, spec.data.context), generator=generator)
    at = torch.tensor([[4, 9]]).expand(windows, 2)
    partners = at.flip(1).unsqueeze(-1)

    def predict(targets):
        return model(tokens.scatter(1, at, targets if shown else torch.full_like(targets, MASK)), at, partners)

    return dependency(predict, tokens.gather(1, at), spec.data.vocab), False


def probes():
    """Names of the kept models that predict words or characters."""
    return [n for n in checkpoints.names() if n.startswith(("shakespeare", "masked"))]


def is_it_leaking():
    """The dependency probe on a model of your choice."""
    import ipywidgets as w

    names = probes()
    model = w.Dropdown(options=sorted(names, key=lambda n: not n.endswith("target")), description="model")
    shown = w.ToggleButtons(options=[("as trained", False), ("shown what it is asked for", True)])
    return connected(lambda model, shown: draw_leaks({model: leak(model, shown)}, 1), model=model, shown=shown)


# ---------------------------------------------------------------- widgets


def connected(show, **controls):
    """Controls above the figure of `show(**values)`, or the one line that says what is wrong."""
    import ipywidgets as w

    out = w.HTML()  # no Output: nbclient answers its messages on the socket it waits on, and may then wait for ever (nbclient #312)

    def update(*_):
        values = {k: c.value for k, c in controls.items()}
        try:
            out.value = image(show(**values), ", ".join(f"{k}: {v}" for k, v in values.items()))
        except TrmError as e:
            out.value = escape(str(e))

    for c in controls.values():
        c.observe(update, "value")
    update()
    return w.VBox([*controls.values(), out])


def image(fig, alt, display="block"):
    """A figure as an HTML image that holds its own data; closes it."""
    buffer = BytesIO()
    fig.savefig(buffer, dpi=110, metadata={"Software": None})
    plt.close(fig)
    src = f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
    return f'<img src="{src}" alt="{escape(alt)}" style="max-width:100%;display:{display}">'


def stepper(figures, labels, what="pass"):
    """HTML of a slider over figures, self-contained: it needs no kernel and no network. Takes the figures one by one and closes them."""
    shown = [image(fig, label, "none" if i else "block") for i, (fig, label) in enumerate(zip(figures, labels, strict=True))]
    move = "const p=this.parentNode,v=+this.value;p.querySelectorAll('img').forEach((e,i)=>e.style.display=i==v?'block':'none');p.querySelector('output').value=p.querySelectorAll('img')[v].alt"
    return HTML(
        f'<div>{"".join(shown)}<input type="range" min="0" max="{len(shown) - 1}" value="0" aria-label="{what}" oninput="{move}"> <output>{escape(labels[0])}</output></div>'
    )


def beside(*steppers):
    """HTML of steppers side by side, below one another where there is no room."""
    parts = "".join(f'<div style="flex:1 1 20em;max-width:25em">{s.data}</div>' for s in steppers)
    return HTML(f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{parts}</div>')
