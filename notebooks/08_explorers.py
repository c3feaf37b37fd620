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
# # 08 · Explorers
#
# Small trained models and the records of this report, to play with. Nothing trains. Each section shows what the records hold, as a picture and
# as pictures to step through, which work anywhere; the controls below them need JupyterLab (`make lab`) and the models kept in
# `data/checkpoints/`.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import matplotlib.pyplot as plt
import pandas as pd

from trmlib import budget, checkpoints, compare, explore, plots
from trmlib.experiments import sudoku_report
from trmlib.experiments.masked_evaluations import SENTENCES
from trmlib.export import say
from trmlib.runs import Store
from trmlib.tables import records_digest, shown

plots.style()
store = Store()
masked = shown(store, "masked", profile)
sudoku = shown(store, "sudoku", profile)
kept = set(checkpoints.names())


def missing(*names):
    say(f"The controls need the kept models {', '.join(names)}; `trm keep RUN NAME` keeps one.")


def save(fig, name, caption, alt, used):
    """`used`: what is shown, {chapter: (records, profile)}."""
    about = "; ".join(f"{chapter}: {compare.label(*of)}" for chapter, of in used.items())
    digest = records_digest(pd.concat([df for df, _ in used.values()])) if used else ""
    return plots.save(fig, name, figures, f"{caption} ({about or 'no records yet'})", alt, digest, "08_explorers")


# %% [markdown]
# ## Fill the blanks
#
# A sentence with blanks; what the baseline says of them, and what the TRM says before any pass and after each. If passes made words
# agree, the later rows would show it. Type your own: up to 16 words, `_` for a blank.

# %%
arms, sentence = ("baseline", "joint"), SENTENCES[-1]
found = compare.evaluation_frame(store, masked[0], "examples")
said = {s: {arm: found[arm, 0][s] for arm in arms} for s in reversed(SENTENCES)} if all((arm, 0) in found for arm in arms) else {}
if said:
    fig = explore.draw_fill(said[sentence], sentence)
else:
    fig, ax = plt.subplots()
    plots.pending(ax, "examples")
save(
    fig,
    "explore_fill",
    f"The likeliest words for the blanks of “{sentence}”, baseline above the TRM, pass by pass; of each model the run of seed 0.",
    "Two tables of likely words for two blanks: the baseline's, and the TRM's at first and after each of three passes.",
    {"two blanks": (masked[0][masked[0].arm.isin(arms) & (masked[0].seed == 0)], masked[1])},
)
plt.show()

# %%
explore.step_through_words(said) if said else None

# %%
explore.fill_the_blanks() if set(explore.FILLED) <= kept else missing(*explore.FILLED)

# %% [markdown]
# ## Watch it think
#
# Two recorded Sudokus, pass by pass, those whose filmstrips are in [chapter 05](05_sudoku.ipynb#Filmstrips): one chosen among the solved, the one
# that took longest, and one that was not solved. Black digits are given; the darker the ground, the surer the model; orange is wrong.

# %%
strips = sudoku_report.strips(store, sudoku[0], "TRM")
ends = {"chosen among the solved": True, "not solved": False}
boards = {what: next((s for s in strips if s["solved"] == end), None) for what, end in ends.items()}
if strips:
    rate = compare.scores(sudoku[0], "TRM", sudoku_report.METRIC).mean()
    say(f"Of all held-out puzzles the model solves {rate:.1%} ({compare.label(*sudoku, ['TRM'])}).")
explore.beside(*(explore.step_through_board(s, what) for what, s in boards.items() if s)) if strips else None

# %% [markdown]
# One puzzle, several starts: the kept model from its own start and from random ones. The puzzle is generated, and chosen: of those of the controls
# below, the easiest that some of these starts solve and some do not.

# %%
split = explore.disagreement() if "sudoku" in kept else None
explore.step_through_starts(*split) if split else None

# %% [markdown]
# Pick a puzzle by the rounds of deductions that it needs, or paste one of 81 characters; random starts stand beside the model's own.

# %%
explore.watch_it_think() if "sudoku" in kept else missing("sudoku")

# %% [markdown]
# ## Budget
#
# Every curve of the report in which a *trained* model is given more or less compute: more passes, more steps, more samples or starts, or words
# filled in one by one. What k passes cost is counted. Choose task, score, axis and lines: compute, or the blocks that must run one after the other.

# %%
table, used = budget.curves(store, profile)
doses = list(dict.fromkeys(table.score[table.task == "dial"]))
panels = {
    "two blanks": "perplexity",
    "hops": "accuracy, more hops than trained",
    "Sudoku": "puzzles solved",
    "dial": doses[-1] if doses else "nats recovered",
}
fig = explore.draw_budget({f"{task}: {score}": budget.chosen(table, task, score) for task, score in panels.items()})
save(
    fig,
    "explore_budget",
    "What more compute at test time buys a trained model, mean and 95 % interval over seeds: passes (two blanks, hops), steps or starts (Sudoku), passes, samples or filling one by one (dial).",
    "Four panels of a score against inference compute: perplexity of two blanks, accuracy on long pointer chains, Sudokus solved, and nats recovered.",
    {task: used[task] for task in panels if task in used},
)
plt.show()

# %%
explore.step_through_budgets(table) if len(table) else None

# %%
explore.weigh_compute(table) if len(table) else None

# %% [markdown]
# ## Is it leaking?
#
# The dependency probe: how far does the prediction at a slot move when a *target* changes? A model that names its words at once may
# depend on no target; one that reads left to right on earlier ones, below the diagonal. What the records hold:

# %%
probed, used = explore.probed(store, profile)
fig = explore.draw_leaks(probed)
save(
    fig,
    "explore_leak",
    "The dependency probe of the report, mean over seeds. “Words left in”: the same weights, their blanks not hidden, as a check that the probe can fire.",
    "Small matrices, one a model: the one that starts at its target has a full diagonal, the left-to-right one an entry below it, those whose targets are hidden are zero.",
    used,
)
plt.show()

# %%
explore.step_through_leaks(probed) if probed else None

# %% [markdown]
# Now a model of your choice, on random words or characters. Show an honest one what it is asked for, and the probe fires.

# %%
explore.is_it_leaking() if explore.probes() else missing("shakespeare-target")

# %% [markdown]
# ## What to take away
#
# By rule, from the curves above: what a trained model gains from the most compute that was tried rather than the least, and where it
# was at its best.

# %%
say(budget.said({score: budget.chosen(table, task, score) for task, score in panels.items()}))

# %% [markdown]
# To try next: a sentence whose blanks must agree (`the united _ of america and the united _`); a Sudoku that needs more rounds of deduction
# than any trained on, with sixteen passes; the axis *blocks one after the other* for dial, on which samples cost nothing; the kept
# `shakespeare-target` in the probe beside `shakespeare-mask`, the same network without its leak.
#
# The pictures and the steppers show records (`data/results/`, `trm show RUN`); only the stepper over starts and the controls of the first, second and
# fourth explorer run a model, and nothing that they show is quoted anywhere. `trm keep RUN NAME` puts a model of your own beside the kept ones.
