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
import numpy as np
import pandas as pd

from trmlib import compare, plots
from trmlib.experiments import sudoku_report as report
from trmlib.export import save_table, say
from trmlib.runs import Store
from trmlib.tables import records_digest, shown

plots.style()
store = Store()
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
say(
    f"This page shows {len(df)} runs: {about}. Puzzles: *{corpus}* ({said_of(corpus)}). The published numbers are for Sudoku-Extreme and for models "
    "a hundred times this size where the profile is not *full*: a cut profile can show an effect, never refute a claim."
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
# One field of one config at a time. Differences in points of puzzles solved, paired by seed; the grey band is ±2 points.

# %%
rows = [r for r in report.ablations(df, profile) if r["effect"]] or report.ablations(df, profile)[:8]
fig, ax = plt.subplots(figsize=(7, max(3.0, 0.8 + 0.28 * len(rows))))
plots.forest(rows, ax, zone=compare.SAME, xlabel="puzzles solved, points against the TRM (right is better)")
save(
    fig,
    "sudoku_ablations",
    "Every variant against the TRM: difference in held-out puzzles solved, 95 % intervals.",
    "Forest plot, one row a variant: difference from the TRM in points of puzzles solved.",
)
plt.show()

# %%
first = compare.primary(df, report.PRIMARY, report.METRIC)
compare.comparison_table(first)

# %% [markdown]
# ## How long does training think?
#
# The write-up quotes the paper: thanks to the halting head a puzzle takes "fewer than 2 steps" of 16 in training. That is an average over
# the whole of a training in which the model gets ever better. The curve shows when it holds.

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

# %% [markdown]
# ## Think longer
#
# The same weights, ever more supervision steps. The vertical line is the trained number; what lies right of it is thinking time.

# %%
long = report.longer(store, df, ("TRM", "random starts"))
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
    "Held-out puzzles solved against supervision steps at test time; dotted: the trained number.",
    "Accuracy over supervision steps on a logarithmic axis, a line each for fixed and random starts.",
)
plt.show()

# %% [markdown]
# ### Harder than those trained on
#
# Chapter 06 asks its pointer language for longer chains than were trained on. The like here: puzzles that need more rounds of deduction in a row than
# 99 in 100 puzzles in training (the solid line), given more steps than in training (the dashed one). The upper right corner is thinking time.

# %%
hard = report.harder(store, df)
fig, ax = plt.subplots()
if hard:
    rounds, steps, accuracy, trained, gain = hard
    image = plots.heat(accuracy.T, ax, marks=[np.searchsorted(steps, report.trained_steps(df, "TRM")) + 0.5])
    ax.axvline(np.searchsorted(rounds, trained) + 0.5, color="white", linewidth=1.6)
    ax.set_xticks(range(len(rounds)), rounds)
    ax.set_yticks(range(len(steps)), steps)
    ax.set_xlabel("rounds of deduction that a puzzle needs")
    ax.set_ylabel("supervision steps at test time")
    fig.colorbar(image, ax=ax, label="puzzles solved")
else:
    plots.pending(ax, "harder puzzles")
save(
    fig,
    "sudoku_harder",
    "Puzzles solved, by the rounds of deduction that they need and by supervision steps. Solid: 99 in 100 training puzzles need no more. Dashed: the steps trained with.",
    "Heat map of the share of puzzles solved over rounds of deduction needed and supervision steps at test time.",
)
plt.show()
if hard:
    say(
        f"On puzzles that need more rounds than 99 in 100 trained on, {steps[-1]} steps against the trained {report.trained_steps(df, 'TRM')}: {gain.text(100, 'points', 1)}."
    )

# %% [markdown]
# ## Try again
#
# Many random starts, one answer to be chosen. Five ways to choose, and the ceiling: is any of them right? (A puzzle has one solution, so an exact check
# of the rules would find it: the ceiling can be reached where rules are known.)

# %%
arms = [a for a in ("random starts", "TRM") if report.budgets(store, df, a)]
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8), sharey=True)
for ax, arm in zip(axes, ("random starts", "TRM"), strict=True):
    if arm not in arms:
        plots.pending(ax, arm)
        continue
    b = report.budgets(store, df, arm)
    plots.lines({report.RULES[r]: v for r, v in report.best_of(b, report.trained_steps(df, arm)).items()}, ax, "starts k", "puzzles solved")
    plots.doubling(ax, b["starts"], fontsize=8)
    ax.set_title(f"trained with {'random' if arm == 'random starts' else 'fixed'} starts", fontsize=10)
    ax.legend(fontsize=7) if ax is axes[0] else ax.legend().remove()
save(
    fig,
    "sudoku_starts",
    "Best of k random starts after the trained number of steps, by how the answer is chosen. Left: trained with random starts. Right: a model trained from a fixed start, given random ones.",
    "Two panels of puzzles solved over the number of starts; lines for confidence, votes, residual and the ceiling.",
)
plt.show()

