"""What chapter 04 shows: records → tidy frames and verdicts. No training, no plotting."""

import json
import math
from functools import cache

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from trmlib import compare, stats
from trmlib.compare import arm_rows, effect, enough
from trmlib.data.tokens import TokensConfig
from trmlib.experiments import grid
from trmlib.experiments.capacity import COMPUTE, SIZES, SMALL, STARTS
from trmlib.experiments.capacity_evaluations import SIZED, SLOTS
from trmlib.models.chunk import ChunkConfig
from trmlib.runs import TrainConfig, canonical, spec_hash
from trmlib.tables import frame

# What the write-up says (document 003 of the sources).
CLAIMED = {
    "ppl": 223.62, "parameters": 6_838_528, "ratio": 1.0, "curve": {27_000: 782, 104_000: 378, 214_000: 224, 249_000: 269, 456_000: 544},
    "examples": {27_000: 3.2e6, 104_000: 10.5e6, 214_000: 6.85e6, 249_000: 7.97e6, 456_000: 14.6e6},
    "target": (75, 85), "efficiency": (2, 3), "batch": 32,
    "other": {6_250: 2.38}, "rerun": {"baseline": 134.9, "TRM": 224.7},  # the author's other records: of that run, and word by word without the leak
}  # fmt: skip
PRIMARY = [  # the comparisons fixed beforehand; Holm-corrected together: (arm, rival, what it separates)
    ("annealed 0.1M", "standard 0.1M", "the TRM or a standard causal model: same parameters, same windows"),
    ("annealed 0.1M", "standard 0.1M (equal compute)", "the same, at equal training FLOPs"),
    ("annealed 0.1M", "causal 0.1M", "the TRM or a causal model trained on the same four tokens: same parameters, same windows"),
    ("annealed 0.1M", "causal 0.1M (equal compute)", "the same, at equal training FLOPs"),
    ("annealed 0.1M", "annealed 0.1M (gradient all)", "gradient detached or through all refinements"),
    ("annealed 0.1M", "annealed 0.1M (T 1)", "two refinements or one"),
    ("annealed 0.1M", "annealed 0.1M (n 0)", "three latent updates a refinement or none"),
    ("steady 0.04M (stride 64)", "steady 0.04M (stride 1)", "a causal model; the same text in 64 times fewer windows"),
]
ADDED = [  # chosen later, before any of their runs was recorded: corrected together, apart from the others
    ("everywhere 0.1M", "standard 0.1M", "the TRM or a standard causal model, both trained at every position: same parameters, same windows"),
    ("everywhere 0.1M", "causal 0.1M", "that TRM or a causal model trained on the four tokens that both name: same parameters, same windows"),
    ("everywhere 0.1M", "annealed 0.1M", "a TRM whose encoder learns from the context, or not"),
]  # fmt: skip
GOING = (  # why the annealed TRM stays at token frequencies; the last was chosen when the two before it were seen to, before any run of it was recorded
    "annealed 0.1M", "annealed 0.1M (n 0, T 1)", "annealed 0.1M (start last, n 0, T 1)",
)  # fmt: skip
RECURSION = [  # chosen later still, before any of their runs was recorded: what recursion and its gradient do for a TRM that learns
    ("everywhere 0.1M", "everywhere 0.1M (n 0, T 1)", "two refinements of three latent updates, or a single update"),
    ("everywhere 0.1M", "everywhere 0.1M (T 1)", "two refinements or one"),
    ("everywhere 0.1M", "everywhere 0.1M (gradient last)", "gradient through all refinements or the last"),
]  # fmt: skip
DILUTION = [  # chosen when the first of these last was recorded, before any run of their own: refinements that are not diluted
    ("everywhere 0.1M (bounded)", "everywhere 0.1M (n 0, T 1)", "two refinements from states of one size, or a single update"),
    ("everywhere 0.1M (bounded)", "everywhere 0.1M", "states brought to one size after each refinement, or left to grow"),
    ("everywhere 0.1M (normed)", "everywhere 0.1M (n 0, T 1)", "two refinements of the paper's blocks, or a single update"),
    ("everywhere 0.1M (normed)", "everywhere 0.1M", "blocks that bring each sum to one size, or let it grow"),
]  # fmt: skip
WORDS = [  # those of WikiText-2, whose runs may be cut ones: corrected together, apart from the others
    ("TRM WikiText-2", "standard WikiText-2", "the TRM or a standard causal model: same parameters, same windows"),
    ("TRM WikiText-2", "standard WikiText-2 (equal compute)", "the same, at equal training FLOPs"),
]
WORDS_ADDED = [  # chosen when that TRM was seen to learn word frequencies alone, before any run of this one was recorded
    ("everywhere WikiText-2 (equal compute)", "standard WikiText-2 (equal compute)", "the TRM that learns or a standard causal model, both trained at every position: equal training FLOPs"),
    ("everywhere WikiText-2", "standard WikiText-2", "the same, on the same windows"),
]  # fmt: skip
CAUSES = (  # what may turn a curve: parts of arms' names; a start mismatch is read off the leaking runs
    "decay", "lr 3e-4", "lr 1e-3", "sampling restarts", "optimiser forgotten", "sequential", "fp16 weights", "bf16 weights", "text of N",
)  # fmt: skip
MODELS = {"steady": "causal", "leaking": "leaking"}  # first word of such an arm → what its model is
FEW = ("steady 0.04M (text of N)", "steady 0.04M (text of N/16)")  # as many unique windows as parameters, or fewer
REPEATS = {  # change of the training → the text of its windows
    "": "whole text", " (sampling restarts)": "whole text", " (text of N)": "N tokens", " (text of N/16)": "N/16 tokens",
}  # fmt: skip
MISMATCH = {"1e-4": f"leaking {SMALL}", "3e-4": f"leaking {SMALL} (lr 3e-4)", "1e-3": f"leaking {SMALL} (lr 1e-3)"}  # learning rate → arm
ASKED = "everywhere 0.1M"  # the TRM whose parameter efficiency is asked: of those that a CPU can train, the one that learns
SECTIONS = ("WikiText-2", "as it was")  # what has cut runs at "cpu" that are no full runs: part of the arms' names
OWN = {"0.1M": "annealed 0.1M", "WikiText-2": "TRM WikiText-2"}  # setting → the TRM that its rivals are held against
COUNTS = {"parameters": "all parameters", "non_embedding": "outside the embeddings"}
PUBLISHED = pd.DataFrame(
    [
        ("WikiText-2", "LSTM", "–", 99.3, "Grave et al. 2017, arXiv 1612.04426"),
        ("WikiText-2", "AWD-LSTM", "33 M", 65.8, "Merity et al. 2017, arXiv 1708.02182"),
        ("WikiText-103", "LSTM", "–", 48.7, "Grave et al. 2017, arXiv 1612.04426"),
        ("WikiText-103", "Compressive Transformer", "–", 17.1, "Rae et al. 2020, arXiv 1911.05507"),
        ("WikiText-103", "Transformer-XL standard", "151 M", 24.0, "Dai et al. 2019, arXiv 1901.02860"),
        ("WikiText-103", "Transformer-XL large", "257 M", 18.3, "Dai et al. 2019, arXiv 1901.02860"),
    ],
    columns=["corpus", "model", "parameters", "test perplexity", "source"],
)


