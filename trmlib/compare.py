"""Comparisons of arms over seeds, by the same rules in every chapter: a tidy frame of records (`tables.frame`) in,
effects, tables and bands out. Nothing is said of an arm before all seeds that were fixed beforehand are there."""

import math

import numpy as np
import pandas as pd

from trmlib import stats
from trmlib.errors import TrmError
from trmlib.experiments import grid, module
from trmlib.export import percent
from trmlib.tables import by_pass, curves

SAME = 0.02  # shares are the same within so much


def enough(df):
    """Seeds that an arm needs before anything is said of it: all that were fixed beforehand."""
    if not len(df):
        return 2
    first = df.record.iloc[0]
    return 2 if first["profile"] == "smoke" else len(module(first["experiment"]).SEEDS)


def scores(df, arm, metric="nll_b"):
    """{seed: score} of an arm; a run that diverged counts as log V."""
    return df[df.arm == arm].set_index("seed")[metric].sort_index() if len(df) else pd.Series(dtype=float)


def complete(df, arm):
    """Are all seeds of an arm there?"""
    return len(df) > 0 and df[df.arm == arm].seed.nunique() >= enough(df)


def rival(arm):
    """The baseline of an arm's own setting: of "joint (3 blanks)" it is "baseline (3 blanks)"."""
    return "baseline" + arm[arm.find(" (") :] if " (" in arm else "baseline"


def pairs(df, a, b, metric="nll_b"):
    """Scores of two arms at their common seeds: seeds, a (n,), b (n,)."""
    x, y = scores(df, a, metric), scores(df, b, metric)
    seeds = [s for s in x.index if s in y.index]
    return seeds, x.loc[seeds].to_numpy(), y.loc[seeds].to_numpy()


def is_share(metric):
    """Is it a share of something (more is better, differences are points), or an NLL in nats (less is better)?"""
    return metric.startswith(("accuracy", "cells"))


def counting(df):
    """The arm on whose targets tokens are counted for these records: the first of its chapter's COUNTED that is among them, or None."""
    experiment = df.record.iloc[0]["experiment"] if len(df) else None
    counted = getattr(module(experiment).evaluations, "COUNTED", ()) if experiment else ()
    return next((arm for arm in counted if (df.arm == arm).any()), None)


def references(store, df):
    """What counting tokens reaches on the targets of `counting`'s arm (its evaluation of that name: {name: nats}); None before that, and where
    nothing is counted."""
    arm, experiment = counting(df), df.record.iloc[0]["experiment"] if len(df) else None
    runs = set(df.key[df.arm == arm]) if arm else set()
    found = store.evaluations(experiment, "references") if runs else []
    return next((e["result"] for e in found if not runs.isdisjoint(e["runs"])), None)  # its seeds share their targets


def probed(leaks):
    """A sentence on every arm with a dependency matrix (`leak_matrices`): where does a prediction move with its own target, or with a later one?"""
    lit = dict.fromkeys(f"*{arm.partition(' (')[0]}*" for arm, found in leaks.items() if np.triu(found["as trained"]).any())
    return f"{len(leaks)} arms are probed in all. A prediction moves with its own target or a later one in {', '.join(lit) or 'none'}{' and in no other' if lit else ''}."


def unlearnt(df, counted):
    """Arms that on average are not half way from what counting single tokens reaches (`counted["unigram"]`) to what counting pairs
    reaches, the nearest pair that they see: two of them say nothing of each other. Nobody is, while nothing was counted.

    A slot that sees the tokens before it in its chunk knows the one it follows ("bigram"), the others the last one read ("last"). Arms of another
    vocabulary or chunk than the counted one are not judged by it."""
    if counted is None or not len(df):
        return []
    if arm := counting(df):
        asked = df.record.map(lambda r: (r["spec"]["data"].get("vocab"), r["spec"]["data"].get("chunk")))
        df = df[asked.isin(asked[df.arm == arm])]
    chain = df.record.map(lambda r: r["spec"]["model"].get("start") == "shifted")
    pair = np.where(chain, counted["bigram"], counted["last"])
    far = (df.nll_b - (counted["unigram"] + pair) / 2).groupby(df.arm).mean()
    return list(far.index[far > 0])


def effect(df, a, b, metric="nll_b"):
    """Relative change of perplexity from b to a, or the difference of a share, paired by seed (`stats.Effect`); None before there
    are enough pairs."""
    seeds, x, y = pairs(df, a, b, metric)
    if len(seeds) < enough(df):
        return None
    return stats.paired(x, y) if is_share(metric) else stats.paired(x, y).relative()


