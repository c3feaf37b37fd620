# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: "1.3"
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · When does thinking time help?
#
# The other chapters take a claim and look for its cause. This one asks the question itself, in two languages that were built
# for it. In both the best possible predictor is known exactly, so that every curve can be drawn against what could be
# reached, never against zero.
#
# Two different things are meant by "this needs thinking". **Serial depth:** the answer is many steps away, and each step needs
# the one before. **Coordination:** several answers must agree, and none can be given without the others. The two languages turn
# one of these dials each and hold the other still.
#
# Three words are kept apart. *Trained depth*: passes that a model was trained with. *Thinking time*: passes beyond those, at test
# time, by a model that may go on as long as it likes. *Marginals*: what a model says of one blank on its own.
#
# Nothing below trains, but for the last cell, which trains a reader's own language for a few seconds.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from trmlib import compare, plots
from trmlib.data.synthetic import Dial, Hops
from trmlib.experiments import when_report as report
from trmlib.export import save_table, say
from trmlib.runs import Store, spec_hash
from trmlib.tables import frame, records_digest

plots.style()
store = Store()
frames = {name: frame(store, name, profile) for name in ("hops", "dial", "masked")}
hops, dial, masked = frames.values()
digests = {name: records_digest(df) for name, df in frames.items()}
about = {name: compare.label(df, profile) for name, df in frames.items()}


def save(fig, name, caption, alt, of):
    return plots.save(fig, name, figures, f"{caption} ({about[of]})", alt, digests[of], "06_when")


for name in ("hops", "dial"):
    say(
        f"*{name}*: {len(frames[name])} runs, {about[name]}; {int((frames[name].status == 'failed').sum()) if len(frames[name]) else 0} diverged."
    )

# %% [markdown]
# ## Two languages with a known optimum
#
# **Hops** turns serial depth. A random permutation of elements is cut into chains, and shown as pointers: each element names the
# next, the last names itself. Then some elements are named as starts: at each, the end of *its* chain is asked for, k hops away. All
# chains look alike. So a reader who has followed fewer than k hops knows the ends, and nothing about which of them is right.
#
# **Dial** turns coordination. Two blanks, each uniform over K words; the second is the first, shifted by an amount that the context
# names, with the probability that makes the two share exactly the dialled number of nats. Per blank there is nothing to know at all.

# %%
for lang, group in ((Hops(), 4), (Dial(), 3)):
    window = lang.draw(np.random.default_rng(0), 1, group)
    say(
        f"**{type(lang).__name__}**, group {lang.groups[group]:.3g}: tokens {window['tokens'][0].tolist()} → {window['targets'][0].tolist()}; optimum {lang.optimum(group)}"
    )

# %%
lang = report.language(dial) if len(dial) else Dial()
display(pd.DataFrame(
    [{"dose (nats)": g, "a blank at best": lang.optimum(i)["blank"], "both at best": lang.optimum(i)["joint"]} for i, g in enumerate(lang.groups)]
).round(3))  # fmt: skip

# %% [markdown]
# ## Depth or thinking
#
# One block is applied to a start again and again, and reads the window anew at every pass; starts do not see one another. The models
# are trained on some lengths k only (1, 2, 3, 4, 6 and 8, opened one after another over the first half of training; *no curriculum* asks for
# all from the start), with 1, 2, 4 or 8 passes. Then they are given all lengths, and 0 to 16 passes. In the maps, bright is
# solved; below the dashed line lies trained depth, above it thinking time. A predictor that can follow *h* hops solves k ≤ h, and of
# the rest one in as many as there are chains.

# %%
shown = ["1 pass", "4 passes", "4 passes, within reach", "8 passes", "8 passes, random", "8 passes, commits"]
fig, axes = plt.subplots(2, 3, figsize=(7, 5.6), sharex=True, sharey=True)
for ax, arm in zip(axes.flat, shown, strict=True):
    c = report.cube(hops, arm)
    if c is None:
        plots.pending(ax, arm)
        continue
    image = plots.heat(c.mean(0), ax, arm, marks=[report.passes_of(report.whole(hops, arm)[0]) + 0.5])
    ax.set_xticks(range(0, c.shape[2], 3), range(1, c.shape[2] + 1, 3))
    fig.colorbar(image, ax=ax, label="accuracy") if ax is axes.flat[-1] else None
fig.supxlabel("hops k from start to answer", fontsize=11)
fig.supylabel("passes at test time", fontsize=11)
save(
    fig,
    "when_maps",
    "Accuracy by length k and passes at test time; dashed: the passes that the model was trained with.",
    "Six heat maps of accuracy over hops and passes, one a model: trained with one, four and eight passes, with four on lengths within their reach, with random numbers of passes, and with committed tokens.",
    "hops",
)
plt.show()