def section(store, name, profile):
    """(frame, profile) of the arms whose name holds `name`, one of SECTIONS: of the profile, or in place of "full" of "cpu" until the
    full runs of all those without a "(" are there."""

    def of(p):
        df = frame(store, "capacity", p)
        return df[df.arm.str.contains(name, regex=False)], p

    whole = of(profile)
    if profile != "full":
        return whole
    wanted = {r.arm for r in grid(profile) if r.spec.experiment == "capacity" and name in r.arm and "(" not in r.arm}
    cut = of("cpu")
    return whole if all(compare.complete(whole[0], a) for a in wanted) or not len(cut[0]) else cut


def arms(df, profile="full"):
    """A row an arm (`compare.arm_rows`), the last of the grid first, with bits per byte and parameters outside the embeddings."""

    def more(arm, g):
        bits = g["bits_b"].dropna() if "bits_b" in g else []
        return {"bits": float(np.mean(bits)) if len(bits) else None, "windows": g.record.iloc[0]["data"]["windows"],
                "non_embedding": non_embedding(g.iloc[0])}  # fmt: skip

    return arm_rows(df, "capacity", more, profile).iloc[::-1].reset_index(drop=True)


def configs(r):
    """The frozen configs of a run: model, data, training."""
    return _configs(canonical(r.record["spec"]))


