"""What chapter 04 shows: records → tidy frames and verdicts. No training, no plotting."""

import json
import math

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from trmlib import stats
from trmlib.compare import arm_rows, effect, enough
from trmlib.experiments import grid
from trmlib.experiments.capacity import SIZES, STARTS
from trmlib.runs import spec_hash

# What the write-up says (document 003 of the sources).
CLAIMED = {
    "ppl": 223.62, "parameters": 6_838_528, "ratio": 1.0, "curve": {27_000: 782, 104_000: 378, 214_000: 224, 249_000: 269, 456_000: 544},
    "examples": {27_000: 3.2e6, 104_000: 10.5e6, 214_000: 6.85e6, 249_000: 7.97e6, 456_000: 14.6e6},
    "target": (75, 85), "efficiency": (2, 3), "batch": 32,
}  # fmt: skip
PRIMARY = [  # the comparisons fixed beforehand; Holm-corrected together: (arm, rival, what it separates)
    ("tuned 0.1M", "causal 0.1M", "recursion in parallel or a plain causal model: same parameters, same windows, same targets"),
    ("tuned 0.1M", "standard 0.1M", "the same, the rival trained at every position of its windows"),
    ("tuned 0.1M", "tuned 0.1M (gradient all)", "gradient detached or through all refinements"),
    ("tuned 0.1M", "tuned 0.1M (T 1)", "two refinements or one"),
    ("tuned 0.1M", "tuned 0.1M (n 0)", "three latent updates a refinement or none"),
    ("TRM 0.1M (stride 64)", "TRM 0.1M (stride 1)", "the same text in 64 times fewer windows"),
    ("tuned 0.1M", "TRM 0.1M", "learning rate 1e-3 with decay or the earlier constant 1e-4"),
]
CAUSES = {
    "start mismatch": "(read off the leaking runs)", "sampling restarts": "a resume that reseeds", "optimiser forgotten": "a resume without moments",
    "sequential": "windows in the text's order", "fp16 weights": "half precision", "bf16 weights": "half precision",
    "stride 64": "fewer windows, same text", "stride 1": "that text, all windows", "unused rows": "twice the parameters, same function",
}  # fmt: skip
PUBLISHED = pd.DataFrame(
    [
        ("WikiText-2", "LSTM", "–", 99.3, "Grave et al. 2017, arXiv 1612.04426"),
        ("WikiText-2", "AWD-LSTM", "33 M", 65.8, "Merity et al. 2017, arXiv 1708.02182"),
        ("WikiText-103", "LSTM", "–", 48.7, "Grave et al. 2017, arXiv 1612.04426"),
        ("WikiText-103", "Transformer-XL standard", "151 M", 24.0, "Dai et al. 2019, arXiv 1901.02860"),
        ("WikiText-103", "Transformer-XL large", "257 M", 18.3, "Dai et al. 2019, arXiv 1901.02860"),
    ],
    columns=["corpus", "model", "parameters", "test perplexity", "source"],
)


def arms(df, profile="full"):
    """A row an arm (`compare.arm_rows`), the last of the grid first, with bits per byte and parameters outside the embeddings."""
    runs = {r.arm: r.spec for r in grid(profile) if r.spec.experiment == "capacity"}

    def more(arm, g):
        model, data = runs[arm].model, runs[arm].data
        positions = (data.context + data.chunk) * model.d * (model.positions == "learned")
        bits = g["bits_b"].dropna() if "bits_b" in g else []
        return {
            "bits": float(np.mean(bits)) if len(bits) else None, "windows": g.record.iloc[0]["data"]["windows"],
            "non_embedding": int(g.parameters.iloc[0]) - (data.vocab + data.unused_rows) * model.d - positions,
        }  # fmt: skip

    return arm_rows(df, "capacity", more, profile).iloc[::-1].reset_index(drop=True)


# ---------------------------------------------------------------- the law


def turns(df):
    """A row for each run and start it is scored from ("own", and for leaking models "last", "constant"): the examples at which its
    curve turns (`stats.turn`), or with `censored` those after which it had not; the perplexities there and at the end."""
    rows = []
    for r in df[df.status == "recorded"].itertuples():
        curve, batch = r.record["curve"], r.record["spec"]["train"].get("batch", 32)
        for start in ("own", *STARTS):
            nll = curve.get("nll" if start == "own" else f"nll_{start}")
            if nll is None or len(nll) < 10:
                continue
            at = stats.turn([math.nan if v is None else v for v in nll])
            low = len(nll) - 1 if at is None else at
            last = np.median(nll[-5:])
            rows.append({"arm": r.arm, "seed": r.seed, "start": start, "parameters": r.parameters, "examples": batch * curve["step"][low],
                         "ratio": batch * curve["step"][low] / r.parameters, "censored": at is None, "lowest_ppl": math.exp(nll[low]),
                         "last_ppl": math.exp(min(last, 50)), "reached": batch * curve["step"][-1] / r.parameters})  # fmt: skip
    columns = ["arm", "seed", "start", "parameters", "examples", "ratio", "censored", "lowest_ppl", "last_ppl", "reached"]
    return pd.DataFrame(rows, columns=columns)


