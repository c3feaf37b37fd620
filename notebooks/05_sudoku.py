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
# # 05 · Sudoku: think longer, or try again?
#
# **The claim.** Tiny Recursive Models solve hard Sudokus: 87 % of Sudoku-Extreme, with 5 million parameters and 1,000 puzzles
# to learn from. More supervision steps at test time bring it to 96 %. And an earlier write-up asks what else could help: random
# starting states of which the most confident answer is kept, and random numbers of recursions in training, said to make a
# model *path independent* (it ends at the same answer wherever it starts), and so better.
#
# **The questions.** Which of TRM's ingredients carry it? Is compute at test time better spent on thinking longer, or on trying again from
# other starts? Is the head that says "solved" to be believed? And does path independence go with being right?
#
# The published model is the first of these systems that is *about* serial depth. A Sudoku has one solution, so there is nothing to
# coordinate that the givens leave open; but each deduction needs those before it.
#
# Nothing below trains: every number comes from committed records by name. `trm list` shows the runs, `trm run` trains more;
# `trm solve "<81 characters>"` lets a small trained model solve a puzzle of yours.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from trmlib import claims, compare, plots
from trmlib.experiments import sudoku_report as report
from trmlib.experiments import sudoku_words as words
from trmlib.export import save_table, say, show_table
from trmlib.runs import Store
from trmlib.tables import records_digest, shown

plots.style()
store = Store()
say(claims.in_short(store, "sudoku", profile))
df, profile = shown(store, "sudoku", profile)
digest, about = records_digest(df), compare.label(df, profile)
claimed = report.CLAIMED
at_hand = lambda *names: [a for a in names if compare.complete(df, a)]  # noqa: E731


def save(fig, name, caption, alt):
    return plots.save(fig, name, figures, f"{caption} ({about})", alt, digest, "05_sudoku")


def said_of(name):
    return {"easy-9": "generated 9×9 puzzles of 36 to 40 givens that need no guess", "sudoku-hard": "hard 9×9 puzzles",
            "sudoku-extreme": "Sudoku-Extreme", "easy-4": "generated 4×4 puzzles"}.get(name, name)  # fmt: skip


corpus = df.record.iloc[0]["data"]["name"] if len(df) else "none recorded yet"
size = f"The published numbers are for Sudoku-Extreme and a model of {words.smaller(profile):.0f} times the parameters: "
say(
    f"This page shows {len(df)} runs: {about}. Puzzles: *{corpus}* ({said_of(corpus)}). "
    + ("" if profile == "full" else f"{size}a cut profile can show an effect, never refute a claim.")
)

# %% [markdown]
# ## The model
#
# A small net of two layers is applied again and again. *x* is the puzzle, *y* the answer so far, *z* a scratchpad; *z* is updated *n* times from all
# three, then *y* from *y* and *z*. That is one recursion; *T* of them are one *supervision step*, of which only the last carries gradient.
# After every step the answer is read out and trained, the states are cut off from the gradient and carried on, up to *N_sup* steps. A head
# learns to say whether the answer is right; in training a puzzle leaves when it says so, and the next puzzle takes its place.
#
# With the weights made by a formula, our logits equal those of the public code to 1e-4 (`tests/test_grid.py`).

# %%
say(f"Recipe of this page's TRM: {words.recipe(words.spec_of(profile))}.")
if profile != "full":
    say(f"The published one, profile *full*: {words.recipe(words.spec_of('full'))}.")

# %%
table = report.arms(df, profile)
ready = table[table.seeds >= compare.enough(df)]
text = pd.DataFrame({"arm": ["no records yet"]})
if len(df) and len(ready):
    text = pd.DataFrame({
        "arm": ready.arm, "solved": ready.accuracy.map("{:.1%}".format), "cells": ready.cells.map("{:.1%}".format),
        "against the TRM": [compare.change(e, report.METRIC) for e in ready.effect], "params": (ready.parameters / 1e3).map("{:,.0f} k".format),
        "depth": ready.depth.map("{:.0f}".format), "seeds": ready.seeds.map("{:.0f}".format),
    })  # fmt: skip
save_table(
    text, "sudoku_table", figures, f"Held-out puzzles solved after the trained number of steps, and what it costs ({about}).",
    "Table of the arms with the share of puzzles solved, of cells right, parameters and serial depth.", digest, "05_sudoku",
)  # fmt: skip
plt.show()