@cache
def _configs(spec):
    spec = json.loads(spec)
    return ChunkConfig(**spec["model"]), TokensConfig(**spec["data"]), TrainConfig(**spec["train"])


def non_embedding(r):
    """Parameters of a run outside its embeddings of tokens and positions."""
    model, data, _ = configs(r)
    positions = (data.context + data.chunk) * (model.positions == "learned")
    return int(r.parameters) - (data.vocab + data.unused_rows + positions) * model.d


def rivals(df, setting, profile="full"):
    """The rows of `arms` of a setting's TRM and of its rivals, of as many parameters and steps and of as much compute; with the interval
    of the perplexity over seeds and the TRM's change `against` each."""
    own = OWN[setting]
    names = [own, *(f"{rival}{more}" for rival in COMPUTE if rival.endswith(f" {setting}") for more in ("", " (equal compute)"))]
    table = arms(df, profile).set_index("arm").loc[names].reset_index()
    table["interval"] = [interval(df, a) for a in names]
    table["against"] = [effect(df, own, a) if a != own else None for a in names]
    return table


def interval(df, arm):
    """(low, high) of an arm's perplexity over seeds, or None while it is pending."""
    if not compare.complete(df, arm):
        return None
    v = compare.scores(df, arm).to_numpy()
    e = stats.paired(v, np.zeros(len(v)))
    return math.exp(e.low), math.exp(e.high)


# ---------------------------------------------------------------- curves


def curve(r, start="own"):
    """(steps, NLL) of a run, scored from a start; None if it is not scored so. A run that diverged stands at log V up to its planned end."""
    found, key = r.record["curve"], "nll" if start == "own" else f"nll_{start}"
    if key not in found and (found or pd.isna(getattr(r, f"{key}_b", None))):  # no curve at all: it diverged at once
        return None
    _, data, train = configs(r)
    step, nll = list(found.get("step", ())), list(found.get(key, ()))
    if r.status == "failed":
        step = [*range(train.eval_every, train.steps, train.eval_every), train.steps]
        nll += [None] * (len(step) - len(nll))
    return step, [math.log(data.vocab) if v is None else v for v in nll]


def diverged(df, arm):
    """ " (k of n diverged)", or nothing where none did."""
    failed = df[df.arm == arm].status == "failed"
    return f" ({failed.sum()} of {len(failed)} diverged)" if failed.any() else ""


def few(df, arm):
    """ " (k of n seeds)", or nothing where all are there."""
    seeds = (df.arm == arm).sum()
    return f" ({seeds} of {enough(df)} seeds)" if seeds < enough(df) else ""


def ppl_band(df, arm, start="own", partly=False):
    """(steps, perplexity mean, low, high) of a complete arm's curves, or None. `partly`: of an arm whose seeds are not all there, too, the mean
    of those that are, without a band."""
    curves = [c for r in df[df.arm == arm].itertuples() if (c := curve(r, start))]
    complete = len(curves) >= enough(df)
    if not curves or not (complete or partly):
        return None
    nll = np.array([nll for _, nll in curves])
    return (np.array(curves[0][0]), *(np.exp(v) for v in (stats.band(nll) if complete else [nll.mean(0)] * 3)))


def by_windows(df, arms, start="own", partly=False):
    """{name: (windows seen a parameter, perplexity mean, low, high)} of {name: arm}, as `ppl_band` has it; the name says how many seeds are there
    where it is not all."""
    out = {}
    for name, arm in arms.items():
        if band := ppl_band(df, arm, start, partly):
            r = next(df[df.arm == arm].itertuples())
            out[name + few(df, arm) + diverged(df, arm)] = (band[0] * configs(r)[2].batch / r.parameters, *band[1:])
    return out


def law_curves(df, kind, start="own"):
    """`by_windows` of the sizes of a kind of arm, those whose seeds are not all there among them."""
    return by_windows(df, {size: f"{kind} {size}" for size in SIZES}, start, partly=True)


