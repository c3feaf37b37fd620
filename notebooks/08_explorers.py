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
# Small trained models and the records of this report, to play with. Nothing trains. Each section shows first what the records hold; the
# controls below it work in JupyterLab (`make lab`), over the models kept in `data/checkpoints/`.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import matplotlib.pyplot as plt

from trmlib import checkpoints, compare, explore, plots
from trmlib.experiments import sudoku_report
from trmlib.experiments.masked_evaluations import SENTENCES
from trmlib.export import say
from trmlib.runs import Store
from trmlib.tables import frame, records_digest, shown

plots.style()
store = Store()
masked = frame(store, "masked", profile)
puzzles, _ = shown(store, "sudoku", profile)
frames = {name: shown(store, name, profile)[0] for name in ("masked", "shakespeare", "autoregressive", "sudoku")}
kept = set(checkpoints.names())


def missing(*names):
    say(f"The controls need the kept models {', '.join(names)}; `trm keep RUN NAME` keeps one.")


def save(fig, name, caption, alt, df):
    return plots.save(fig, name, figures, f"{caption} ({compare.label(df, profile)})", alt, records_digest(df), "08_explorers")


# %% [markdown]
# ## Fill the blanks
#
# A sentence with blanks; what the baseline says of them, and what the TRM says before any pass and after each. If passes made words
# agree, the later rows would show it. Type your own: up to 16 words, `_` for a blank.

# %%
sentence = SENTENCES[-1]
said = {arm: compare.evaluation_frame(store, masked, "examples").get((arm, 0)) for arm in ("baseline", "joint")}
if all(said.values()):
    fig = explore.draw_fill({arm: v[sentence] for arm, v in said.items()}, sentence)
else:
    fig, ax = plt.subplots()
    plots.pending(ax, "examples")
save(
    fig,
    "explore_fill",
    f"The likeliest words for the blanks of “{sentence}”, baseline above the TRM, pass by pass, seed 0.",
    "Two tables of likely words for two blanks: the baseline's, and the TRM's at first and after each of three passes.",
    masked,
)
plt.show()

# %%
explore.fill_the_blanks() if set(explore.FILLED) <= kept else missing(*explore.FILLED)

# %% [markdown]
# ## Watch it think
#
# A Sudoku, pass by pass. Black digits are given; the darker the ground, the surer the model; orange is wrong. Pick a puzzle by the
# rounds of deductions that it needs, or paste one of 81 characters; random starts stand beside the model's own.

# %%
strips = sudoku_report.strips(store, puzzles, "TRM")
strip = next((s for s in strips if s["solved"]), None)
read = lambda line: [0 if c == "." else int(c) for c in line]  # noqa: E731
if strip:
    boards, labels = [], []
    for i, (digits, sure) in enumerate(zip(strip["digits"], strip["confidence"], strict=True)):
        fig, ax = plt.subplots(figsize=(3.6, 3.6))
        plots.board(read(digits), ax, read(strip["puzzle"]), read(strip["target"]), sure, f"after pass {i + 1}")
        boards.append(fig)
        labels.append(f"pass {i + 1} of {len(strip['digits'])}, {strip['sure'][i]:.0%} sure")
strip and explore.stepper(boards, labels)

# %%
explore.watch_it_think() if "sudoku" in kept else missing("sudoku")

# %% [markdown]
# ## Budget
#
# Every arm with records, over what it costs. Choose chapter, axes and arms.

# %%
x, score = "inference MFLOP an example", "perplexity"
chosen = [a for a in dict.fromkeys(masked.arm) if "(" not in a] if len(masked) else []
fig = explore.draw_budget(explore.budget_frame(masked, x, score) if len(masked) else masked, x, score, chosen)
save(
    fig,
    "explore_budget",
    "Masked words: perplexity of every arm over its compute at inference, mean over seeds.",
    "Scatter plot of arms: perplexity over inference FLOPs.",
    masked,
)
plt.show()

# %%
explore.budget(frames) if any(map(len, frames.values())) else None

# %% [markdown]
# ## Is it leaking?
#
# The dependency probe of the report on a model of your choice: how far does a prediction move when a *target* changes? With the blanks
# masked, not at all. Leave the words in, and the probe fires.

# %%
explore.is_it_leaking() if set(explore.FILLED) <= kept else missing(*explore.FILLED)