# %% [markdown]
# ## Which ingredient carries it?
#
# One change at a time, most of them one field of the config; an arm that goes with another setting has it (four layers take half of the
# updates; AdamW its own learning rate, as untuned as Muon's). Differences in points of puzzles solved, paired by seed; the grey band is ±2 points.
# Each model is scored after its trained number of steps. That of *no deep supervision* is one, so it stands there twice: after its one step, and
# after as many as the TRM takes.

# %%
every = report.ablations(df, profile)
rows = [r for r in every if r["effect"]] or every[:8]
fig, ax = plt.subplots(figsize=(7, max(3.0, 0.8 + 0.28 * len(rows))))
plots.forest(rows, ax, zone=compare.SAME, xlabel="puzzles solved, points against the TRM (right is better)", percent=False)
save(
    fig,
    "sudoku_ablations",
    "Every variant against the TRM: difference in held-out puzzles solved, 95 % intervals.",
    "Forest plot, one row a variant: difference from the TRM in points of puzzles solved.",
)
plt.show()
waiting = [r["name"] for r in every if not r["effect"]]
say(f"Pending: {', '.join(waiting)}." if waiting else "")
say(words.single_step(df))

# %%
first = compare.primary(df, report.PRIMARY, report.METRIC)
show_table(compare.comparison_table(first))

# %% [markdown]
# ## How long does training think?
#
# The write-up quotes the paper: thanks to the halting head a puzzle takes "less than 2 steps" of 16 in training. That is an average over
# the whole of a training in which the model gets ever better. The curve shows when it holds. In the means below every puzzle counts once: as many
# slots and steps go into each part of the training, so more puzzles pass where they stay for a shorter time.

# %%
names = at_hand("TRM", "random starts", "no exploration")
bands = compare.curve_bands(df, names, "halting_steps") if names else {}
fig, ax = plt.subplots()
if bands:
    plots.band_lines(bands, ax, "training step")
    ax.axhline(claimed["halting"], color="#444444", linestyle=":")
    ax.set_ylabel("supervision steps a puzzle")
    ax.set_ylim(0)
else:
    plots.pending(ax, "halting steps")
save(
    fig,
    "sudoku_halting",
    "Supervision steps that a puzzle takes in training before the halting head lets it go; dotted: the two steps of the claim.",
    "Mean supervision steps a puzzle over the training steps, one line a model.",
)
plt.show()
say(words.halting(df))

# %% [markdown]
# ## Think longer
#
# The same weights, ever more supervision steps. The vertical line is the trained number; what lies right of it is thinking time, but for the model
# without deep supervision, which was trained for a single step: all after its first is. *Stopped when sure*
# stops each puzzle of the TRM as soon as the halting head is sure, as training does, with so many steps at most. A puzzle whose states have
# stopped moving keeps its answer, and its further steps are not computed.

# %%
long = report.longer(store, df, ("TRM", "random starts"))
stopped = report.longer(store, df, ("TRM",), "surely").get("TRM")
long |= {"TRM, stopped when sure": stopped} if stopped else {}
single, of = report.by_step(df, [report.SINGLE_STEP]).get(report.SINGLE_STEP), ""
if long and single:
    long["trained for one step"] = single
    few = report.singles(store, df, "longer", next(iter(long)))[0]["puzzles"]
    every = len(df[df.arm == report.SINGLE_STEP].record.iloc[0]["detail"]["by_puzzle"]["solved"])
    of = f" The model trained for one step, without deep supervision, is scored on all {every} held-out puzzles, the others on the first {few}."
fig, ax = plt.subplots()
if long:
    plots.band_lines(long, ax, "supervision steps at test time")
    ax.axvline(report.trained_steps(df, "TRM"), color="#444444", linestyle=":")
    plots.doubling(ax, next(iter(long.values()))[0])
    ax.set_ylabel("puzzles solved")
else:
    plots.pending(ax, "longer thinking")
save(
    fig,
    "sudoku_longer",
    "Held-out puzzles solved against supervision steps at test time, from each model's own start; dotted: the steps that TRM (from a fixed start) and random starts were trained with. When sure: each puzzle ends as soon as the halting head says that it is solved."
    + of,
    "Accuracy over supervision steps on a logarithmic axis, a line each for fixed and random starts, for stopping when sure and for the model trained for one step.",
)
plt.show()
say(words.longer(store, df))
say(words.stopping(store, df))

