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
# # 00 · When does thinking time help?
#
# A *Tiny Recursive Model* (TRM) is a small network that is applied again and again to its own answer. The original paper
# (Jolicoeur-Martineau 2025, arXiv 2510.04871) solves hard Sudokus with it. Four later write-ups say that it does much more:
#
# | claim | where it is tested |
# | --- | --- |
# | perplexity 1.01 on Shakespeare, against 55 for a plain model | 01, planned |
# | 16.1 % lower perplexity when two masked words are refined together | **02_masked** |
# | thinking time does not help left to right | 03, planned |
# | one parameter learns one example of WikiText-103 | **04_capacity** |
# | random starts and random recursion counts help on Sudoku | 05, planned |
#
# This report implements each system, measures it again with matched controls and several seeds, and says for each claim
# whether it was *reproduced*, *not reproduced*, *an artefact* (and of what), or is *inconclusive* or still *open*.
#
# ## How to read it
#
# - A **record** is one training run: a small JSON file under `data/results/`, with its spec, its curve, its costs and its
#   numbers. Every number and figure here comes from records by name. Nothing is typed.
# - A **profile** says how large a run is: `smoke` (a generated toy language, seconds), `cpu` (real data, fewer steps), `full`
#   (the scale of the earlier write-ups). A cut profile can show an effect; it never refutes a claim.
# - **Seeds are paired.** Seed *s* sees the same data in the same order in every arm, so that an arm is compared with its rival
#   seed by seed; intervals are 95 % *t* intervals of those differences.
# - Words for results follow rules that were fixed beforehand: *reproduced* means that the interval excludes zero and holds
#   the claimed value; *not reproduced* that it excludes the claim; *the same* that the 90 % interval lies within ±2 %.
#
# ## The idea, in code
#
# The whole of it is one page, `trmlib/recursion.py`: x is the question, y the answer, z the latent state.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import inspect

import pandas as pd
from IPython.display import Code, display

from trmlib import recursion
from trmlib.experiments import masked_report as report
from trmlib.export import percent, say
from trmlib.runs import Store
from trmlib.tables import cost, frame, status, summary

display(Code(inspect.getsource(recursion), language="python"))

# %% [markdown]
# ## Where things stand

# %%
store = Store()
rows = status(store, (profile,))
state = pd.DataFrame(summary(rows))
state.insert(0, "state", ["complete" if not r.pending else "pending" if not r.recorded else "under way" for r in state.itertuples()])
say(
    f"**{int(state.recorded.sum())} runs recorded, {int(state.pending.sum())} pending, {int(state.failed.sum())} failed** (profile {profile}). "
    + cost([r for r in rows if r["status"] == "pending"])
)
state.drop(columns=["profile"]).round(1)

# %% [markdown]
# ## What is known so far

# %%
df = frame(store, "masked", profile)
word, effect = report.verdict(df)
say(
    "| claim | claimed | measured at equal steps | seeds | verdict | shown in |\n| --- | --- | --- | --- | --- | --- |\n"
    f"| joint refinement of two masked words lowers perplexity | −16.1 % | {percent(effect)} | {effect.n if effect else 0} | **{word}** | 02_masked |"
)
