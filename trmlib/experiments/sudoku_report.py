"""What chapter 05 shows: records → tidy frames and verdicts. No training, no plotting."""

import math

import numpy as np
import pandas as pd

from trmlib import stats
from trmlib.compare import arm_rows, change, complete, effect, enough, evaluation_frame, scores
from trmlib.data.sudoku import BANDS, band
from trmlib.experiments import grid
from trmlib.stats import Effect
from trmlib.stats import band as interval

# What the write-up (document 004 of the sources) and the paper (arXiv 2510.04871, its tables 1 to 3) say; shares of Sudoku-Extreme.
CLAIMED = {
    "TRM": 0.874, "attention": 0.747, "no EMA": 0.799, "one-step gradient": 0.565, "single latent": 0.719, "4 layers": 0.795,
    "longer": (0.87, 0.96), "halting": 2, "halting_of": 16,
}  # fmt: skip
METRIC = "accuracy_b"
PRIMARY = [  # the comparisons fixed beforehand; Holm-corrected together: (arm, rival, what it separates)
    ("TRM", "no deep supervision", "several supervised steps or one"),
    ("TRM", "one-step gradient", "gradient through the whole last recursion or its last step"),
    ("TRM", "single latent", "an answer and a latent or one state"),
    ("TRM", "no EMA", "averaged weights or the last"),
    ("TRM", "4 layers", "two layers or four at half the updates"),
    ("TRM", "attention", "mixing by an MLP or by attention"),
    ("random starts", "TRM", "starts drawn anew or fixed"),
    ("half the examples", "TRM", "half of the examples start at noise, as in the path-independence paper"),
    ("T ± 2", "TRM", "the number of recursions drawn anew or fixed"),
    ("N_sup ± 4", "TRM", "the number of supervision steps drawn anew or fixed"),
]
RULES = {
    "confidence": "the halting head's favourite", "puzzle vote": "the most frequent board", "cell vote": "the most frequent digits",
    "residual": "the calmest state", "any": "any of them (ceiling)",
}  # fmt: skip


def arms(df, profile="full"):
    """A row an arm (`compare.arm_rows`), with its difference from the TRM of its own width."""

    def more(arm, g):
        rival = "TRM" + arm[arm.find(" (") :] if " (" in arm else "TRM"
        e = effect(df, arm, rival, METRIC) if arm != rival else None
        return {"accuracy": g[METRIC].mean(), "cells": g.cells_b.mean(), "effect": e}

    return arm_rows(df, "sudoku", more, profile)


def ablations(df, profile="full"):
    """Rows for a forest: every arm of the TRM's width against the TRM."""
    names = dict.fromkeys(r.arm for r in grid(profile) if r.spec.experiment == "sudoku")
    return [{"name": a, "effect": effect(df, a, "TRM", METRIC)} for a in names if a != "TRM" and "(d=" not in a]


def by_step(df, names, metric=METRIC):
    """{arm: (supervision steps, mean, low, high)} of a share after each step."""
    out = {}
    for arm in names:
        rows = [r["detail"]["by_step"][metric] for r in df[(df.arm == arm) & (df.status == "recorded")].record] if len(df) else []
        if len(rows) >= enough(df):
            out[arm] = (np.arange(1, len(rows[0]) + 1), *interval(np.array(rows)))
    return out


def halting_steps(df, arm="TRM"):
    """(Effect of the mean supervision steps a puzzle takes over the whole training, of the last quarter alone, at most): how long the
    halting head keeps a puzzle, each curve point weighted alike. None before all seeds."""
    if not complete(df, arm):
        return None
    g = df[(df.arm == arm) & (df.status == "recorded")]
    rows = [[v for v in r["curve"]["halting_steps"] if v is not None] for r in g.record]
    whole, late = (np.array([np.mean(row[int(share * len(row)) :]) for row in rows]) for share in (0, 0.75))
    most = g.record.iloc[0]["spec"]["model"].get("n_sup", 16)
    return stats.paired(whole, np.zeros(len(whole))), stats.paired(late, np.zeros(len(late))), most


# ---------------------------------------------------------------- more steps or more starts


def flops(df, arm):
    """FLOPs of one supervision step on one puzzle."""
    r = df[df.arm == arm].record.iloc[0]
    return r["inference_flops"] / r["spec"]["model"].get("n_sup", 16)