def at_equal_compute(df, a, b):
    """(steps of a, steps of b, Effect): change of perplexity from b to a on the windows of the curve, where both have cost as much to train: a's last
    point that b's curve reaches, and the point of b that is nearest in cost. Learning rates must be constant: the middle of an annealed training is
    not the end of a shorter one. None before there are enough pairs."""
    seeds, _, _ = pairs(df := df[df.status == "recorded"] if len(df) else df, a, b)
    if len(seeds) < enough(df):
        return None
    rows = {arm: [df[(df.arm == arm) & (df.seed == s)].record.iloc[0] for s in seeds] for arm in (a, b)}
    if any(r["spec"]["train"].get("decay_to", 1) != 1 for of in rows.values() for r in of):
        raise TrmError(f"{a} or {b} was trained at a falling learning rate: its curve does not say what as much compute would have reached")
    steps, cost = (
        {arm: np.array(of[0]["curve"]["step"]) for arm, of in rows.items()},
        {arm: of[0]["train_flops"] / of[0]["steps"] for arm, of in rows.items()},
    )
    i = np.flatnonzero(steps[a] * cost[a] <= steps[b][-1] * cost[b])[-1]
    j = np.abs(steps[b] * cost[b] - steps[a][i] * cost[a]).argmin()
    x, y = (np.array([r["curve"]["nll"][k] for r in rows[arm]]) for arm, k in ((a, i), (b, j)))
    return int(steps[a][i]), int(steps[b][j]), stats.paired(x, y).relative()


def crossed_effect(df, a, b, of="blanks"):
    """As `effect`, with the articles of part B crossed with the seeds: what new seeds *and* new articles would show.

    The records' `detail.by_article` holds for each article `nll`, `part_b` and its weight, the number `of` what was scored."""
    seeds, _, _ = pairs(df, a, b)
    if len(seeds) < enough(df):
        return None
    rows = {arm: df[(df.arm == arm) & df.seed.isin(seeds)].sort_values("seed") for arm in (a, b)}
    detail = next((r.record["detail"]["by_article"] for arm in rows for r in rows[arm].itertuples() if r.status == "recorded"), None)
    if detail is None:
        return None
    weights = np.array(detail[of]) * np.array(detail["part_b"])

    def articles(r):  # a run that diverged counts as log V everywhere
        return r.record["detail"]["by_article"]["nll"] if r.status == "recorded" else [r.nll_b] * len(weights)

    x, y = (np.array([articles(r) for r in rows[arm].itertuples()]) for arm in (a, b))
    return stats.crossed(x, y, weights).relative()


def primary(df, comparisons, metric="nll_b", unlearnt=()):
    """The comparisons (arm, rival, what it separates) fixed beforehand, Holm-corrected together; pending ones have no effect, and
    count in the correction, so that no reading changes when they come. Two arms in `unlearnt` are not compared."""
    rows, share = [], is_share(metric)
    margin = SAME if share else stats.MARGIN
    for a, b, what in comparisons:
        seeds, x, y = pairs(df, a, b, metric)
        complete = len(seeds) >= enough(df)
        rows.append({"arm": a, "rival": b, "separates": what, "n": len(seeds), "effect": effect(df, a, b, metric) if complete else None,
                     "same": stats.equivalent(x, y, margin)[1] if complete else None, "metric": metric, "unlearnt": {a, b} <= set(unlearnt),
                     "detectable": stats.smallest_detectable(x, y) if complete else None})  # fmt: skip
    for r, p in zip(rows, stats.holm([r["effect"].p if r["effect"] else 1.0 for r in rows]), strict=True):
        r["p_holm"] = float(p) if r["effect"] else None
    return pd.DataFrame(rows)


def arm_rows(df, experiment, more, profile="full"):
    """A row an arm of the grid: seeds, NLL and perplexity on part B, what `more(arm, g)` says of its records g, and what it costs."""
    rows = []
    for arm in dict.fromkeys(r.arm for r in grid(profile) if r.spec.experiment == experiment):
        g = df[df.arm == arm]
        if not len(g):
            rows.append({"arm": arm, "seeds": 0})
            continue
        first = g.iloc[0]
        rows.append({
            "arm": arm, "seeds": len(g), "failed": int((g.status == "failed").sum()), "nll": g.nll_b.mean(), "ppl": math.exp(g.nll_b.mean()),
            **more(arm, g), "parameters": int(first.parameters), "train_pflop": first.train_flops / 1e15,
            "mflop": first.inference_flops / 1e6, "depth": int(first.serial_depth), "minutes": g.seconds.mean() / 60,
        })  # fmt: skip
    return pd.DataFrame(rows)