def complete(table, df):
    """The rows of arms whose seeds are all there."""
    return table[table.groupby(["arm", "start"]).seed.transform("nunique") >= enough(df)] if len(table) else table


def law(df, kind="TRM", start="own"):
    """The line log10(examples / parameters at the turn) over log10(parameters), all sizes of a kind of arm: the table of turns and
    (slope of log examples on log parameters, log10 ratio at the middle size) as Effects, or None where there is no line."""
    table = complete(turns(df), df)
    table = table[table.arm.isin([f"{kind} {size}" for size in SIZES]) & (table.start == start)]
    x, y = np.log10(table.parameters.to_numpy(float)), np.log10(table.ratio.to_numpy(float))
    fit = stats.censored_line(x, y, table.censored.to_numpy()) if len(table) else None
    return table, fit and (shifted(fit[0], 1), fit[1])


def shifted(e, by):
    return stats.Effect(e.estimate + by, e.low + by, e.high + by, e.p, e.n, e.level)


def law_verdict(df, kind="TRM", start="own"):
    """(verdict, why) on "performance turns when the windows seen exceed the parameters"."""
    table, fit = law(df, kind, start)
    sizes = table.arm.nunique()
    if sizes < 2:
        return "open", f"{sizes} of the sizes complete; two are needed"
    if table.censored.all():
        if table.reached.min() < CLAIMED["ratio"]:
            return "open", f"no curve turned, but the shortest run ends at {table.reached.min():.2f} windows a parameter"
        return (
            "not reproduced",
            f"no curve of {len(table)} runs at {sizes} sizes turned, up to {table.reached.min():.1f} windows a parameter",
        )
    if fit is None:
        share = table.groupby("arm").censored.mean()
        return "not reproduced" if (share > 0).any() else "inconclusive", "curves turn at fewer than two sizes, so there is no line"
    slope, ratio = fit
    text = f"slope {slope.text(digits=2)}; log10 of windows a parameter {ratio.text(digits=2)}"
    if slope.excludes(1) or ratio.excludes(math.log10(CLAIMED["ratio"])):
        return "not reproduced", text
    return ("reproduced" if slope.excludes(0) else "inconclusive"), text


def turned(df):
    """A row for each complete arm and start: the share of seeds whose curve turned, and where (median windows a parameter)."""
    table = complete(turns(df), df)
    rows = [
        {"arm": arm, "scored from": start, "seeds": len(g), "turned": int((~g.censored).sum()),
         "at": float(np.median(g.ratio[~g.censored])) if (~g.censored).any() else None, "rise": float(np.median(g.last_ppl / g.lowest_ppl)),
         "reached": float(g.reached.min())}
        for (arm, start), g in table.groupby(["arm", "start"], sort=False)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "scored from", "seeds", "turned", "at", "rise", "reached"])


def shape(df):
    """Arms that reproduce the published shape: every seed turns between 2/3 and 3/2 windows a parameter, and ends at least twice as
    high as at its lowest (published: 544 after 224)."""
    t = turned(df)
    return t[(t.turned == t.seeds) & t["at"].between(2 / 3, 1.5) & (t.rise >= 2)] if len(t) else t


def ppl_verdict(df):
    """(verdict, candidates tested, those that reproduce the shape) on 223.62. A shape found makes a candidate, not a proof."""
    t, found = turned(df), shape(df)
    tested = [c for c in CAUSES if any(c in arm for arm in t.arm)] + (["start mismatch"] if (t["scored from"] != "own").any() else [])
    names = [f"{r['arm']} scored from {r['scored from']}" for r in found.to_dict("records")]
    return ("open, with a candidate" if names else "open"), tested, names


def examples_table():
    """The write-up's own table: its steps, the examples it states, and what its batch of 32 makes of the steps."""
    return pd.DataFrame(
        [{"step": s, "perplexity": p, "examples stated": CLAIMED["examples"][s], "steps × 32": CLAIMED["batch"] * s,
          "agree": abs(CLAIMED["batch"] * s / CLAIMED["examples"][s] - 1) < 0.02} for s, p in CLAIMED["curve"].items()]
    )  # fmt: skip


def law_curves(df, kind, start="own"):
    """{size: (windows a parameter, perplexity mean, low, high)} of the sizes whose seeds are all there."""
    out = {}
    for size in SIZES:
        g = df[(df.arm == f"{kind} {size}") & (df.status == "recorded")]
        key = "nll" if start == "own" else f"nll_{start}"
        if g.seed.nunique() < enough(df) or not all(key in r["curve"] for r in g.record):
            continue
        batch = g.record.iloc[0]["spec"]["train"].get("batch", 32)
        x = np.array(g.record.iloc[0]["curve"]["step"]) * batch / g.parameters.iloc[0]
        out[size] = (x, *(np.exp(v) for v in stats.band(np.array([r["curve"][key] for r in g.record]))))
    return out