def budgets(store, df, arm):
    """{"steps": [...], "starts": [...], rule: accuracies (seeds, steps, starts), NaN where not measured, "one": (seeds, steps)} of an
    arm, or None before all seeds."""
    rows = [r for (a, _), r in sorted(evaluation_frame(store, df, "budget").items()) if a == arm]
    if len(rows) < enough(df):
        return None
    return {k: rows[0][k] if k in ("steps", "starts") else np.array([r[k] for r in rows], float) for k in rows[0]}


def trained_steps(df, arm):
    return df[df.arm == arm].record.iloc[0]["spec"]["model"].get("n_sup", 16)


def best_of(b, steps):
    """{rule: (starts, mean, low, high)} at a number of supervision steps."""
    i = b["steps"].index(steps)
    out = {}
    for rule in RULES:
        values = b[rule][:, i]
        ok = np.isfinite(values).all(0)
        out[rule] = (np.array(b["starts"])[ok], *interval(values[:, ok]))
    return out


def ways(b, steps, per_step):
    """{way: [(arm, FLOPs a puzzle, mean, low, high)]} for `plots.ways`: one start and ever more steps, or `steps` steps and ever more
    starts of which the halting head chooses."""
    longer = [("", s * per_step, *(float(v[0]) for v in interval(b["one"][:, [i]]))) for i, s in enumerate(b["steps"])]
    wide = [("", steps * k * per_step, m, low, high) for k, m, low, high in zip(*best_of(b, steps)["confidence"], strict=True)]
    return {"more steps": longer, "more starts": wide}


def gains(b, steps):
    """What more compute brings to a model that thinks for `steps` steps: Effects in shares, paired by seed. {name: Effect or None}."""
    one, sure = b["one"], b["confidence"]
    i, k = b["steps"].index(steps), len(b["starts"]) - 1
    k = max(c for c in range(k + 1) if np.isfinite(sure[:, i, c]).all())
    found = {f"{b['starts'][k]} starts, same steps": stats.paired(sure[:, i, k], one[:, i])}
    for times in (4, 16):
        if steps * times in b["steps"]:
            j = b["steps"].index(steps * times)
            found[f"{times} times the steps"] = stats.paired(one[:, j], one[:, i])
            if times in b["starts"] and np.isfinite(sure[:, i, b["starts"].index(times)]).all():
                found[f"{times} times the steps rather than {times} starts"] = stats.paired(one[:, j], sure[:, i, b["starts"].index(times)])
    return found


def singles(store, df, name, arm):
    """The results of a single-run evaluation of an arm, in the order of its seeds; nothing before all are there."""
    rows = [r for (a, _), r in sorted(evaluation_frame(store, df, name).items()) if a == arm]
    return rows if len(df) and len(rows) >= enough(df) else []


def longer(store, df, names):
    """{arm: (steps, mean, low, high)}: accuracy of ever more steps from the model's own start."""
    found = {arm: singles(store, df, "longer", arm) for arm in names}
    return {arm: (np.array(rows[0]["steps"]), *interval(np.array([r["accuracy"] for r in rows]))) for arm, rows in found.items() if rows}


def longer_gain(store, df, arm="TRM"):
    """(most steps, Effect of them over the trained number) from an arm's own start; (None, None) before all seeds."""
    rows = singles(store, df, "longer", arm)
    if not rows:
        return None, None
    at = rows[0]["steps"].index(trained_steps(df, arm))
    return rows[0]["steps"][-1], stats.paired(*(np.array([r["accuracy"][i] for r in rows]) for i in (-1, at)))


def harder(store, df, arm="TRM"):
    """By rounds of deduction needed: (rounds, steps, accuracy (rounds, steps) over seeds, rounds that 99 in 100 puzzles trained on
    stay within, Effect of the most steps over the trained number on puzzles that need more). None before all seeds."""
    rows = singles(store, df, "harder", arm)
    if not rows:
        return None
    first, cube = rows[0], np.array([r["accuracy"] for r in rows])  # (seeds, rounds, steps)
    rounds, steps, weight = (np.array(first[k]) for k in ("rounds", "steps", "puzzles"))
    beyond = rounds > first["trained"]
    accuracy = np.average(cube[:, beyond], axis=1, weights=weight[beyond])  # (seeds, steps)
    trained = accuracy[:, steps <= trained_steps(df, arm)][:, -1]
    return rounds, steps, cube.mean(0), first["trained"], stats.paired(accuracy[:, -1], trained)