def setting(experiment, arm, profile):
    """How the runs of an arm are trained at a profile, as text."""
    s = next(r.spec for r in grid(profile) if (r.spec.experiment, r.arm) == (experiment, arm))
    text = (
        f"{s.data.context} tokens of context, {s.data.chunk} to name, {s.train.steps:,} steps of {s.train.batch} windows, "
        f"learning rate {s.train.lr:g}, dropout {s.model.dropout:g}"
    )
    apart = getattr(s.data, "test_stride", 0)
    return text + (f"; scored on every {apart // s.data.chunk}th chunk of the validation text" if apart else "")


def reading(row):
    """One primary comparison in words, by rule."""
    e = row["effect"]
    if e is None:
        return "pending"
    if row["unlearnt"]:
        return "neither has learnt enough to compare them"
    share = is_share(row["metric"])
    if row["same"]:
        return f"the same within ±2 {'points' if share else '%'}"
    if row["p_holm"] < 0.05:
        return f"{row['arm']} is {'better' if (e.estimate > 0) == share else 'worse'}"
    return "inconclusive"


def change(e, metric):
    """An effect in words: of an NLL in % of perplexity, of a share in points."""
    return percent(e).replace(" %", " points") if is_share(metric) else percent(e)


def comparison_table(first):
    """The frame of `primary`, as a reader wants to see it."""

    def detectable(r):
        return "–" if pd.isna(r["detectable"]) else f"{r['detectable'] if is_share(r['metric']) else math.expm1(r['detectable']):.1%}"

    rows = [r for _, r in first.iterrows()]
    return pd.DataFrame({
        "comparison": first.arm + " vs " + first.rival, "what it separates": first.separates, "seeds": first.n,
        "change": [change(r["effect"], r["metric"]) for r in rows],
        "p (Holm)": first["p_holm"].map(lambda p: "–" if pd.isna(p) else f"{p:.3f}"),
        "detectable": [detectable(r) for r in rows], "reading": [reading(r) for r in rows],
    })  # fmt: skip


def findings(first, profile="full"):
    """The frame of `primary` as a Markdown list; records of a cut profile are said to be such."""
    said = lambda r: reading(r) if profile == "full" else reading(r).replace("the same within", "at this length no difference beyond")  # noqa: E731
    lines = [
        f"- *{r['arm']}* against *{r['rival']}* ({r['separates']}): **{said(r)}**{', ' + change(r['effect'], r['metric']) if r['effect'] else ''}."
        for _, r in first.iterrows()
    ]
    cut = f"\n\nAll of this is at profile *{profile}*, a cut training: what makes a difference there is shown; what makes none may still at full length."
    return "\n".join(lines) + ("" if profile == "full" else cut)


def series(df, arms, metric="nll_b"):
    """Of the complete arms of {value: arm}: values, perplexity mean, low, high; None where there are fewer than two."""
    ready = {x: scores(df, arm, metric).to_numpy() for x, arm in arms.items() if complete(df, arm)}
    if len(ready) < 2:
        return None
    n = min(map(len, ready.values()))
    return (list(ready), *(np.exp(v) for v in stats.band(np.array([v[:n] for v in ready.values()]).T)))


def tuning(df, names, rates):
    """{model: (learning rates, perplexity mean, low, high)} on part A, over the tuning seeds of the arms "model (lr rate)" that each rate
    has; of a single seed there is no band."""
    out = {}
    for name in names:
        found = {lr: scores(df, f"{name} (lr {lr:g})", "nll_a").to_numpy() for lr in rates}
        found = {lr: v for lr, v in found.items() if len(v)}
        if found:
            n = min(map(len, found.values()))
            nll = np.array([v[:n] for v in found.values()]).T  # (n, rates)
            out[name] = (list(found), *(np.exp(v) for v in (stats.band(nll) if n > 1 else nll[[0, 0, 0]])))
    return out


def best_rates(df, names, rates):
    """Each model's best learning rate by `tuning`, in words; where it lies on the edge of those tried, a better one may lie beyond."""
    found, said = tuning(df, names, rates), []
    for name in names:
        tried, ppl, *_ = found.get(name, ((), ()))
        if len(tried) < len(rates):
            said.append(f"{name}: {len(tried)} of {len(rates)} rates recorded")
            continue
        best = tried[int(np.argmin(ppl))]
        edge = ", on the edge of the grid: extend it" if best in (min(tried), max(tried)) else ""
        seeds = min(len(scores(df, f"{name} (lr {lr:g})", "nll_a")) for lr in rates)
        said.append(f"{name}: {best:g} ({seeds} seed{'s' * (seeds > 1)}{edge})")
    return f"Best learning rate on part A: {'; '.join(said)}."