# %% [markdown]
# ### Which ingredient makes passes beyond training pay?
#
# Longer chains than any in training, more passes than any in training. The effect is the accuracy with 16 passes less the accuracy of
# the same model with its trained passes, or of a guess between the ends where that is better, seed by seed. Only models that may go on
# (tied) can have one. *Within reach* models were never asked for more hops than they have passes; their namesakes were, and could only guess.

# %%
table = report.thinking(hops, profile)
fig, ax = plt.subplots(figsize=(7, 5))
plots.forest(
    [{"name": r.arm, "effect": r.thinking} for r in table.itertuples()],
    ax,
    xlabel="accuracy gained on longer chains (points)",
)
save(
    fig,
    "when_thinking",
    "Thinking time: what 16 passes add to the trained number of passes, on chains longer than any in training, 95 % intervals.",
    "Forest plot, one row a model; pending and untied models have no interval.",
    "hops",
)
plt.show()

# %%
done = table[table.seeds >= compare.enough(hops)] if len(hops) else table[:0]
text = pd.DataFrame({"arm": ["no records yet"]})
if "trained" in done:
    share = lambda v: "–" if pd.isna(v) else f"{v:.0%}"  # noqa: E731
    text = pd.DataFrame({
        "arm": done.arm, "trained k": done.trained.map(share), "between": done["between"].map(share), "longer": done.beyond.map(share),
        "longer, most passes": done.beyond_most.map(share), "params": (done.parameters / 1e3).map("{:.0f} k".format), "MFLOP": done.mflop.map("{:.1f}".format),
    })  # fmt: skip
save_table(
    text,
    "when_hops_table",
    figures,
    f"Accuracy with the trained number of passes: lengths seen in training, unseen ones between, longer ones; and longer ones with most passes ({about['hops']}).",
    "Table of the models with their accuracies, parameters and compute a window.",
    digests["hops"],
    "06_when",
)
plt.show()

# %% [markdown]
# ### k or log k?
#
# The fewest passes that solve nine windows in ten, against the length. A model that follows one pointer a pass needs passes in proportion to k.
# One that joins pointers to pointers (every position working at once) can double its reach each pass, and needs their logarithm.

# %%
series, verdicts = {}, []
for arm in ("8 passes", "8 passes, random", "4 passes, within reach", "4 passes, whole window", "TRM"):
    need = report.needed(hops, arm)
    if need is not None and np.isfinite(need).all(0).any():
        k = np.flatnonzero(np.isfinite(need).all(0))
        series[arm] = (k + 1, need[:, k].mean(0))
    if g := report.growth(hops, arm):
        verdicts.append(
            f"- *{arm}*: R² {g['linear']:.3f} on k and {g['log']:.3f} on log k (difference {g['difference'].text()}); {g['per_hop']:.2f} passes a hop, {g['per_doubling']:.2f} a doubling."
        )
fig, ax = plt.subplots()
if series:
    plots.lines(series, ax, "hops k from start to answer", "passes needed")
else:
    plots.pending(ax, "passes needed")
save(
    fig,
    "when_growth",
    f"The fewest passes with which {report.LEVEL:.0%} of the windows are solved, mean over seeds, where all seeds get there.",
    "Passes needed against the number of hops, one line a model.",
    "hops",
)
plt.show()
say("\n".join(verdicts) or "No model has reached enough lengths yet.")

# %% [markdown]
# ### Does it forget where it started?
#
# Solve a window, then solve it again from the final state of *another* window. A recursion that settles on its answer ends in the same place (alignment 1);
# one that carries its work in its state goes on from the other's (0 or less). Latents are centred, and the likeness of different windows subtracted.

# %%
aligned = {arm: v for arm, v in report.alignments(store, hops).items() if arm in (*shown, "TRM")}
fig, ax = plt.subplots()
if aligned:
    plots.band_lines(aligned, ax, "hops k from start to answer")
    ax.set_ylabel("asymptotic alignment")
    ax.legend(fontsize=8, ncols=2)
else:
    plots.pending(ax, "alignment")
save(
    fig,
    "when_alignment",
    "Asymptotic alignment after 16 passes, by length.",
    "Alignment against the number of hops, one line a model.",
    "hops",
)
plt.show()