def not_counted(df, kind, start="own"):
    """What sizes of a kind say whose seeds are not all there, which no verdict counts, as text."""
    table = turns(df)
    table = table[(table.start == start) & table.arm.isin([f"{kind} {size}" for size in SIZES])]
    return "; ".join(
        f"{arm}, {len(g)} of {enough(df)} seeds: {int((~g.censored).sum())} turned, up to {g.reached.min():.1f} windows a parameter"
        for arm, g in table.groupby("arm", sort=False)
        if len(g) < enough(df)
    )


def repeats(df, base=f"steady {SMALL}"):
    """`by_windows` of one model and training whose windows are all new or come again and again, each named by its unique windows a
    parameter and the text they are from."""
    names = {}
    for change, text in REPEATS.items():
        for r in df[df.arm == base + change].head(1).itertuples():
            names[f"{r.record['data']['windows'] / r.parameters:.2f}, {text}"] = base + change
    return by_windows(df, names)


def earlier(df):
    """{curve: (steps, perplexity mean, low, high)} at the earlier run's setting: that run, scored from three starts, and its honest twin;
    the name says how many seeds are there where it is not all."""
    curves = {"as trained, from the target": ("as it was", "own"), "from the last token": ("as it was", "last"),
              "from a constant token": ("as it was", "constant"), "honest twin": ("as it was, honest", "own")}  # fmt: skip
    return {
        name + few(df, arm) + diverged(df, arm): band
        for name, (arm, start) in curves.items()
        if (band := ppl_band(df, arm, start, partly=True))
    }


def near(bands, step):
    """{curve: (step, perplexity)} of the points nearest to a step."""
    at = {name: int(np.abs(steps - step).argmin()) for name, (steps, *_) in bands.items()}
    return {name: (int(steps[at[name]]), float(mean[at[name]])) for name, (steps, mean, *_) in bands.items()}


# ---------------------------------------------------------------- the law


turn = cache(stats.turn)  # of a tuple: a report asks for the same curves dozens of times


def turns(df):
    """A row for each run and start it is scored from ("own", and for leaking models "last", "constant"): the examples at which its
    curve turns (`stats.turn`), or with `censored` those after which it had not; the perplexities there and at the end. A run that
    diverged turns where it was lowest."""
    rows = []
    for r in df.itertuples():
        for start in ("own", *STARTS):
            found = curve(r, start)
            if found is None or len(found[0]) < 10:
                continue
            (step, nll), batch = found, configs(r)[2].batch
            at = turn(tuple(nll))
            low = len(nll) - 1 if at is None else at
            last = np.median(nll[-5:])
            rows.append({"arm": r.arm, "seed": r.seed, "start": start, "parameters": r.parameters, "examples": batch * step[low],
                         "ratio": batch * step[low] / r.parameters, "censored": at is None, "lowest_ppl": math.exp(nll[low]),
                         "last_ppl": math.exp(min(last, 50)), "reached": batch * step[-1] / r.parameters, "diverged": r.status == "failed"})  # fmt: skip
    columns = ["arm", "seed", "start", "parameters", "examples", "ratio", "censored", "lowest_ppl", "last_ppl", "reached", "diverged"]
    return pd.DataFrame(rows, columns=columns)


def finished(table, df):
    """The rows of arms whose seeds are all there."""
    return table[table.groupby(["arm", "start"]).seed.transform("nunique") >= enough(df)] if len(table) else table


def law(df, kind="TRM", start="own"):
    """The line log10(examples / parameters at the turn) over log10(parameters), all sizes of a kind of arm: the table of turns and
    (slope of log examples on log parameters, log10 ratio at the middle size) as Effects, or None where there is no line."""
    table = finished(turns(df), df)
    table = table[table.arm.isin([f"{kind} {size}" for size in SIZES]) & (table.start == start)]
    x, y = np.log10(table.parameters.to_numpy(float)), np.log10(table.ratio.to_numpy(float))
    fit = stats.censored_line(x, y, table.censored.to_numpy()) if len(table) else None
    return table, fit and (shifted(fit[0], 1), fit[1])


def shifted(e, by):
    return stats.Effect(e.estimate + by, e.low + by, e.high + by, e.p, e.n, e.level)


