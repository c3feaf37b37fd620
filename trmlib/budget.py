"""Score against test-time compute, chapter by chapter: records in, one tidy frame out. Nothing is run: what k passes cost is counted on
models without weights."""

import numpy as np
import pandas as pd

from trmlib import compare
from trmlib.experiments import grid, sudoku_report, when_report
from trmlib.flops import cost
from trmlib.plots import COLOURS
from trmlib.tables import by_pass, shown

COLUMNS = ("task", "score", "line", "at", "flops", "depth", "mean", "low", "high", "seeds")
LANGUAGE = {
    "masked": ("perplexity", "accuracy"),
    "shakespeare": ("perplexity",),
    "autoregressive": ("perplexity",),
    "capacity": ("perplexity",),
}
SCORES = {"perplexity": "nll_b", "accuracy": "accuracy_b"}
LINES = {  # what is drawn where nobody chose: task → lines
    "two blanks": ("baseline", "4-blocks", "1-pass", "joint"),
    "Shakespeare": ("baseline", "parallel", "mask"),
    "left to right": ("baseline", "6-blocks", "TRM", "8-passes"),
    "hops": ("2 passes", "8 passes", "8 passes, random", "2 passes, within reach"),
    "capacity": ("standard 0.1M", "causal 0.1M", "TRM 0.1M", "annealed 0.1M"),
    "Sudoku": ("random starts, more steps", "random starts, more starts"),
}


def several(n, what, ending="s"):
    """ "1 pass", "2 passes"."""
    return f"{n} {what}{ending * (n != 1)}"


def specs(profile):
    """{hash: spec} of a profile."""
    return {r.spec.hash: r.spec for r in grid(profile)}


def over_passes(df, known, arm, values, passes, **more):
    """Rows of an arm: `values` (seeds, points) after so many `passes` (points,), a band over seeds."""
    spec = known[df[df.arm == arm].record.iloc[0]["hash"]]
    bands = zip(*compare.stats.band(np.asarray(values, float)), strict=True)
    return [
        dict(zip(COLUMNS[2:], (arm, several(k, "pass", "es"), *cost(spec, int(k)), *band, len(values)), strict=True)) | more
        for k, band in zip(passes, bands, strict=True)
    ]


def language(df, known, task, scores):
    """Perplexity or accuracy of the read-out after each pass."""
    rows = []
    for score in scores:
        long = by_pass(df, SCORES[score])
        for arm in dict.fromkeys(df.arm):
            table = long[long.arm == arm].pivot(index="seed", columns="pass", values=SCORES[score]).dropna()
            if len(table) > 1:
                rows += over_passes(df, known, arm, table.to_numpy(), table.columns, task=task, score=score)
    out = pd.DataFrame(rows, columns=COLUMNS)
    of = out.score == "perplexity"
    out.loc[of, ["mean", "low", "high"]] = np.exp(out.loc[of, ["mean", "low", "high"]].astype(float))
    return out


def hops(store, df, known):
    """Accuracy after each pass, on as many hops as were trained and on more."""
    df, rows = when_report.longer(store, df), []
    some = lambda n: [p for p in range(n) if p <= 16 or p % 4 == 0]  # noqa: E731, enough to see it
    for arm in dict.fromkeys(df.arm):
        cube = when_report.cube(df, arm)
        if cube is None:
            continue
        for kind, score in {"trained": "accuracy, hops as trained", "beyond": "accuracy, more hops than trained"}.items():
            if len(at := when_report.kinds(df, arm)[kind]):
                passes = some(cube.shape[1])
                rows += over_passes(df, known, arm, cube[:, passes][:, :, at].mean(2), passes, task="hops", score=score)
    return pd.DataFrame(rows, columns=COLUMNS)