# %% [markdown]
# ## Marginals or joint
#
# Now the other dial. First what perplexity per blank can see: nothing. Whatever the dose, a blank on its own is uniform, and its best
# NLL is log K. Then what only joint measures see: the nats that the two blanks share.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8))
arms = ("parallel", "8 passes", "4 samples", "16 samples")
left = {a: v for a in arms if (v := report.blank_nll(dial, a))}
right = {a: v for a in arms if (v := report.dose_response(dial, a))}
filled = report.dose_response(dial, "parallel", ("coordination_ab", "coordination_ba"))
right |= {"parallel, filled one by one": filled} if filled else {}
if left:
    plots.lines(left, axes[0], "dose (nats)", "NLL of a blank (nats)")
    axes[0].axhline(lang.optimum(0)["blank"], color="#444444", linestyle=":")
    axes[0].set_ylim(0, 1.4 * lang.optimum(0)["blank"])
    axes[0].legend(fontsize=8)
    plots.lines(right, axes[1], "dose (nats)", "coordination (nats)")
    axes[1].plot(lang.groups, lang.groups, color="#444444", linestyle=":", label="all there is")
    axes[1].legend(fontsize=8)
else:
    for ax in axes:
        plots.pending(ax, "dose and response")
save(
    fig,
    "when_dose",
    "Dose and response. Left: per-blank NLL is blind to the dose. Right: coordination, log q(a, b) − log q(a) − log q(b) with the model's own marginals. Dotted: the optimum.",
    "Two panels against the dialled nats: per-blank NLL is flat; coordination rises only for filling and for samples.",
    "dial",
)
plt.show()

# %%
rows = []
for arm in report.arms("dial", profile):
    at = {name: report.dose_response(dial, arm, name) for name in ("parallel", "ab", "ba", "filled", "right", "right_own")}
    if at["parallel"]:
        rows.append({"arm": arm, **{name: v[1][-1] for name, v in at.items()}, "orders differ by": abs(at["ab"][1][-1] - at["ba"][1][-1])})
if rows:
    display(pd.DataFrame(rows).rename(columns={
        "parallel": "joint NLL, at once", "ab": "first a, then b", "ba": "first b, then a", "filled": "mixture of both orders", "right": "pair right, at once", "right_own": "pair right, own words",
    }).round(3))  # fmt: skip
    say(
        f"At the full dose the best joint NLL is {lang.optimum(len(lang.groups) - 1)['joint']:.3f} nats; mean over {compare.enough(dial)} seeds."
    )

# %% [markdown]
# ### Three ways to spend the same compute
#
# *Passes*: refine both blanks together, longer. *Samples*: run from K random starts, trained on the joint log-mean-exp, and score the mixture exactly. *Filling*: name one
# blank, write it down, read again, name the other. Coordination recovered, against FLOPs a window. (A mixture of K products holds at
# most log K nats of coordination, so that K samples cannot recover more, however they are trained.)

# %%
doses = [g for g in range(len(lang.groups)) if lang.groups[g] > 0]
fig, axes = plt.subplots(1, len(doses), figsize=(7, 3.6), sharey=True)
for ax, g in zip(np.atleast_1d(axes), doses, strict=True):
    found = report.recovered(dial, g)
    plots.ways(found, ax)
    ax.axhline(lang.groups[g], color="#444444", linestyle=":")
    ax.set_title(f"{lang.groups[g]:.2f} nats", fontsize=10)
    plots.plain_log(ax, "x", (1, 3))
    ax.tick_params(axis="x", labelsize=8)
    if not found:
        plots.pending(ax, "dose")
np.atleast_1d(axes)[0].set_ylabel("coordination (nats)")
fig.supxlabel("MFLOP a window", fontsize=11)
if report.recovered(dial, doses[0]):
    np.atleast_1d(axes)[0].legend(fontsize=9)
save(
    fig,
    "when_compute",
    "Coordination recovered against compute, three ways of spending it, at four doses; dotted: the dialled nats.",
    "One panel a dose: passes stay at zero, samples rise slowly with compute, filling reaches the dialled nats at twice the cost of one reading.",
    "dial",
)
plt.show()

# %% [markdown]
# ## Back to language
#
# The same three ways on WikiText-2, with models that were trained on one blank *and* more. How many nats do neighbouring words share, and distant ones, and how
# much of it does each way recover? (A filled pair's own marginal is estimated from sampled words; for three blanks filling is the gain in joint NLL over naming all at once.)