def swept(df, experiment, names, profile):
    """As a Markdown list: was the learning rate of both models swept (arms "model (lr rate)", seeds of their own, scored on part A), was another
    rate than a model's own better, and how does the second do against the first at the best rate of each?"""
    of, recorded, lines, best = [r for r in grid(profile) if r.spec.experiment == experiment], set(zip(df.arm, df.seed)), [], []
    for name in names:
        own = next(r.spec.train.lr for r in of if r.arm == name)
        runs = [r for r in of if r.arm.startswith(f"{name} (lr ")]
        if pending := sum((r.arm, r.spec.seed) not in recorded for r in runs):
            sweep = f'`trm run --profile {profile} "{experiment}/{name} (lr *)"`'
            lines.append(f"- *{name}*, at {own:g}: **learning rate not swept yet**, {pending} of {len(runs)} runs pending ({sweep}).")
            continue
        nll = {r.spec.train.lr: scores(df, r.arm, "nll_a") for r in runs}
        lr = min(nll, key=lambda lr: nll[lr].mean())
        best.append(nll[lr])
        change = f", and changes perplexity by {percent(stats.ratio(nll[lr], nll[own]))}" if own in nll else ", its own not among them"
        lines.append(
            f"- *{name}*, at {own:g}: {'that' if lr == own else f'{lr:g}'} is the best of {len(nll)} learning rates on part A ({len(nll[lr])} tuning seeds"
            f"{', on their edge' if lr in (min(nll), max(nll)) else ''}){'' if lr == own else change}."
        )
    if len(best) == 2:
        lines.append(
            f"- *{names[1]}* against *{names[0]}*, each at its best of these: {percent(stats.ratio(*best[::-1]))} (part A, not corrected)."
        )
    return "\n".join(lines)


def curve_bands(df, names, value="nll"):
    """{arm: (steps, mean, low, high)} over seeds, of the perplexity or, where `value` is no NLL, of the value itself; of complete arms,
    the runs that diverged left out."""
    long, out = curves(df[df.arm.isin(names)], value), {}
    for arm in names:
        table = long[long.arm == arm].pivot(index="seed", columns="step", values=value).dropna()
        if complete(df, arm) and len(table) > 1:
            out[arm] = (table.columns.to_numpy(), *(np.exp(v) if "nll" in value else v for v in stats.band(table.to_numpy())))
    return out


def pass_bands(df, names, metric="nll_b"):
    """{arm: (passes, perplexity mean, low, high)}: the read-out after each pass; of complete arms, the runs that diverged left out."""
    long, out = by_pass(df[df.arm.isin(names)], metric), {}
    for arm in names:
        table = long[long.arm == arm].pivot(index="seed", columns="pass", values=metric)
        if complete(df, arm) and len(table) > 1:
            out[arm] = (table.columns.to_numpy(), *(np.exp(v) for v in stats.band(table.to_numpy())))
    return out


def evaluation_frame(store, df, name):
    """{(arm, seed): result} of a single-run evaluation, for the runs of the frame."""
    of = {r.key: (r.arm, r.seed) for r in df.itertuples()}
    found = store.evaluations(df.record.iloc[0]["experiment"], name) if of else []
    return {of[e["runs"][0]]: e["result"] for e in found if e["runs"][0] in of}


def leak_matrices(store, df):
    """{arm: {how it was probed: dependency matrix}}, mean over seeds."""
    found = {}
    for (arm, _), result in evaluation_frame(store, df, "leak_probe").items():
        for how, matrix in result.items():
            found.setdefault(arm, {}).setdefault(how, []).append(matrix)
    return {arm: {how: np.mean(ms, 0) for how, ms in probed.items()} for arm, probed in found.items()}


def label(df, profile, arms=None):
    """What every figure says of its records: profile, seeds, device; of the complete ones among `arms`, where only these are drawn."""
    kind = {"full": "full training", "cpu": "cut training", "smoke": "toy training"}[profile] + f", profile {profile}"
    df = df if arms is None else df[df.arm.isin([a for a in arms if complete(df, a)])]
    if not len(df):
        return f"{kind}, no records yet"
    if profile == "full" and df.record.iloc[0]["experiment"] == "capacity":  # a ladder of sizes, most of them far below the published one
        kind = f"models of up to {df.parameters.max():,} parameters, profile full"
    seeds = df.groupby("arm").seed.nunique()
    span = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"
    return f"{kind}, {span} seed{'s' if seeds.max() > 1 else ''}, {df.device.iloc[0].replace('cpu', 'CPU')}, {df.precision.iloc[0]}"