def three_ways(found, df, task, score):
    """Nats recovered by passes, samples and filling one by one (`when_report.recovered`), a row a model."""
    rows = []
    for way, points in found.items():
        for arm, flops, *band in points:
            record = df[df.arm == arm].record.iloc[0]
            depth = record["serial_depth"] * (2 if way == "filling" else 1)
            rows.append((task, score, way, arm, flops, depth, *band, df[df.arm == arm].seed.nunique()))
    return pd.DataFrame(rows, columns=COLUMNS)


def sudoku(store, df):
    """Puzzles solved by more steps from one start, and by more starts among which the halting head chooses."""
    rows = []
    for arm in dict.fromkeys(df.arm):
        b = sudoku_report.budgets(store, df, arm)
        if b is None:
            continue
        trained, record = sudoku_report.trained_steps(df, arm), df[df.arm == arm].record.iloc[0]
        a_step = record["serial_depth"] / trained
        fixed = record["spec"]["model"].get("start", "fixed") == "fixed"  # then its own start is what more steps go on from
        own = sudoku_report.longer(store, df, (arm,), puzzles=b["puzzles"]).get(arm) if fixed else None
        for way, points in sudoku_report.ways(b, trained, sudoku_report.flops(df, arm), own).items():
            for _, flops, *band in points:
                n = round(flops / sudoku_report.flops(df, arm))  # steps, over all starts
                at, depth = (several(n, "step"), n) if way == "more steps" else (several(n // trained, "start"), trained)
                rows.append(
                    ("Sudoku", "puzzles solved", f"{arm}, {way}", at, flops, depth * a_step, *band, df[df.arm == arm].seed.nunique())
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def curves(store, profile):
    """(frame, {task: (records, profile)}): a row a point of a curve, of every chapter that has records; of complete arms only."""
    parts, used = [], {}
    for experiment, task in when_report.CHAPTERS.items():
        df, of = shown(store, experiment, profile)
        df = df[[compare.complete(df, arm) for arm in df.arm]] if len(df) else df
        if not len(df):
            continue
        used[task], known = (df, of), specs(of)
        if experiment == "hops":
            parts.append(hops(store, df, known))
        elif experiment == "sudoku":
            parts.append(sudoku(store, df))
        elif experiment == "dial":
            for i, dose in enumerate(when_report.language(df).groups):
                parts.append(three_ways(when_report.recovered(df, i), df, task, f"nats recovered of {dose:.2f}"))
        else:  # "(3 blanks)", "(chunk 4)", …: other questions, whose scores do not share an axis
            own = df if experiment == "capacity" else df[~df.arm.str.contains(" (", regex=False)]
            parts.append(language(own, known, task, LANGUAGE[experiment]))
        if experiment == "masked":
            for where in ("neighbours", "distant"):
                parts.append(three_ways(when_report.language_coordination(store, df, where), df, task, f"nats recovered, {where}"))
    parts = [p for p in parts if len(p)]
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)), used


def chosen(table, task, score, lines=()):
    """The rows of a task and score, of the lines named; where none is named, of LINES as far as they are there, else of all. No more lines
    than there are colours."""
    rows = table[(table.task == task) & (table.score == score)]
    lines = lines or [line for line in LINES.get(task, ()) if line in set(rows.line)]
    return rows[rows.line.isin(list(lines or dict.fromkeys(rows.line))[: len(COLOURS)])]


def said(panels):
    """What the curves of {title: rows} say, as a Markdown list: first, last and best point of every line with several."""
    lines = []
    for rows in panels.values():
        for line, g in rows.sort_values("flops", kind="stable").groupby("line", sort=False):
            if len(g) > 1:
                task, score = g[["task", "score"]].iloc[0]
                best = g.loc[g["mean"].idxmin() if score == "perplexity" else g["mean"].idxmax()]
                show = lambda r: f"{r['mean']:.{1 if score == 'perplexity' else 2}f} ({r['at']})"  # noqa: B023, E731
                lines.append(f"- {task}, *{line}*, {score}: {show(g.iloc[0])} → {show(g.iloc[-1])}, best **{show(best)}**.")
    return "\n".join(lines) or "Nothing is recorded yet."