# %% [markdown]
# ## Longer or again? One axis of compute

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8), gridspec_kw={"width_ratios": [3, 2]})
if "random starts" in arms:
    b, steps = report.budgets(store, df, "random starts"), report.trained_steps(df, "random starts")
    plots.ways(report.ways(b, steps, report.flops(df, "random starts")), axes[0], 1e9)
    plots.plain_log(axes[0], "x", (1, 3))
    axes[0].set_xlabel("GFLOP a puzzle")
    axes[0].set_ylabel("puzzles solved")
    axes[0].legend()
    grid = np.ma.masked_invalid(b["confidence"]).mean(0).filled(np.nan)
    grid[:, 0] = b["one"].mean(0)
    image = plots.heat(grid, axes[1], "steps × starts")
    axes[1].set_xticks(range(len(b["starts"])), b["starts"], fontsize=8)
    axes[1].set_yticks(range(len(b["steps"])), b["steps"], fontsize=8)
    axes[1].set_xlabel("starts k")
    axes[1].set_ylabel("supervision steps")
    fig.colorbar(image, ax=axes[1], label="puzzles solved")
    for name, e in report.gains(b, steps).items():
        say(f"- {name}: {compare.change(e, report.METRIC)}")
else:
    for ax in axes:
        plots.pending(ax, "steps and starts")
save(
    fig,
    "sudoku_compute",
    "Left: puzzles solved against compute, spent on more steps from one start or on more starts (the halting head's favourite). Right: both at once; blank: not measured.",
    "Left panel: two curves over compute, more steps and more starts. Right panel: heat map over steps and starts.",
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

# %% [markdown]
# ## Does it know when it is right?

# %%
fig, ax = plt.subplots(figsize=(7, 4.4))
ax.plot([0, 1], [0, 1], color="#444444", linestyle=":")
errors = {}
for i, arm in enumerate(("TRM", "random starts")):
    if found := report.calibration(store, df, arm):
        bins, errors[arm] = found
        ax.plot(bins.said, bins.solved, color=plots.COLOURS[i], marker=plots.MARKERS[i], label=f"{arm} (mean gap {errors[arm]:.1%})")
if errors:
    ax.set_xlabel("probability of “solved” that the halting head says")
    ax.set_ylabel("share solved")
    ax.legend()
else:
    plots.pending(ax, "calibration")
save(
    fig,
    "sudoku_calibration",
    "Calibration of the halting head, all steps together; on the dotted line it would be right as often as it says.",
    "Share of puzzles solved over the halting head's probability, with the diagonal.",
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
    fig.colorbar(image, ax=axes[0])
    plots.band_lines(
        {"digits changed": moves["changed"]} | {f"y moves, {k}": v for k, v in moves.items() if k != "changed"}, axes[1], "supervision step"
    )
    axes[1].set_yscale("log")
    axes[1].legend(fontsize=8)
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

# %%
hard, rated = report.difficulty(store, df, "TRM"), report.by_rating(df, "TRM")
fig, ax = plt.subplots()
if len(hard):
    plots.lines({"share solved": (hard.rounds, hard.solved)}, ax, "rounds of deductions that the puzzle needs", "share solved")
    ax.set_ylim(0, 1.02)
    other = ax.twinx()
    other.plot(hard.rounds, hard["first"], color=plots.COLOURS[1], marker=plots.MARKERS[1])
    other.set_ylabel("first step that solved it", color=plots.COLOURS[1])
    other.set_ylim(0)
    ax.legend().remove()
    ax.yaxis.label.set_color(plots.COLOURS[0])
else:
    plots.pending(ax, "difficulty")
save(
    fig,
    "sudoku_difficulty",
    "Harder puzzles take more steps: share solved (blue, left) and the first supervision step that solved them (orange, right), by rounds of deductions needed.",
    "Two lines over the number of deduction rounds: share solved and mean first step that solved the puzzle.",
)
plt.show()
rated.round(3)

# %% [markdown]
# ### Filmstrips
#
# The solved puzzle that took most steps, and one that was not solved. Black: given. Blue ground: confidence. Orange: wrong.

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
# ## Path independence
#
# Solve a puzzle; solve it again from *another* puzzle's final state (as the paper that defines the score does) or from its *own* (as the write-up does); compare
# where both end. Latents are centred, and the likeness of different puzzles subtracted. The correlation is taken within configurations: arms
# that differ in accuracy for other reasons do not make one.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8), sharey=True)
for ax, (form, title) in zip(axes, {"other": "from another's end", "own": "from its own end"}.items(), strict=True):
    aligned = report.alignments(store, df, form)
    if not len(aligned):
        plots.pending(ax, title)
        continue
    for i, name in enumerate(("y", "z", "prediction")):
        ax.scatter(aligned[name], aligned.accuracy, s=14, color=plots.COLOURS[i], marker=plots.MARKERS[i], label=name)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("alignment")
    for name, e in report.correlations(aligned).items():
        say(f"- {title}, {name}: r = {e.text(digits=2)}")
if len(aligned):
    axes[0].set_ylabel("puzzles solved")
    axes[0].legend(fontsize=8)
save(
    fig,
    "sudoku_alignment",
    "Accuracy against asymptotic alignment of y, z and the prediction, a point a run, all arms.",
    "Two scatter plots of accuracy over alignment, one for each form of the score.",
)
plt.show()

# %% [markdown]
# ## The write-up's observations, again

# %%
pd.set_option("display.max_colwidth", None)
report.observations(store, df).drop(columns="effect")

# %% [markdown]
# ## What it means
#
# The list is made by rule from the comparisons above; what is pending stays open.

# %%
say(compare.findings(first))