def nothing_to_forget(df, counted, arms, start="own"):
    """Why curves of these arms say nothing of forgetting, as text: an arm that even at its lowest is on average not better than single tokens'
    frequencies (`compare.references`), by ten times the rise that makes a turn, never knew anything. Empty where all did."""
    if counted is None:
        return "what counting tokens reaches is not evaluated yet"
    table = turns(df)
    lowest = np.log(table.lowest_ppl[table.start == start]).groupby(table.arm).mean()
    behind = [a for a in sorted(set(arms)) if lowest[a] > counted["unigram"] - 10 * stats.MARGIN]
    return f"{', '.join(behind)} never got far below what token frequencies reach: nothing to forget" if behind else ""


def law_verdict(df, counted, kind="TRM", start="own"):
    """(verdict, why) on "performance turns when the windows seen exceed the parameters". Models that never learnt anything, scored from
    that start, say nothing of it."""
    table, fit = law(df, kind, start)
    sizes = table.arm.nunique()
    if sizes < 2:
        return "open", f"{sizes} of the sizes complete; two are needed"
    if why := nothing_to_forget(df, counted, table.arm, start):
        return "open", why
    if table.censored.all():
        if table.reached.min() < CLAIMED["ratio"]:
            return "open", f"no curve turned, but the shortest run ends at {table.reached.min():.2f} windows a parameter"
        return (
            "not reproduced",
            f"no curve of {len(table)} runs at {sizes} sizes turned, up to {table.reached.min():.1f} windows a parameter",
        )
    lost = f"; {table.diverged.sum()} of {len(table)} runs diverged" if table.diverged.any() else ""
    if fit is None:
        share = table.groupby("arm").censored.mean()
        return "not reproduced" if (share > 0).any() else "inconclusive", f"curves turn at fewer than two sizes, so there is no line{lost}"
    slope, ratio = fit
    text = f"slope {slope.text(digits=2)}; log10 of windows a parameter {ratio.text(digits=2)}{lost}"
    if slope.excludes(1) or ratio.excludes(math.log10(CLAIMED["ratio"])):
        return "not reproduced", text
    return ("reproduced" if slope.excludes(0) else "inconclusive"), text


def turned(df):
    """A row for each complete arm and start: how many seeds' curves turned, and of those where (median windows a parameter) and how much
    higher than there they end."""
    table = finished(turns(df), df)
    rows = [
        {"arm": arm, "scored from": start, "seeds": len(g), "turned": int((~g.censored).sum()), "diverged": int(g.diverged.sum()),
         "at": float(np.median(g.ratio[~g.censored])) if (~g.censored).any() else None,
         "rise": float(np.median((g.last_ppl / g.lowest_ppl)[~g.censored])) if (~g.censored).any() else None,
         "reached": float(g.reached.min())}
        for (arm, start), g in table.groupby(["arm", "start"], sort=False)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "scored from", "seeds", "turned", "diverged", "at", "rise", "reached"])


def alike(df):
    """Arms with the published shape, at whatever level: every seed turns between 2/3 and 3/2 windows a parameter, and ends at least twice as
    high as at its lowest (published: 544 after 224), without any that diverged."""
    t = turned(df)
    return t[(t.turned == t.seeds) & (t.diverged == 0) & t["at"].astype(float).between(2 / 3, 1.5) & (t.rise.astype(float) >= 2)]


def shape(df, counted):
    """Those of `alike` that at their lowest knew more than token frequencies."""
    t = alike(df)
    return t.head(0) if counted is None else t[[not nothing_to_forget(df, counted, [r["arm"]], r["scored from"]) for _, r in t.iterrows()]]


def ppl_verdict(df, counted):
    """(verdict, candidates tested, by the kind of model that they were tested on, those that reproduce the shape) on 223.62. A shape found makes a candidate, not a proof."""
    t, found = turned(df), shape(df, counted)
    on = {c: sorted({MODELS.get(arm.split()[0], "TRM") for arm in t.arm if c in arm}) for c in CAUSES}
    on["start mismatch"] = ["leaking"] if (t["scored from"] != "own").any() else []
    kinds = sorted({m for models in on.values() for m in models}, key=lambda m: m != "leaking")
    tested = [f"on a {kind} model {', '.join(c for c, models in on.items() if kind in models)}" for kind in kinds]
    return ("open, with a candidate" if len(found) else "open"), tested, scored_from(found)


def scored_from(rows):
    """Arms of `turned` and the starts they were scored from, as text."""
    return [f"{r['arm']} scored from {r['scored from'].replace('own', 'its own start')}" for r in rows.to_dict("records")]