def noise(store, df, arm):
    """{"σ = …": (steps, mean, low, high)}: accuracy with noise added between steps."""
    rows = singles(store, df, "noise", arm)
    if not rows:
        return {}
    return {f"σ = {s}": (np.array(rows[0]["steps"]), *interval(np.array([r[s] for r in rows]))) for s in rows[0] if s != "steps"}


# ---------------------------------------------------------------- what a step does


def calibration(store, df, arm):
    """A row a bin of the halting head's probability, all steps and seeds together: puzzles, said, solved; and the expected
    calibration error. (frame, error), or None."""
    rows = singles(store, df, "thinking", arm)
    if not rows:
        return None
    points = [
        (i, n, p, s)
        for r in rows
        for c in r["calibration"]
        for i, (n, p, s) in enumerate(zip(c["count"], c["said"], c["solved"], strict=True))
        if n
    ]
    t = pd.DataFrame(points, columns=["bin", "puzzles", "said", "solved"])
    t[["said", "solved"]] = t[["said", "solved"]].mul(t.puzzles, axis=0)
    t = t.groupby("bin").sum()
    t[["said", "solved"]] = t[["said", "solved"]].div(t.puzzles, axis=0)
    return t.reset_index(), float((t.puzzles * (t.said - t.solved).abs()).sum() / t.puzzles.sum())


def order(store, df, arm):
    """(steps, rounds): share of cells that are right after a step, by the round of deductions in which they fall, mean over seeds."""
    rows = singles(store, df, "thinking", arm)
    width = min((len(r["by_round"][0]) for r in rows), default=0)
    return np.mean([[step[:width] for step in r["by_round"]] for r in rows], 0) if rows else None


def movement(store, df, arm):
    """Frames of a step: {"share of blanks that change": …, "movement of y, solved": …, "…, unsolved": …} → (steps, mean, low, high)."""
    rows = singles(store, df, "thinking", arm)
    if not rows:
        return {}
    out = {"changed": (np.arange(2, 2 + len(rows[0]["changed"])), *interval(np.array([r["changed"] for r in rows])))}
    for kind in ("solved", "unsolved"):
        values = np.array([r["residual"][kind] for r in rows], float)
        values = values[np.isfinite(values).all(1)]
        if len(values) > 1:
            out[kind] = (np.arange(1, values.shape[1] + 1), *interval(values))
    return out


def difficulty(store, df, arm):
    """A row for each number of deduction rounds that a puzzle needs: puzzles, share solved, mean first step that solved it."""
    rows = [d for r in singles(store, df, "thinking", arm) for d in r["difficulty"]]
    if not rows:
        return pd.DataFrame(columns=["rounds", "puzzles", "solved", "first"])
    t = pd.DataFrame(rows)
    t["first"] = t["first"].astype(float)
    return t.groupby("rounds").agg(puzzles=("puzzles", "mean"), solved=("solved", "mean"), first=("first", "mean")).reset_index()


def by_rating(df, arm):
    """A row a rating band: puzzles, share solved after the trained steps, mean first step that solved them."""
    g = df[(df.arm == arm) & (df.status == "recorded")]
    rows = []
    for r in g.record:
        p = {k: np.array(v) for k, v in r["detail"]["by_puzzle"].items()}
        rows += [{"rating": name, "puzzles": int(of.sum()), "solved": p["solved"][of].mean(), "first": pd.Series(p["first"][of & (p["first"] > 0)]).mean()}
                 for i, name in enumerate(BANDS) if (of := band(p["rating"]) == i).any()]  # fmt: skip
    return pd.DataFrame(rows).groupby("rating", sort=False).mean().reset_index() if rows else pd.DataFrame()


def strips(store, df, arm):
    """Filmstrips of all seeds: the solved boards first, of these the ones that took longest."""

    def steps(strip):
        return strip["digits"].index(strip["target"]) if strip["solved"] and strip["target"] in strip["digits"] else -1

    return sorted(
        (s for r in singles(store, df, "thinking", arm) for s in r["strips"]), key=lambda s: (s["solved"], steps(s)), reverse=True
    )


# ---------------------------------------------------------------- path independence