# %% [markdown]
# ### Harder than those trained on
#
# Chapter 06 asks its pointer language for longer chains than were trained on. The like here: puzzles that need more rounds of deduction in a row than
# 99 in 100 puzzles in training, given more steps than in training (right of the dotted line). Puzzles with few givens need more rounds, so the two are
# told apart: puzzles were generated until there were enough of either kind with as many givens as in training, and with fewer.

# %%
hard = report.harder(store, df)
fig, ax = plt.subplots()
if hard:
    plots.band_lines(hard[0], ax, "supervision steps at test time")
    ax.axvline(report.trained_steps(df, "TRM"), color="#444444", linestyle=":")
    plots.doubling(ax, next(iter(hard[0].values()))[0])
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("puzzles solved")
    ax.legend(fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.8))
else:
    plots.pending(ax, "harder puzzles")
save(
    fig,
    "sudoku_harder",
    "Puzzles solved against supervision steps (TRM), by their givens and the mean number of rounds of deduction that they need; dotted: the steps trained with.",
    "Four lines of puzzles solved over supervision steps: many or few givens, few or many rounds of deduction.",
)
plt.show()
say(words.harder(store, df))

# %% [markdown]
# ## Try again
#
# Many random starts, one answer to be chosen. Four ways to choose, and two ceilings: is any of them right, and does one keep all rules? A puzzle has one
# solution, so the two are the same line: where rules can be checked, the ceiling can be reached.

# %%
arms = [a for a in ("random starts", "TRM") if report.budgets(store, df, a)]
rests = f" Few puzzles: {report.sample(report.budgets(store, df, arms[0]))}." if arms else ""
fig, axes = plt.subplots(1, 2, figsize=(7, 4.6), sharey=True)
for ax, arm in zip(axes, ("random starts", "TRM"), strict=True):
    if arm not in arms:
        plots.pending(ax, arm)
        continue
    b = report.budgets(store, df, arm)
    plots.lines({report.RULES[r]: v for r, v in report.best_of(b, report.trained_steps(df, arm)).items()}, ax, "starts k", "puzzles solved")
    ax.lines[-1].set(linestyle=":", linewidth=3, marker="")  # the rules' line lies on the ceiling's
    plots.doubling(ax, b["starts"], fontsize=8)
    ax.set_title(f"trained with {'random' if arm == 'random starts' else 'fixed'} starts", fontsize=10)
    ax.legend().remove()
if arms:
    fig.legend(*axes[("random starts", "TRM").index(arms[0])].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=10)
save(
    fig,
    "sudoku_starts",
    f"Best of k random starts after the trained number of steps, by how the answer is chosen. Left: trained with random starts. Right: a model trained from a fixed start, given random ones.{rests} Bands: 95 % over seeds.",
    "Two panels of puzzles solved over the number of starts; lines for confidence, votes, residual and the two ceilings.",
)
plt.show()
say(words.starts(store, df) + rests)

# %% [markdown]
# ## Longer or again? One axis of compute
#
# Every difference below is taken over the starts that both of its sides have, and its interval is for other seeds *and* other puzzles.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 4.2), gridspec_kw={"width_ratios": [3, 2]})
if arms:
    found = {}
    for arm in arms:
        b, steps = report.budgets(store, df, arm), report.trained_steps(df, arm)
        own = report.longer(store, df, ("TRM",), puzzles=b["puzzles"]).get("TRM") if arm == "TRM" else None
        of = report.ways(b, steps, report.flops(df, arm), own)
        found |= {f"{arm}: {way}": points for way, points in of.items()}
    plots.ways(found, axes[0], 1e9)
    plots.plain_log(axes[0], "x", (1, 3))
    axes[0].set_xlabel("GFLOP a puzzle")
    axes[0].set_ylabel("puzzles solved")
    axes[0].legend(fontsize=8, loc="lower right")
    b = report.budgets(store, df, arms[0])
    image = plots.heat(report.surface(b), axes[1], f"{arms[0]}: steps × starts")
    axes[1].set_xticks(range(len(b["starts"])), b["starts"], fontsize=8)
    axes[1].set_yticks(range(len(b["steps"])), b["steps"], fontsize=8)
    axes[1].set_xlabel("starts k")
    axes[1].set_ylabel("supervision steps")
    fig.colorbar(image, ax=axes[1], label="puzzles solved")
    say(words.gains(store, df) + f"\n\n{rests.strip()}")