def examples_table():
    """The write-up's own table: its steps, the examples it states, and what its batch of 32 makes of the steps."""
    return pd.DataFrame(
        [{"step": f"{s:,}", "perplexity": p, "examples stated": f"{CLAIMED['examples'][s]:,.0f}", "steps × 32": f"{CLAIMED['batch'] * s:,}",
          "agree": "yes" if abs(CLAIMED["batch"] * s / CLAIMED["examples"][s] - 1) < 0.02 else "no"} for s, p in CLAIMED["curve"].items()]
    )  # fmt: skip


def causes(df, kind="steady", size=SMALL):
    """Rows for a forest: what one change of the training does to a model at its last step (`repeats` has the short texts)."""
    base = f"{kind} {size}"
    changed = ("sampling restarts", "optimiser forgotten", "sequential", "fp16 weights", "bf16 weights", "unused rows")
    pairs = [(f"{base} ({c})", base, c) for c in changed]
    pairs += [(f"{base} (stride 64)", f"{base} (stride 1)", "stride 64, against stride 1")]
    pairs += (
        [(base, f"{base} (decay)", "no decay, against cosine decay")]
        if kind == "steady"
        else [(f"{base} (lr 1e-3)", base, "ten times the rate")]
    )
    return [{"name": name + diverged(df, a), "effect": effect(df, a, b)} for a, b, name in pairs]


# ---------------------------------------------------------------- parameter efficiency


def efficiency(df, rival="standard", count="parameters", arm=ASKED):
    """(Effect over seeds, bound): how many times the parameters of `arm`, counted as one of COUNTS, a rival needs for its NLL, all
    having seen the same windows; (None, "") while pending.

    For each seed the rival's NLL is interpolated linearly in log parameters. Beyond the models that were trained nothing is
    extrapolated: the nearest of them stands for the answer, which is then "at most" or "at least" that, or "outside" where seeds lie on both sides."""
    own = df[df.arm == arm].set_index("seed")
    named = [f"{rival} {arm.split()[1]}"] + sorted({a for a in df.arm if a.startswith(f"{rival} d=") and compare.complete(df, a)})
    others = [df[df.arm == a].set_index("seed") for a in named]
    seeds = [s for s in own.index if all(s in g.index for g in others)]
    if len(seeds) < enough(df) or len(others) < 2:
        return None, ""
    logs, sides = [], set()
    for s in seeds:
        points = sorted((math.log(counted(g.loc[s], count)), g.nll_b[s]) for g in others)
        needed, side = crossing(*zip(*points, strict=True), own.nll_b[s])
        logs.append(needed - math.log(counted(own.loc[s], count)))
        sides.add(side)
    e = stats.paired(np.array(logs), np.zeros(len(logs)))
    bound = "outside" if {-1, 1} <= sides else "at most" if -1 in sides else "at least" if 1 in sides else ""
    return stats.Effect(*(math.exp(v) for v in (e.estimate, e.low, e.high)), e.p, e.n, e.level), bound


def by_slot(store, df):
    """{name: NLL (seeds, slots)} of the arms whose seeds are all evaluated, by what they know of each token of the chunk; of the TRM after each
    refinement, and of the first token as its encoder alone names it."""
    found, out = compare.evaluation_frame(store, df, "slots"), {}
    for arm in SLOTS:
        results = [r for (of, _), r in sorted(found.items()) if of == arm]
        if len(results) < enough(df):
            continue
        if "encoder" in results[0]:
            out[f"{arm}, its encoder alone"] = np.array([[r["encoder"]] for r in results])
            for k in range(1, len(results[0]["nll"]) - 1):
                out[f"{arm}, after {k} of {len(results[0]['nll']) - 1} refinements"] = np.array([r["nll"][k] for r in results])
        out[arm] = np.array([r["nll"][-1] for r in results])
    return out