def alignments(store, df, form="other"):
    """Frame (arm, seed, y, z, prediction, accuracy): asymptotic alignment and accuracy of every run that has both."""
    rows = []
    for (arm, seed), r in sorted(evaluation_frame(store, df, "alignment").items()):
        accuracy = df[(df.arm == arm) & (df.seed == seed)][METRIC].iloc[0]
        rows.append({"arm": arm, "seed": seed, **{k: v["alignment"] for k, v in r[form].items()}, "accuracy": accuracy})
    table = pd.DataFrame(rows, columns=["arm", "seed", "y", "z", "prediction", "accuracy"])
    return table[table.groupby("arm").seed.transform("nunique") >= enough(df)] if len(table) else table


def correlations(table):
    """{y, z, prediction: Effect}: correlation of alignment with accuracy *within* a configuration (both centred on their arm), with
    Fisher's interval; an arm costs a degree of freedom. Empty where too little is recorded."""
    n, groups = len(table), table.arm.nunique() if len(table) else 0
    free = n - groups - 2
    if free < 2:
        return {}
    centred = table.drop(columns="seed").groupby("arm").transform(lambda v: v - v.mean())
    out = {}
    for name in ("y", "z", "prediction"):
        r = centred[name].corr(centred.accuracy)
        if not math.isfinite(r):
            continue
        z, half = math.atanh(min(max(r, -0.999999), 0.999999)), 1.959964 / math.sqrt(free)
        p = math.erfc(abs(z) * math.sqrt(free / 2))
        out[name] = Effect(r, math.tanh(z - half), math.tanh(z + half), p, n, 0.95)
    return out


# ---------------------------------------------------------------- the write-up's observations


def observations(store, df):
    """What the write-up (004) observed, measured again: a row an observation, `measured` in words, a reading by rule and the `effect` that it
    rests on; what has no records reads "open"."""
    rows = []

    def row(claim, measured=None, reading="open", effect=None):
        rows.append({"observation": claim, "measured": measured or "not recorded yet", "reading": reading, "effect": effect})

    def signed(e, sign, yes="seen", no="the opposite"):
        return yes if e.low * sign > 0 and e.high * sign > 0 else no if e.low * sign < 0 and e.high * sign < 0 else "inconclusive"

    h = halting_steps(df)
    claim = f"fewer than {CLAIMED['halting']} supervision steps a puzzle in training, of {CLAIMED['halting_of']}"
    row(claim, h and f"{h[0].estimate:.1f} [{h[0].low:.1f}, {h[0].high:.1f}] of {h[2]} over the training, {h[1].estimate:.1f} at its end",
        "open" if h is None else "seen" if h[0].high < CLAIMED["halting"] else "not seen" if h[0].low > CLAIMED["halting"] else "inconclusive", h and h[0])  # fmt: skip
    b = budgets(store, df, "random starts")
    found = gains(b, trained_steps(df, "random starts")) if b else {}
    for claim, part in {
        "more supervision steps at test time raise accuracy": "16 times the steps",
        "random starts chosen by confidence bring a gain": "starts, same steps",
        "steps pay more than starts": "rather than 4",
    }.items():
        e = next((e for name, e in found.items() if name.endswith(part) or part in name), None)
        row(claim, e and change(e, METRIC), signed(e, 1) if e else "open", e)
    if b:
        i, j = (
            b["steps"].index(trained_steps(df, "random starts")),
            max(k for k, s in enumerate(b["starts"]) if np.isfinite(b["confidence"][:, -2, k]).all()),
        )
        early, late = ((b["confidence"][:, k, j] - b["one"][:, k]) for k in (i, len(b["steps"]) - 2))
        e = stats.paired(late, early)
        row("methods converge at large budgets", f"the gain of {b['starts'][j]} starts changes by {change(e, METRIC)}", signed(e, -1), e)
    else:
        row("methods converge at large budgets")
    found = more_of_starts(b, trained_steps(df, "random starts")) if b else dict.fromkeys(MORE_OF_STARTS)
    for claim, e in found.items():
        row(claim, e and change(e, METRIC), signed(e, 1) if e else "open", e)
    table = alignments(store, df, "own")
    trm = table[table.arm == "TRM"]
    e = stats.paired(trm.z.to_numpy(), trm.y.to_numpy()) if len(trm) > 1 else None
    row("z is more path independent than y", e and f"alignment of z less that of y: {e.text()}", signed(e, 1) if e else "open", e)
    found = correlations(table)
    e = found.get("prediction")
    row("path independence goes with accuracy", e and f"within configurations r = {e.text(digits=2)}", signed(e, 1) if e else "open", e)
    e = effect(df, "random starts", "TRM", METRIC)
    row("random starts lower accuracy", e and change(e, METRIC), signed(e, -1) if e else "open", e)
    other = table[table.arm == "random starts"]
    seeds = sorted(set(trm.seed) & set(other.seed))
    e = stats.paired(*(t.set_index("seed").prediction[seeds].to_numpy() for t in (other, trm))) if len(seeds) > 1 else None
    row("random starts lower path independence", e and f"alignment of predictions: {e.text()}", signed(e, -1) if e else "open", e)
    drawn = {a: effect(df, a, "TRM", METRIC) for a in dict.fromkeys(df.arm) if a.split(" ± ")[0] in ("T", "n", "N_sup") and "(" not in a}
    drawn = {a: e for a, e in drawn.items() if e}
    best = max(drawn, key=lambda a: drawn[a].estimate, default=None)
    row("of the randomised numbers, T brings the most", best and "; ".join(f"{a}: {change(e, METRIC)}" for a, e in drawn.items()),
        "open" if len({a.split(" ± ")[0] for a in drawn}) < 3 else "inconclusive" if drawn[best].low <= 0 else "seen" if best.startswith("T ") else "not seen", best and drawn[best])  # fmt: skip
    e = wider(df, drawn)
    row("wider ranges raise accuracy", e and f"widest less narrowest: {change(e, METRIC)}", signed(e, 1) if e else "open", e)
    return pd.DataFrame(rows, columns=["observation", "measured", "reading", "effect"])