else:
    for ax in axes:
        plots.pending(ax, "steps and starts")
save(
    fig,
    "sudoku_compute",
    f"Left: puzzles solved against compute, spent on more steps (the TRM from its own fixed start, the other from a random one) or on more random starts (the halting head's favourite). Right: both at once; blank: not measured.{rests}",
    "Left panel: four curves over compute, more steps and more starts of two models. Right panel: heat map over steps and starts.",
)
plt.show()

# %% [markdown]
# ## A push between steps
#
# Noise of standard deviation σ is added to both states after every step. A model that has settled on an answer shrugs it off; one that has not may be helped along.

# %%
pushed = report.noise(store, df, "TRM")
fig, ax = plt.subplots()
if pushed:
    plots.band_lines(pushed, ax, "supervision steps at test time")
    plots.doubling(ax, next(iter(pushed.values()))[0])
    ax.set_ylabel("puzzles solved")
else:
    plots.pending(ax, "noise between steps")
save(
    fig,
    "sudoku_noise",
    "Puzzles solved when noise is added to the states after every supervision step (TRM).",
    "Accuracy over supervision steps, one line for each strength of the noise.",
)
plt.show()
say(words.noise(store, df))

# %% [markdown]
# ## Does it know when it is right?
#
# Each puzzle once a line: after the first step, after the trained number, and at the first step at which the head says more than a half, where training
# would let it go.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 4), sharey=True)
for ax, arm in zip(axes, ("TRM", "random starts"), strict=True):
    found = report.calibration(store, df, arm)
    if not found:
        plots.pending(ax, arm)
        continue
    ax.plot([0, 1], [0, 1], color="#444444", linestyle=":")
    plots.lines({name: (t.said, t.solved) for name, (t, _) in found.items()}, ax, "the head's probability of “solved”")
    ax.set_title(arm, fontsize=10)
    ax.legend(fontsize=8) if ax is axes[0] else ax.legend().remove()
    axes[0].set_ylabel("share solved")
    say(words.calibration(store, df, arm))
save(
    fig,
    "sudoku_calibration",
    "Calibration of the halting head, each puzzle once a line; on the dotted line it would be right as often as it says, below it says too much.",
    "Two panels of the share of puzzles solved over the halting head's probability, with the diagonal; lines for the first step, the trained one and the first sure one.",
)
plt.show()

# %% [markdown]
# ## What a step does
#
# A solver that only ever writes what is certain fills the cells of a puzzle in rounds. Does the model follow? Left: the share of cells that are right after each step, by the
# round in which a cell falls. Right: the share of digits that a step still changes, and how far *y* still moves.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8))
rounds, moves = report.order(store, df, "TRM"), report.movement(store, df, "TRM")
if rounds is not None:
    image = plots.heat(rounds, axes[0], "cells right, by round")
    axes[0].set_xticks(range(0, rounds.shape[1], 3), range(1, rounds.shape[1] + 1, 3))
    axes[0].set_yticks(range(len(rounds)), range(1, len(rounds) + 1))
    axes[0].set_xlabel("round of deductions")
    axes[0].set_ylabel("supervision step")
    fig.colorbar(image, ax=axes[0], label="share of cells right")
    plots.band_lines(
        {"digits changed": moves["changed"]} | {f"y moves, {k}": v for k, v in moves.items() if k != "changed"}, axes[1], "supervision step"
    )
    axes[1].set_yscale("log")
    axes[1].set_ylabel("share of digits; mean square of a move")
    axes[1].legend(fontsize=9)
else:
    for ax, what in zip(axes, ("order of cells", "movement"), strict=True):
        plots.pending(ax, what)
save(
    fig,
    "sudoku_steps",
    "What a supervision step does (TRM). Left: share of cells right by the round of deductions in which they fall. Right: digits changed, and the mean square movement of y.",
    "Left: heat map of correct cells over rounds and steps. Right: falling curves of digits changed and of the movement of y for solved and unsolved puzzles.",
)
plt.show()
say(words.steps(store, df))