# %%
fig, axes = plt.subplots(2, 2, figsize=(7, 5.4), sharey=True)
for row, blanks in enumerate((2, 3)):
    for column, where in enumerate(("neighbours", "distant")):
        ax, found = axes[row, column], report.language_coordination(store, masked, where, blanks)
        plots.ways(found, ax)
        plots.pending(ax, f"{blanks} blanks, {where}") if not found else ax.set_title(f"{blanks} blanks, {where}", fontsize=10)
        if found:
            plots.plain_log(ax, "x", (1, 2, 5))
            ax.legend(fontsize=8)
fig.supxlabel("MFLOP a window", fontsize=11)
fig.supylabel("nats recovered", fontsize=11)
save(
    fig,
    "when_language",
    "WikiText-2: nats that two or three blanks share, recovered by passes, samples and filling, against compute.",
    "Four panels, two and three blanks, neighbouring and distant: nats recovered against compute for three ways.",
    "masked",
)
plt.show()

# %% [markdown]
# ## The answer
#
# Every task of the report, placed by what it needs: serial steps to the right, nats that its answers must share upwards. Colour and size are the gain from
# thinking time: the share of errors it removes, or by how much it lowers perplexity. Depth is known for *hops* (k) and *dial* (1); for text it is the fewest passes
# that do as well as three, within ±2 %.

# %%
points, missing = report.answer(store, frames, profile)
fig, ax = plt.subplots(figsize=(7, 4.6))
if points:
    at = pd.DataFrame(points)
    x = at.depth.clip(lower=0.5)
    y = at.coordination.astype(float).fillna(0)
    size = 60 + 400 * at.gain.clip(0, 1)
    dots = ax.scatter(x, y, s=size, c=at.gain.clip(0, 1), cmap="viridis", vmin=0, vmax=1, edgecolor="#444444", zorder=3)
    plots.doubling(ax, [0.5, 1, 2, 4, 8, 16], ["none", "1", "2", "4", "8", "16"])
    ax.set_xlim(0.4, 60)
    ax.set_ylim(-0.25, 3.3)
    ax.set_xlabel("serial steps needed")
    ax.set_ylabel("coordination needed (nats)")
    fig.colorbar(dots, label="gain from passes")
    unknown = at.coordination.isna().map({True: " (coordination not measured yet)", False: ""})
    plots.labels(ax, x, y, at.task + ": " + at.gain.map("{:+.0%}".format) + unknown)
else:
    plots.pending(ax, "the answer")
if missing:
    ax.set_title("not recorded yet: " + ", ".join(missing), fontsize=9, color="#666666")
plots.save(
    fig, "when_answer", figures, "Where thinking time helps: gain from passes over serial depth and coordination, every task of the report that has records.",
    "Scatter plot of tasks over serial steps needed and coordination needed; size and colour show the gain from passes. Missing tasks are named in the title.",
    spec_hash(sorted(digests.values())), "06_when",
)  # fmt: skip
plt.show()

# %%
advice = report.advice(frames, profile)
save_table(
    advice, "when_advice", figures, "What to spend compute on, by what the task looks like; each row from records.",
    "Table: your task looks like this, spend compute on that, expect this much at this cost.", spec_hash(sorted(digests.values())), "06_when",
)  # fmt: skip
plt.show()

# %% [markdown]
# ## Your own language
#
# A task of your own is one small class: what a window looks like, where its blanks are. Here, the second of two shown words, asked for by a third that
# says which. Nothing else changes.

# %%
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from trmlib.data.synthetic import MASK, Language
from trmlib.experiments.fill import FillTask
from trmlib.models.masked import MaskedConfig
from trmlib.runs import Spec, TrainConfig
from trmlib.train import train


@dataclass(frozen=True)
class Which(Language):
    words: int = 8

    vocab, context = property(lambda self: 3 + self.words), 4

    def draw(self, rng, rows, group=None):
        shown, which = 3 + rng.integers(self.words, size=(rows, 2)), rng.integers(2, size=rows)
        tokens = np.concatenate([shown, 1 + which[:, None], np.full((rows, 1), MASK)], 1)
        return {"tokens": tokens, "at": np.full((rows, 1), 3), "targets": shown[np.arange(rows), which][:, None]}


spec = Spec(
    "which",
    MaskedConfig(d=32, dropout=0.0, passes=1, sees="context"),
    Which(),
    TrainConfig(steps=150, batch=64, lr=3e-3, eval_every=50),
    seed=0,
)
with TemporaryDirectory() as scratch:
    record = train(FillTask(spec), [spec], Store(scratch, scratch))[0]
say(f"After {record['steps']} steps: accuracy {record['metrics']['accuracy_all']:.0%} (chance: {1 / spec.data.words:.0%}).")
