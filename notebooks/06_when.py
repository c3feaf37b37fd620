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
# Three words are kept apart. *Trained depth*: passes that a model was trained with, up to the most that it ever made in a row. *Thinking
# time*: passes beyond those, at test time, by a model that may go on as long as it likes. *Marginals*: what a model says of one blank on its own.
#
# Nothing below trains, but for the last cell, which trains a reader's own language for a few seconds.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from trmlib import compare, plots
from trmlib.data.synthetic import Dial, Hops
from trmlib.experiments import when_report as report
from trmlib.export import save_table, say, show_table
from trmlib.runs import Store, spec_hash
from trmlib.tables import frame, records_digest

plots.style()
store = Store()
frames = {name: frame(store, name, profile) for name in ("hops", "dial", "masked")}
frames["hops"] = report.longer(store, frames["hops"])  # up to 32 passes at test time, where the weights were measured so
hops, dial, masked = frames.values()
everything = spec_hash(sorted(records_digest(df) for df in frames.values()))


def drawn(of, arms):
    """The records of the complete ones among some arms, which are all that a figure shows."""
    df = frames[of]
    return df[df.arm.isin([a for a in arms if compare.complete(df, a)])]


def save(fig, name, caption, alt, of, arms):
    return plots.save(
        fig, name, figures, f"{caption} ({compare.label(frames[of], profile, arms)})", alt, records_digest(drawn(of, arms)), "06_when"
    )