# ---------------------------------------------------------------- parameter efficiency


def efficiency(df, arm="tuned 0.1M", rival="causal"):
    """How many times the parameters of `arm` the causal model needs for the arm's NLL, all having seen the same windows: an
    Effect of the ratio over seeds (paired), and whether the answer lies outside the measured sizes. None while pending.

    For each seed the causal model's NLL is interpolated linearly in log parameters; beyond the sizes its end segments go on."""
    own = df[df.arm == arm].set_index("seed")
    named = [f"{rival} {arm.split()[1]}"] + sorted({a for a in df.arm if a.startswith(f"{rival} d=")})
    others = {a: df[df.arm == a].set_index("seed") for a in named}
    seeds = [s for s in own.index if all(s in g.index for g in others.values())]
    if len(seeds) < enough(df) or len(others) < 2:
        return None, False
    logs, outside = [], False
    for s in seeds:
        points = sorted((math.log(g.parameters[s]), g.nll_b[s]) for g in others.values())
        needed, beyond = crossing(*zip(*points, strict=True), own.nll_b[s])
        logs.append(needed - math.log(own.parameters[s]))
        outside |= beyond
    e = stats.paired(np.array(logs), np.zeros(len(logs)))
    return stats.Effect(*(math.exp(v) for v in (e.estimate, e.low, e.high)), e.p, e.n, e.level), outside


def crossing(x, y, target):
    """Where the line through the points (x, y), x ascending and y falling, reaches `target`: (x, is it beyond the points?)."""
    i = next((k for k in range(len(x) - 1) if y[k + 1] <= target), len(x) - 2)
    i = 0 if target > y[0] else i
    slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    return (x[i] + (target - y[i]) / slope if slope else math.inf), not min(y) <= target <= max(y)


def efficiency_verdict(df):
    """(verdict, Effect, outside) on "2–3× parameter efficiency"."""
    e, outside = efficiency(df)
    if e is None:
        return "open", None, False
    low, high = CLAIMED["efficiency"]
    if e.high < low or e.low > high:
        return "not reproduced", e, outside
    return ("reproduced" if e.low > 1 else "inconclusive"), e, outside


def ablations(df, base="tuned 0.1M"):
    """Rows for a forest: each ablation against its base."""
    names = list(
        dict.fromkeys(
            r.arm for r in grid("full") if r.spec.experiment == "capacity" and r.arm.startswith(f"{base} (") and "(lr" not in r.arm
        )
    )
    return [{"name": name[len(base) + 2 : -1], "effect": effect(df, name, base)} for name in names]


def rates(df):
    """Mean NLL on part A of the learning-rate sweep: a row a model, a column a rate."""
    g = df[df.arm.str.contains("(lr ", regex=False)] if len(df) else df
    if not len(g):
        return pd.DataFrame()
    split = g.arm.str.extract(r"(?P<model>.*) \(lr (?P<rate>.*)\)")
    return g.assign(model=split.model, rate=split.rate.astype(float)).pivot_table(index="model", columns="rate", values="nll_a")


def wikitext2(df):
    """{arm: (perplexity mean, low, high)} of the word-level WikiText-2 models, for the target 75–85."""
    out = {}
    for arm in ("TRM WikiText-2", "causal WikiText-2", "standard WikiText-2"):
        v = df[df.arm == arm].nll_b.to_numpy() if len(df) else ()
        if len(v) >= max(2, enough(df)):
            e = stats.paired(v, np.zeros(len(v)))
            out[arm] = tuple(math.exp(x) for x in (e.estimate, e.low, e.high))
    return out


# ---------------------------------------------------------------- evaluations and runs under way


def under_way(store, profile):
    """Runs that a checkpoint in the cache belongs to: rows of arm, seed, steps done and wanted, and the curve so far. A checkpoint
    of several seeds trained together gives a row for each."""
    groups, rows = {}, []
    runs = [r for r in grid(profile) if r.spec.experiment == "capacity"]
    for r in runs:
        groups[r.spec.hash] = [r]
    for arm in {r.arm for r in runs}:
        together = [r for r in runs if r.arm == arm]
        groups[spec_hash([r.spec.hash for r in together])] = together
    for path in sorted((store.cache / "checkpoints").glob("*.safetensors")):
        members = groups.get(path.name.split(".")[0], [])
        try:
            with safe_open(path, "pt") as f:
                meta = json.loads(f.metadata()["trm"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue  # half copied, or gone since: the run is recorded
        for r, curve in zip(members, meta["curves"], strict=False):
            rows.append({"arm": r.arm, "seed": r.spec.seed, "done": meta["done"], "steps": r.spec.train.steps,
                         "step": [p["step"] for p in curve], "nll": [p["nll"] for p in curve]})  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "seed", "done", "steps", "step", "nll"])