MORE_OF_STARTS = (
    "random starts lead to different answers", "confidence chooses better than a vote per cell", "more starts pay less and less",
    "more steps pay less and less",
)  # fmt: skip


def more_of_starts(b, steps):
    """{observation of MORE_OF_STARTS: Effect, positive where it is seen} at the trained number of steps, with the most starts measured there:
    that one of them is right less than a single one is; confidence less vote; the first doubling's gain less the last's."""
    i, one, sure = b["steps"].index(steps), b["one"], b["confidence"]
    k = max(c for c in range(len(b["starts"])) if np.isfinite(sure[:, i, c]).all())
    last = lambda v: stats.paired(v[:, 1] - v[:, 0], v[:, -1] - v[:, -2]) if v.shape[1] > 2 else None  # noqa: E731
    found = (
        stats.paired(b["any"][:, i, k], one[:, i]),
        stats.paired(sure[:, i, k], b["cell vote"][:, i, k]),
        last(sure[:, i, : k + 1]),
        last(one[:, i:]),
    )
    return dict(zip(MORE_OF_STARTS, found, strict=True))


def wider(df, names):
    """Accuracy at the widest less that at the narrowest range of each number that is drawn from several, mean over the numbers: an
    Effect paired by seed, or None before two ranges of a number are there."""
    by_field = {}
    for name in names:
        by_field.setdefault(name.split(" ± ")[0], []).append(name)
    by_field = [sorted(v, key=lambda a: int(a.split(" ± ")[1])) for v in by_field.values() if len(v) > 1]
    gaps = [scores(df, v[-1], METRIC) - scores(df, v[0], METRIC) for v in by_field]
    gap = pd.concat(gaps, axis=1).dropna().mean(axis=1).to_numpy() if gaps else ()
    return stats.paired(gap, np.zeros(len(gap))) if len(gap) > 1 else None


def answer(store, df):
    """This task's place in the answer of chapter 06: its depth is the rounds of deductions that its puzzles need; a puzzle has one
    solution, so its blanks share nothing that the givens leave open (coordination 0)."""
    found, rounds = by_step(df, ["TRM"]).get("TRM"), difficulty(store, df, "TRM") if len(df) else ()
    if not found or not len(rounds):
        return []
    steps = trained_steps(df, "TRM")
    first, last = found[1][0], found[1][steps - 1]
    depth = float(np.average(rounds.rounds, weights=rounds.puzzles))
    return [
        {
            "task": "Sudoku",
            "depth": depth,
            "coordination": 0.0,
            "gain": float((last - first) / (1 - first)),
            "evidence": f"{enough(df)} seeds",
        }
    ]