for name in ("hops", "dial"):
    say(
        f"*{name}*: {len(frames[name])} runs, {compare.label(frames[name], profile)}; {int((frames[name].status == 'failed').sum()) if len(frames[name]) else 0} diverged."
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
show_table(pd.DataFrame(
    [{"dose (nats)": g, "a blank at best": lang.optimum(i)["blank"], "both at best": lang.optimum(i)["joint"]} for i, g in enumerate(lang.groups)]
).round(3))  # fmt: skip

# %% [markdown]
# ## The five primary comparisons
#
# They were not fixed beforehand: they were written down when the arms that they name had been trained and looked at. Holm's
# correction is for having chosen five; it cannot turn them into predictions. What is *detectable* is the smallest true difference that ten such
# seeds would show four times in five. Everything else in this chapter is exploratory: hollow marks are not told from zero at a false-discovery rate of 10 %.

# %%
first = report.primary(hops, dial)
show_table(compare.comparison_table(first))

# %% [markdown]
# ## Depth or thinking
#
# One block is applied to a start again and again, and reads the window anew at every pass; starts do not see one another, but for *whole window*, *blind* and *0 passes*, and for the arms with *n* = 2, whose update of *y* reads no window and lets them. (Those are trained on windows with starts of several
# lengths and tested on windows of one, so that part of what they learnt to use is missing in the test.) The models
# are trained on some lengths k only (1, 2, 3, 4, 6 and 8, opened one after another over the first half of training; *no curriculum* asks for
# all from the start), with 1, 2, 4 or 8 passes, *random* with 1 to 15, drawn anew at each step. Then they are given all lengths, and 0 to 32 passes.
# Bright is solved. Below the dashed line lies trained depth, up to the most passes ever made in training; above it thinking time. The
# staircase is the best that a reader of one pointer a pass can do: all of k ≤ passes is solved, and of the rest one in as many as there are chains.

# %%
shown = ["1 pass", "4 passes", "4 passes, within reach", "8 passes", "8 passes, random", "8 passes, commits"]
fig, axes = plt.subplots(2, 3, figsize=(7, 6.4), sharex=True, sharey=True)
for ax, arm in zip(axes.flat, shown, strict=True):
    c = report.cube(hops, arm)
    if c is None:
        plots.pending(ax, arm)
        continue
    image = plots.heat(c.mean(0), ax, arm.replace(", ", ",\n"), marks=[report.trained_most(report.whole(hops, arm)[0]) + 0.5])
    lengths = np.arange(c.shape[2] + 1)
    ax.stairs(lengths[1:] - 0.5, lengths - 0.5, baseline=None, color=plots.COLOURS[1], linewidth=1.6)
    ax.set_xticks(range(0, c.shape[2], 3), range(1, c.shape[2] + 1, 3))
    ax.set_yticks(range(0, c.shape[1], 8))
if len(drawn("hops", shown)):
    bar = fig.colorbar(image, ax=axes, location="top", aspect=40, shrink=0.9)
    bar.set_ticks([0, report.guess(hops), 1], labels=["none solved", "as many as a guess", "all"])
fig.supxlabel("hops k from start to answer", fontsize=11)
fig.supylabel("passes at test time", fontsize=11)
save(
    fig,
    "when_maps",
    "Accuracy by length k and passes at test time. Dashed: the most passes that the model was trained with. Staircase: one pointer a pass. Within reach: never asked in training for more hops than it has passes; random: with a number of passes drawn anew at each step; commits: writes a token down after each pass.",
    "Six heat maps of accuracy over hops and passes, one a model: trained with one, four and eight passes, with four on lengths within their reach, with random numbers of passes, and with committed tokens. A staircase marks k = passes, a dashed line the most passes of training.",
    "hops",
    shown,
)
plt.show()

# %% [markdown]
# ### How far from the best reader?
#
# The same in nats. Dotted: the lowest expected NLL of a reader who has followed as many pointers as there were passes, nothing for k within
# reach and log 2 beyond (there are two ends). A model far above it is not undecided between the ends but sure of something else.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 4.2), sharey=True)
steps = ["8 passes", "8 passes, random"]
for ax, arm in zip(axes, steps, strict=True):
    found = report.nll_by_length(hops, arm, (1, 4, 8, 16, 32))
    if not found:
        plots.pending(ax, arm)
        continue
    for i, (passes, (k, mean, _, _, best)) in enumerate(found.items()):
        ax.plot(k, np.maximum(mean, 1e-3), color=plots.COLOURS[i], marker=plots.MARKERS[i], markersize=4, label=f"{passes}")
        ax.step(k, np.maximum(best, 1e-3), color=plots.COLOURS[i], linestyle=":", where="mid")
    ax.set_yscale("log")
    ax.set_xticks(k[::3])
    ax.set_title(arm)
if len(drawn("hops", steps)):
    fig.legend(*axes[0].get_legend_handles_labels(), title="passes at test time", loc="outside upper center", ncols=5)
    axes[0].set_ylabel("NLL (nats)")
fig.supxlabel("hops k from start to answer", fontsize=11)
save(
    fig,
    "when_optimum",
    "NLL by length after 1 to 32 passes, mean over seeds, against the optimum (dotted, drawn at 0.001 where it is 0) of a reader of one pointer a pass.",
    "Two panels of NLL over hops on a logarithmic axis, one line for each number of passes, with dotted steps for the optimum.",
    "hops",
    steps,
)
plt.show()

# %% [markdown]
# ### Which ingredient makes passes beyond training pay?
#
# Longer chains than any in training, more passes than any in training. The effect is the accuracy with the most passes tested less the accuracy of
# the same model with the most passes of its training, or of a guess between the ends where that is better, seed by seed. A model that drew
# its passes at random was trained with up to 15 of them, one that was supervised four times carried its state through 4 × 2: these count as
# trained. (With 15 passes only k = 16 is out of reach of a reader of one pointer a pass, so that *random* has little left to gain.) Only models
# that may go on (tied) can have an effect. Scores end at the last pass before a model's states leave the range of 32-bit numbers, where its norms give zeros. *Within reach* models were never asked for more hops than they have passes; their namesakes were, and could only guess.

# %%
table = report.thinking(hops, profile)
fig, ax = plt.subplots(figsize=(7, 6))
tied = report.may_go_on(profile)
tested = {r.arm: int(r.most) for r in table.itertuples() if r.thinking}
most = max(tested.values(), default="pending")
fewer = "".join(f"; {arm}: {passes}" for arm, passes in tested.items() if passes < most)
plots.forest(
    [{"name": r.arm, "effect": r.thinking} for r in table.itertuples() if r.arm in tied],
    ax,
    xlabel="accuracy gained on longer chains (points)",
    percent=False,
)
save(
    fig,
    "when_thinking",
    f"Thinking time: what the most passes tested ({most}{fewer}) add to the most of training, or to a guess where that is better, on chains longer than any in training, 95 % intervals. Every: each pass is read out and trained; blind: the window is read once, before the passes; commits: writes a token down after each pass; whole window: all of it is refined, not the starts alone; TRM: its recursion of two states; 1 pass, n = 2: the last pass of that alone; bounded: states brought to one size after each pass; normed: so is every sum in the blocks; × 4 supervised: four rounds of training that carry the state on.",
    "Forest plot, one row a model with its gain and interval in points of accuracy; pending models have no interval.",
    "hops",
    tied,
)
plt.show()

# %%
done = table[table.seeds >= compare.enough(hops)] if len(hops) else table[:0]
text = pd.DataFrame({"arm": ["no records yet"]})
if "trained" in done:
    share = lambda v: "–" if pd.isna(v) else f"{v:.0%}"  # noqa: E731
    text = pd.DataFrame({
        "arm": done.arm, "read": done.read_at.map("{:.0f}".format), "trained": done.most_trained.map("{:.0f}".format), "tested": done.most.map("{:.0f}".format),
        "seen k": done.trained.map(share), "between": done["between"].map(share), "longer": done.beyond.map(share),
        "most": done.beyond_most.map(share), "MFLOP": done.mflop.map("{:.1f}".format),
    })  # fmt: skip
save_table(
    text,
    "when_hops_table",
    figures,
    f"Passes after which a model is read, the most of its training and the most tested; accuracy as read, on lengths seen in training, unseen ones between and longer ones, and on longer ones with the most passes; MFLOP of a reading ({compare.label(hops, profile, list(done.arm))}).",
    "Table of the models with their passes, accuracies and compute a window.",
    records_digest(drawn("hops", list(done.arm))),
    "06_when",
)
plt.show()

# %% [markdown]
# ### Kept to one size
#
# A recursion of two states, *y* and *z*, adds each to what its blocks make of it, and nothing here brings the sum back to size, as each block of the paper's TRM does: the states grow at every pass, and what a pass adds counts for less and less
# (chapter 04). The *bounded* arms bring both to unit size after each pass. They were added when all others were recorded; and when these were, the *normed* ones, which bring
# every sum of their blocks to unit size, as the paper's do. A seed has *mastered* its task if it solves nine in ten windows at the lengths of its training; that
# split looks at results, and no comparison is corrected.

# %%
say(
    "\n".join(
        f"- *{r['arm']}* against *{r['free']}*: {report.points(r['trained'])} on trained lengths{', ' + report.points(r['between']) + ' between them' if 'between' in r else ''}. "
        f"Mastered by {len(r['mastered'])} of {r['seeds']} seeds, without by {len(r['mastered_free'])}."
        + (
            f" These solve {r['mastered'][:, 0].mean():.0%} of longer chains with their trained passes, {r['mastered'][:, 1].mean():.0%} with the most tested (each seed {r['mastered'][:, 1].min():.0%} or more)."
            if len(r["mastered"])
            else ""
        )
        + (
            f" Of the others {r['climbing']} ({r['climbing_free']} of the rival's) were still learning when training ended: better by more than {100 * compare.SAME:.0f} points in its last quarter than in the one before."
            if r["climbing"] or r["climbing_free"]
            else ""
        )
        for r in report.one_size(hops)
    )
    or "Not recorded yet."
)

# %% [markdown]
# ### How far does the gradient reach?
#
# TRM detaches: of the passes before an answer only the last carries gradient, and supervision goes on from the state reached, which is detached, too. That saves memory, and is sound where a recursion has
# come near a fixed point. Here every pass has a step to do that nobody tells it. Below: how often training reads the window for an answer, through how many of these reads the gradient goes, and what is
# solved at each length, as trained. *× 4 supervised*: four rounds, each from the state of the one before, each with a loss and an optimiser step; *TRM, normed × 4 supervised* brings every sum of its blocks to size, as the paper's do, and has its
# gradient and supervision (two passes, one with gradient). One learning rate for all. Exploratory: the comparisons were chosen with most of these arms recorded.
# The two of *1 pass, n = 2*, TRM's last pass alone, came when all others were.

# %%
reach = report.gradient_reach(hops)
ks = [k for k in (1, 2, 3, 4, 6, 8) if reach and k <= len(reach[0]["accuracy"])]
if reach:
    show_table(
        pd.DataFrame(
            [
                {
                    "arm": r["arm"],
                    "reads": r["reads"],
                    "with gradient": r["reach"],
                    **{f"k = {k}": f"{r['accuracy'][k - 1]:.0%}" for k in ks},
                }
                for r in reach
            ]
        )
    )
say(
    "\n".join(
        f"- *{r['arm']}* against *{r['against']}*, lengths within its gradient's reach (k ≤ {r['reach']}): {report.points(r['effect'])}."
        for r in reach
        if r["against"]
    )
    or "Not recorded yet."
)
alone = [(r["arm"], r["reach"], *r["without"]) for r in reach if r["without"]]
say(
    "\n".join(
        f"- *{arm}* against *{rival}*, which has the same gradient and none of the detached passes, lengths k ≤ {k}: {report.points(e)}."
        for arm, k, rival, e in alone
    )
)
won = " and ".join(
    f"{-100 * r['without'][1].estimate:.0f} of the {-100 * r['effect'].estimate:.0f} points that *{r['arm']}* loses"
    for r in reach
    if r["without"] and r["against"]
)
if (cut := [r["effect"] for r in reach if r["against"]]) and all(e.high < 0 for e in cut):
    say(
        "**All of them lose what their gradient does reach.** These pairs differ in more than that: the rivals' gradient goes through more reads (but for *2 passes*, which has a fourth of the updates). "
        + (
            f"But the last pass alone, with the same gradient and without the detached passes, learns {won}: that much **is the detached passes' doing**, by the state that they hand to it. "
            if alone and all(e.high < 0 for *_, e in alone)
            else "So this is no proof of what the detached passes do; that they change the state which the last one is given, we conjecture. "
        )
        + "What keeps states in size does not help, and depth is not what is missing. On Sudoku the same "
        "detached rounds do learn (chapter 05): there, we conjecture, every pass can come closer to the answer, and is rewarded for it."
    )

# %% [markdown]
# ### k or log k?
#
# The fewest passes that solve nine windows in ten, against the length. A model that follows one pointer a pass needs k of them.
# One that joins pointers to pointers (every position working at once) can double its reach each pass, and needs log₂ k. (A guess never
# gets there: it solves one window in two.)

# %%
series, verdicts = {}, []
growing = ["8 passes", "8 passes, random", "4 passes, within reach", "4 passes, whole window", "TRM"]
for arm in growing:
    need = report.needed(hops, arm)
    if need is not None and np.isfinite(need).all(0).any():
        k = np.flatnonzero(np.isfinite(need).all(0))
        series[arm] = (k + 1, need[:, k].mean(0))
    if g := report.growth(hops, arm):
        verdicts.append(
            f"- *{arm}*: R² {g['linear']:.3f} on k and {g['log']:.3f} on log k (difference {g['difference'].text()}); {g['per_hop']:.2f} passes a hop, {g['per_doubling']:.2f} a doubling."
        )
fig, ax = plt.subplots(figsize=(7, 4.6))
if series:
    plots.lines(series, ax, "hops k from start to answer", "passes needed")
    k = np.arange(1, report.language(hops).length + 1)
    ax.plot(k, k, color="#444444", linestyle=":", zorder=1, label="k: one pointer a pass")
    ax.plot(k, np.log2(k), color="#444444", linestyle="--", zorder=1, label="log₂ k: pointers joined")
    ax.legend(fontsize=10)
else:
    plots.pending(ax, "passes needed")
save(
    fig,
    "when_growth",
    f"The fewest passes with which {report.LEVEL:.0%} of the windows are solved, mean over seeds, where all seeds get there; dotted k, dashed log₂ k.",
    "Passes needed against the number of hops, one line a model, with reference lines k and log₂ k.",
    "hops",
    list(series) or growing,
)
plt.show()
say("\n".join(verdicts) or "No model has reached enough lengths yet.")

# %% [markdown]
# ### Which pass reads which pointer?
#
# That passes grow with k is how a model behaves. What it *does* can be asked by changing the text under its eyes: let it make some passes, exchange what follows a certain hop on both chains, so that the answer
# is now the other end, and let it go on from the state that it has. A reader of one pointer a pass names the new end if that hop was still ahead of it, and the old one if it lies
# behind, read and done with: a staircase. One that joins pointers, or reads them all at first, draws something else. Each panel: the longest chains, exchanged at each hop after each number of passes, then all passes to
# the most tested. Counted are questions that the model solves in both windows when nothing is exchanged.
#
# Exploratory, and added last. The weights of the records had not been kept; these were trained again with the recipes and seeds of the records on another processor, whose rounding alone makes
# other models of them. What they solve is said beside what the records say.

# %%
opened = report.pointers_read(store, hops)
fig, axes = plt.subplots(1, len(report.OPENED), figsize=(7, 4), sharex=True, sharey=True)
for ax, arm in zip(axes, report.OPENED, strict=True):
    if arm not in opened:
        plots.pending(ax, arm)
        continue
    r = opened[arm]["longest"]
    image = plots.heat(r["new"], ax, arm.replace(", ", ",\n"))
    ax.stairs(np.arange(1, r["k"] + 1) - 0.5, np.arange(r["k"] + 1) - 0.5, baseline=None, color=plots.COLOURS[1], linewidth=1.6)
    ax.set_xticks(range(0, r["k"], 3), range(1, r["k"] + 1, 3))
    ax.set_yticks(range(0, len(r["new"]), 4))
if opened:
    bar = fig.colorbar(image, ax=axes, location="top", aspect=40, shrink=0.9)
    bar.set_ticks([0, 1], labels=["no answer follows the exchange", "all do"])
    bar.ax.get_xticklabels()[0].set_ha("left")
fig.supxlabel("hop after which the chains exchange their rest", fontsize=11)
fig.supylabel("passes made before", fontsize=11)
save(
    fig,
    "when_pointers",
    "Which pass reads which pointer: both chains exchange their rest after a hop, with so many passes made before. Share of answers that name the new end, of questions solved in both windows. Staircase: a reader of one pointer a pass follows an exchange ahead of it, below the line, and does not notice one behind.",
    "Heat maps of the hop of an exchange by the passes made before it, one a model, with a staircase line where a reader of one pointer a pass would change from the new end to the old.",
    "hops",
    list(opened),
)
plt.show()
told = {"trained": "the longest way of training", "longest": "the longest of all"}
say(
    "\n".join(
        f"- *{arm}*, {told[way]} (k = {r['k']}, {r['passes']} passes): "
        + (
            f"{mean:.1%} [{low:.1%}, {high:.1%}] of answers are those of a reader of one pointer a pass, of the {r['solved'].mean():.0%} of questions that are solved in both windows."
            if r["k"] <= r["passes"]
            else "more pointers than passes, so that no reader of one a pass gets through."
        )
        + f" With nothing exchanged these models solve {r['accuracy'].mean():.0%}, those of the records {report.cube(hops, arm)[:, r['passes'], r['k'] - 1].mean():.0%}."
        for arm, ways in opened.items()
        for way, r in ways.items()
        for mean, low, high in [report.interval(r["agrees"])]
    )
    or "Not measured yet."
)

# %% [markdown]
# ### Does it forget where it started?
#
# Solve a window, then solve it again from the final state of *another* window. A recursion that settles on its answer ends in the same place (alignment 1);
# one that goes on from whatever state it is handed stays near the other window's (−1). Latents are centred, and the likeness to the other window subtracted.
#
# This can only be asked of a model that reads its question again. In most models here the start is known to the state alone (the
# passes read the pointers, the starts being hidden from them); putting another window's state in its place takes the question away, and 1
# cannot be reached whatever the model does. So only *whole window* is shown, which adds the embedded window, starts included, again at every pass. Where it has learnt no more than to guess,
# its alignment says nothing about solving.

# %%
aligned = report.alignments(store, hops)
fig, ax = plt.subplots()
if aligned:
    plots.band_lines(aligned, ax, "hops k from start to answer")
    for at, what in {1: "forgets its start", -1: "stays with its start"}.items():
        ax.axhline(at, color="#444444", linestyle=":")
        ax.annotate(what, (1, at), (0, -3 * at), textcoords="offset points", va="top" if at > 0 else "bottom", fontsize=10)
    ax.set(ylabel="asymptotic alignment", ylim=(-1.1, 1.1))
    ax.legend(fontsize=10)
else:
    plots.pending(ax, "alignment (4 passes, whole window)")
save(
    fig,
    "when_alignment",
    "Asymptotic alignment after 16 passes, by length, of models that read the question again at every pass.",
    "Alignment against the number of hops, one line a model.",
    "hops",
    list(aligned),
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
    arms,
)
plt.show()

# %%
rows = []
for arm in report.arms("dial", profile):
    at = {name: report.dose_response(dial, arm, name) for name in ("parallel", "ab", "ba", "filled", "right", "right_own")}
    if at["parallel"]:
        rows.append({"arm": arm, **{name: v[1][-1] for name, v in at.items()}, "orders differ by": abs(at["ab"][1][-1] - at["ba"][1][-1])})
if rows:
    show_table(pd.DataFrame(rows).rename(columns={
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
    "Coordination recovered against compute, three ways of spending it, at four doses; dotted: the dialled nats. Passes: both blanks refined together; samples: a mixture over random starts; filling: one blank named and written down, then the other.",
    "One panel a dose: passes stay at zero, samples rise slowly with compute, filling reaches the dialled nats with two readings.",
    "dial",
    report.arms("dial", profile),
)
plt.show()

# %% [markdown]
# ## Back to language
#
# The same three ways on WikiText-2, with models that were trained on one blank *and* more. How many nats do neighbouring words share, and distant ones, and how
# much of it does each way recover? Filling is the mean over the orders, and costs what one order costs. A filled pair's own marginal is a sum over all words: the likeliest 24, the
# right one among them, are taken exactly, the rest from 8 drawn ones. The sum is unbiased, its logarithm a little too low; so filling, and only filling, is shown a little too *high*.
# For three blanks, where that sum would be over pairs of words, filling is the gain in joint NLL over naming all at once. (On Dial all sums are over all words: nothing there is estimated.)

# %%
fig, axes = plt.subplots(2, 2, figsize=(7, 5.4), sharey=True)
for row, blanks in enumerate((2, 3)):
    for column, where in enumerate(("neighbours", "distant")):
        ax, found = axes[row, column], report.language_coordination(store, masked, where, blanks)
        plots.ways(found, ax)
        plots.pending(ax, f"{blanks} blanks, {where}") if not found else ax.set_title(f"{blanks} blanks, {where}", fontsize=10)
        if found and not row + column:
            ax.legend(fontsize=9)
fig.supxlabel("MFLOP a window", fontsize=11)
fig.supylabel("nats recovered", fontsize=11)
save(
    fig,
    "when_language",
    "WikiText-2: nats that two or three blanks share, recovered by passes, samples and filling, against compute.",
    "Four panels, two and three blanks, neighbouring and distant: nats recovered against compute for three ways.",
    "masked",
    list(dict.fromkeys(arm for names, *_ in report.LANGUAGE_WAYS.values() for arm in names)),
)
plt.show()

# %% [markdown]
# ## The answer
#
# Every task of the report, placed by what it needs: serial steps to the right (of text the fewest passes with which the same recursive arm is as good: no independent measure), nats that its answers must share upwards, or on the strip below where nothing
# has measured them. Rings are trained depth: what the passes of training bring over none (over one on Hops, over the first supervision step on Sudoku).
# Discs are thinking time: what passes beyond all of training add; crosses, what they take. Areas are gains in points of accuracy (blue) or in % of perplexity (orange); the two are
# not to be compared with each other. What trained depth loses has no area; the numbers stand in the key.
#
# Steps are known for *hops* (k) and *dial* (1), and counted as rounds of deductions for Sudoku. For text they are the fewest passes beyond a plain reading with which perplexity is
# no more than 2 % above that of the full recursion, *none* if a plain reading is enough, as far as arms with fewer passes have been trained; not known where one of these is neither that good nor shown to be worse.

# %%
tasks, missing = report.answer(store, frames, profile)
if tasks:
    fig, (ax, key) = plt.subplots(2, 1, figsize=(7, 6.2 + 0.3 * len(tasks)), height_ratios=[5.2, 0.7 + 0.3 * len(tasks)])
    at = pd.DataFrame([
        {**{k: t[k] for k in ("number", "depth", "coordination", "unit")}, "trained": t["trained"].estimate,
         "thinking": t["thinking"].estimate if t["thinking"] else np.nan, "loses": report.loses(t), "thin": bool(set(t["thin"]) - {report.TOY})} for t in tasks
    ])  # fmt: skip
    at[["depth", "coordination"]] = at[["depth", "coordination"]].astype(float)
    plots.tasks(at, ax)
    ax.set_xlabel("serial steps needed")
    ax.set_ylabel("coordination needed (nats)")
    for kind, fill in (("ring: trained depth", "none"), ("disc: thinking time beyond it", "#666666")):
        ax.scatter([], [], 110, facecolors=fill, edgecolors="#666666", linewidths=1.6, label=kind)
    ax.scatter([], [], 110, color="#666666", marker="x", linewidths=2.4, label="cross: thinking time loses")
    for kind, colour in (("points of accuracy", plots.COLOURS[0]), ("% of perplexity", plots.COLOURS[1])):
        ax.scatter([], [], 60, color=colour, marker="s", label=kind)
    ax.legend(loc="upper right", fontsize=10)
    plots.table(report.answer_table(tasks), key)
else:
    fig, ax = plt.subplots()
    plots.pending(ax, "the answer")
if missing:
    ax.set_title("not recorded yet: " + ", ".join(missing), fontsize=10, color="#666666")
plots.save(
    fig, "when_answer", figures, f"Where thinking time helps: every task of the report that has records (profile {profile}), by serial steps and coordination needed (tasks that would lie on one another stand side by side). Rings: gain from trained depth; discs: from passes beyond training; crosses: what these take away, where it is 1 % or point or more. In the key more is better (of perplexity, its fall); the smallest mark is no gain. Steps of text are the fewest passes with which the same model is as good, which is no independent measure of what the task needs. Hops: following pointers; Dial: two answers that must agree. Hops and Dial are one synthetic language each; † and broken rings: fewer than ten seeds or a cut profile.",
    "Map of numbered tasks over serial steps and coordination needed, with a strip for tasks whose coordination was not measured, and below it a key: number, task, gain from trained depth and from thinking time with 95 % intervals, seeds.",
    everything, "06_when",
)  # fmt: skip
plt.show()
show_table(pd.DataFrame([{"task": t["task"], "steps": t["depth"], "nats": t["coordination"] if t["coordination"] is not None else t["shared"], "thin evidence": ", ".join(t["thin"]) or "–"} for t in tasks]))  # fmt: skip

# %% [markdown]
# ### What to spend compute on
#
# The arms are fixed in code, and were when most of the records were known: this is advice, not a test. Gains on longer chains are those over a guess, where a guess is better than the trained passes. Thin evidence is marked as such.

# %%
advice = report.advice(store, frames, profile)
cards = [
    (
        f"{r['your task']} → {r['spend on']}",
        f"{r['expect']}" + (f"; cost: {r['cost']}" if r["cost"] != "–" else ""),
        f"{r['evidence']}. Records: {r['records']} (chapter {r['where'][:2]})",
    )
    for _, r in advice.iterrows()
]
fig, ax = plt.subplots(figsize=(7, 0.78 * len(cards) + 0.6))
plots.cards(cards, ax)
save_table(
    advice, "when_advice", figures, "What to spend compute on, by what the task looks like; each entry from the records that it names.",
    "List: your task looks like this, spend compute on that, expect this much at this cost, on this evidence, from these records.", everything, "06_when", fig,
)  # fmt: skip
plt.show()
say(report.advice_links(advice))

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

# %% [markdown]
# ## What it means
#
# The list is made by rule from the comparisons above; what is pending stays open. First the five comparisons, then what is exploratory.

# %%
say(compare.findings(first, profile))

# %%
say(report.learned(store, hops, dial, masked, tasks, profile))