# %%
hard, rated = report.difficulty(store, df, "TRM"), report.by_rating(df, "TRM")
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8))
if len(hard):
    mark = {hard.rounds.min(): "≤ ", hard.rounds.max(): "≥ "}
    ticks = [f"{mark.get(r, '')}{r}\n({n})" for r, n in zip(hard.rounds, hard.puzzles, strict=True)]
    for ax, name, label in zip(axes, ("solved", "first"), ("share solved", "first step that solved it"), strict=True):
        plots.lines({label: (hard.rounds, *zip(*hard[name], strict=True))}, ax, "rounds needed (puzzles)", label)
        ax.legend().remove()
        ax.set_xticks(hard.rounds, ticks, fontsize=8)
        ax.set_ylim(0)
else:
    for ax in axes:
        plots.pending(ax, "difficulty")
save(
    fig,
    "sudoku_difficulty",
    "By the rounds of deductions that a puzzle needs (how many puzzles): share solved after the trained steps, and the first step that solved it where one did. Bands: 95 % over seeds.",
    "Two panels over the number of deduction rounds: share solved, and mean first step that solved the puzzle.",
)
plt.show()
say(words.difficulty(store, df))
rated.round(3) if len(rated) > 1 else None  # generated puzzles need no guess: all of one rating

# %% [markdown]
# ### Filmstrips
#
# Of the puzzles solved in the end the one whose solution came at the latest step, and one that was not solved. Black: given. Blue ground: confidence. Orange: wrong.

# %%
kept = report.strips(store, df, "TRM")
chosen = [next((s for s in kept if s["solved"] == solved), None) for solved in (True, False)]
steps = [0, 1, 3, 7]
fig, axes = plt.subplots(2, len(steps), figsize=(7, 4))
for row, (strip, what) in enumerate(zip(chosen, ("solved", "not solved"), strict=True)):
    for ax, step in zip(axes[row], steps, strict=True):
        if strip is None or step >= len(strip["digits"]):
            plots.pending(ax, what)
            continue
        read = lambda line: ["0123456789".index(c) if c != "." else 0 for c in line]  # noqa: E731
        plots.board(
            read(strip["digits"][step]),
            ax,
            read(strip["puzzle"]),
            read(strip["target"]),
            strip["confidence"][step],
            f"{what}, step {step + 1}",
        )
save(
    fig,
    "sudoku_filmstrip",
    "Two puzzles, step by step: black digits are given, orange ones wrong, darker ground is more confident.",
    "Two rows of four Sudoku boards after supervision steps 1, 2, 4 and 8: a solved and an unsolved puzzle.",
)
plt.show()

# %% [markdown]
# ## Randomised training
#
# In each training step *T*, *n* or the steps that a puzzle may take are drawn from a uniform around the usual number; inference stays as it is. A number
# must stay above zero, so its half width is at most one less: *T* = 3 leaves two widths, and where *n* is 2 (profile *cpu*) it has one. Half width 0 is the
# TRM itself.

# %%
drawn, d = report.randomised(store, df, profile), words.spec_of(profile).model.d
fig, axes = plt.subplots(2, 3, figsize=(7, 5.4), sharey="row", sharex="col")
for (above, below), name in zip(axes.T, ("n", "T", "N_sup"), strict=True):
    of = drawn[drawn.number == name]
    done = of.dropna(subset="accuracy")
    aside = 0.04 * of.half.max()
    plots.points({f"d = {k}": (g.half, *zip(*g.accuracy, strict=True)) for k, g in done.groupby("d")}, above, aside)
    own = done[done.d == d].dropna(subset="y")
    plots.points({k: (own.half, *zip(*own[k], strict=True)) for k in ("y", "z", "prediction") if len(own)}, below, aside, 3)
    above.set_title(name, fontsize=10)
    below.set(xlabel="half width", xticks=sorted(set(of.half)), xlim=(-0.2 * of.half.max(), 1.2 * of.half.max()))
axes[0, 0].set_ylabel("puzzles solved")
axes[1, 0].set_ylabel("alignment")
lines = [line for ax in axes[:, 0] for line in zip(*ax.get_legend_handles_labels(), strict=True)]
if lines:
    fig.legend(*zip(*lines, strict=True), loc="outside upper center", ncols=len(lines), fontsize=10)