def dilution(store, df):
    """{name: what each refinement adds to the gradient (seeds, refinements)} of the TRM that learns, as its training began and trained, and of
    those whose states, or all sums in the blocks, are brought to one size; of those whose seeds are all evaluated."""
    found, out = compare.evaluation_frame(store, df, "gradients"), {}
    for arm in (ASKED, *SIZED):
        results = [r for (of, _), r in sorted(found.items()) if of == arm]
        if len(results) >= enough(df):
            names = {"fresh": f"{arm}, before training", "trained": f"{arm}, trained"}
            out |= {
                name: np.array([r[state]["gradient"] for r in results])
                for state, name in names.items()
                if arm == ASKED or state == "trained"
            }
    return out


def counted(r, count):
    """Parameters of a run, counted as one of COUNTS."""
    return non_embedding(r) if count == "non_embedding" else int(r.parameters)


def by_size(df, count):
    """{kind: (thousands of parameters, perplexities)} of the complete arms that the efficiency is read off."""
    found = {}
    for kind, own in (("standard", "standard 0.1M"), ("causal", "causal 0.1M"), ("TRM", ASKED)):
        names = [a for a in dict.fromkeys(df.arm) if (a == own or a.startswith(f"{kind} d=")) and compare.complete(df, a)]
        points = sorted((counted(df[df.arm == a].iloc[0], count) / 1e3, math.exp(compare.scores(df, a).mean())) for a in names)
        if points:
            found[kind] = tuple(zip(*points, strict=True))
    return found


def crossing(x, y, target):
    """Where the line through the points (x, y), x ascending, first falls to `target`: (x, 0), or where it does not the nearer end of the
    points and the side on which the answer lies, -1 or 1."""
    if target >= y[0]:
        return x[0], -int(target > y[0])
    for k in range(1, len(x)):
        if y[k] <= target:  # and y[k - 1] is higher
            return x[k - 1] + (x[k] - x[k - 1]) * (y[k - 1] - target) / (y[k - 1] - y[k]), 0
    return x[-1], 1


def next_to(df, e):
    """Parameters of the standard models just below and above the efficiency `e` (an Effect), in those of the TRM whose efficiency is asked."""
    sizes = by_size(df, "parameters")
    ratios = np.array(sizes["standard"][0]) / sizes["TRM"][0][0]
    k = np.clip(np.searchsorted(ratios, e.estimate), 1, len(ratios) - 1)
    return ratios[k - 1], ratios[k]


def efficiency_verdict(df, rival="standard", count="parameters"):
    """(verdict, Effect, bound) on "2–3× parameter efficiency". A bound refutes where it alone rules the claim out, and decides nothing else."""
    e, bound = efficiency(df, rival, count)
    if e is None:
        return "open", None, ""
    low, high = CLAIMED["efficiency"]
    if (e.high < low and bound in ("", "at most")) or (e.low > high and bound in ("", "at least")):
        return "not reproduced", e, bound
    return ("reproduced" if e.low > 1 and not bound else "inconclusive"), e, bound


def times(e, bound):
    """What `efficiency` found, as text."""
    known = {"at most": e.high, "at least": e.low}
    return f"{bound} {known[bound]:.2f}" if bound in known else f"{e.estimate:.2f} [{e.low:.2f}, {e.high:.2f}]"


def going(df, counted):
    """{arm: (perplexity on part B, has it learnt half of what pairs tell?)} of GOING, as far as they are complete."""
    unlearnt = compare.unlearnt(df, counted)
    return {a: (math.exp(compare.scores(df, a).mean()), a not in unlearnt) for a in GOING if counted and compare.complete(df, a)}


def ablations(df, base=ASKED):
    """Rows for a forest: each ablation against its base."""
    names = list(
        dict.fromkeys(
            r.arm for r in grid("full") if r.spec.experiment == "capacity" and r.arm.startswith(f"{base} (") and "(lr" not in r.arm
        )
    )
    return [{"name": name[len(base) + 2 : -1] + diverged(df, name), "effect": effect(df, name, base)} for name in names]


# ---------------------------------------------------------------- evaluations and runs under way


def under_way(store, profile):
    """Runs that a checkpoint in the cache belongs to: rows of arm, seed, steps done and wanted, and the curve so far. A checkpoint
    of several seeds trained together gives a row for each."""
    groups, rows = {}, []
    for p in ("cpu", "full") if profile == "full" else (profile,):  # "full" shows cut runs, too, of what is long (SECTIONS)
        runs = [r for r in grid(p) if r.spec.experiment == "capacity"]
        groups |= {r.spec.hash: [r] for r in runs}
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