save(
    fig,
    "sudoku_randomised",
    "Training with n, T or N_sup drawn anew from a uniform of this half width: puzzles solved, a line for each width d of the model (above), and asymptotic alignment at the chapter's width (below). Bars: 95 % over seeds. A half width without a mark is not recorded yet.",
    "Two rows of three panels over the half width of the uniform for n, T and N_sup: accuracy above, alignment of y, z and the prediction below.",
)
plt.show()
later = list(dict.fromkeys(drawn.arm[drawn.accuracy.isna()]))
say(f"Pending: {', '.join(later)}." if later else "")

# %% [markdown]
# ## Path independence
#
# Solve a puzzle; solve it again from *another* puzzle's final state (as the paper that defines the score does) or from its *own* (as the write-up does); compare
# where both end. Latents are centred, and the likeness of different puzzles subtracted. The correlation is taken within configurations, each scaled by its own scatter: arms
# that differ in accuracy for other reasons do not make one, nor does a single arm whose seeds scatter widely. Started from its own end nearly every model scores 1, so that form can hardly tell models apart:
# the table below reads the published one; the ledger asks that both agree.

# %%
forms = {"other": "from another's end", "own": "from its own end"}
fig, axes = plt.subplots(2, 3, figsize=(7, 5.8), sharex=True, sharey=True)
for row, (form, title) in zip(axes, forms.items(), strict=True):
    aligned = report.alignments(store, df, form)
    found, scaled = report.correlations(aligned), report.within(aligned) if len(aligned) else None
    for ax, name in zip(row, ("y", "z", "prediction"), strict=True):
        if name not in found:
            plots.pending(ax, f"{name}, {title}")
            continue
        for i, (arm, g) in enumerate(scaled.groupby("arm", sort=False)):
            ax.scatter(g[name], g.accuracy, s=22, color=plots.COLOURS[i % 8], marker=plots.MARKERS[i % 8], label=arm)
        ax.set_title(f"{name}: r = {found[name].estimate:.2f}".replace("-", "−"), fontsize=10)
        say(f"- {title}, {name}: r = {found[name].text(digits=2)}")
    row[0].set_ylabel(title)
fig.supxlabel("alignment, in standard deviations of its arm", fontsize=11)
fig.supylabel("puzzles solved, likewise", fontsize=11)
if handles := axes[0, 0].get_legend_handles_labels()[0]:
    fig.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10)
save(
    fig,
    "sudoku_alignment",
    "Accuracy against asymptotic alignment, a point a run, both less the mean of the run's arm and divided by its standard deviation over seeds: r is taken of just these points, so that arms which differ in accuracy for other reasons do not make it.",
    "Six scatter plots of accuracy over alignment within arms: of y, z and the prediction, for both forms of the score; arms by colour and marker.",
)
plt.show()
if len(aligned):
    say("Mean of each arm, from another's end. (Above 1 an alignment can lie where different puzzles are less alike than chance.)")
    display(report.alignments(store, df).groupby("arm", sort=False)[["y", "z", "prediction", "accuracy"]].mean().round(3))

# %% [markdown]
# ## The write-up's observations, again
#
# *Seen*: the 95 % interval lies on the side that the write-up names, and the row is among the discoveries when a tenth of all rows' may be false
# (Benjamini and Hochberg, over the recorded ones). *The opposite*: the like on the other side.

# %%
show_table(report.observations(store, df).drop(columns="effect"))

# %% [markdown]
# ## Speed
#
# `data/benchmarks.md` holds training steps measured side by side with the public code, and how.

# %%
say(words.speed())
say(words.fast())
clock = report.minutes(df, ("fast", "Muon", "TRM", "random starts"))
if clock:
    fig, ax = plt.subplots()
    plots.band_lines(clock, ax, "minutes of training")
    ax.set_ylabel("puzzles solved, part A")
    save(
        fig, "sudoku_minutes", "Puzzles of part A solved over the time of training.", "Accuracy over minutes of training, one line a model."
    )
    plt.show()
else:
    say("Records made from now on hold the time of each point of their curve; none of this page's does.")

# %% [markdown]
# ## What it means
#
# Think longer, or try again? By rule, from the records above:

# %%
say(words.verdicts(store, df))

# %% [markdown]
# Which ingredient carries it, by the comparisons fixed beforehand; what is pending stays open.

# %%
say(compare.findings(first, profile))
