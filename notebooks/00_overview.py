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
# (Jolicoeur-Martineau 2025, arXiv 2510.04871) solves hard Sudokus with it. Four later write-ups say that it does much more. The
# ledger below holds what they state in numbers or as a cause, as far as we found it, and what became of it. Opinions, advice and plans are left out.
#
# ## The ledger
#
# A claim stands in `data/claims.yaml` with its source, its value and the name of a rule; the rule, a function of `trmlib/claims.py`,
# reads the records and gives the verdict. Nobody types one. *Reproduced*: the interval excludes zero and holds the claimed value.
# *Not reproduced*: it excludes the claim. *Artefact*: without its cause the two arms are the same within ±2 %, with it the effect is back.
# Otherwise *inconclusive*, and *open* as long as what could decide is missing: runs that are pending, or so far only of a size, text or device that
# says nothing of the claim, or a test that this report does not have. Parameter counts need no runs. Sums of the write-ups' own numbers, and numbers
# that they quote, are checked on paper: they *add up* or do not, which says nothing of the world. Records that fall short of the claim (a cut
# profile, a much smaller model, a stand-in for its corpus, model or device) can show an effect, but never refute one; a claim of any model is
# taken to be about those that it was made on.
#
# Two kinds of artefact are judged by a variant. Shakespeare's 1.01 against 55.08: without the leak and with one table of characters no
# improvement of 2 % or more may be left, and a cause, put back alone, must bring one at the best evaluation, which is what was published. That is less than "the same", and meant so, for a TRM that
# is the *worse* one without its leak unmakes the claim no less than a tie does. And where a level is claimed, not a gain (a perplexity near 1 left
# to right, the plain model's 55.08), that level must come with the cause and go with it.
#
# **Words of every chapter.** *Part A, part B*: the halves of the validation text, article by article in turns, or of the puzzles; choices are made on A, numbers are from B. *Log V*: the
# loss of a model that says all V tokens alike, in nats; a run that diverged counts as that. *Holm-corrected*: *p* values of comparisons that were fixed together, raised so that one false
# difference among them all has a chance of 5 %. *False-discovery rate of 10 %*: of many exploratory comparisons that are shown as differences, about one in ten may be none.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import inspect
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Code, display

from trmlib import claims, plots, recursion, site
from trmlib.export import save_table, say
from trmlib.runs import Store, write_atomically
from trmlib.tables import cost, status, summary

plots.style()
store = Store()
ledger, digest = claims.judged(store, profile)
say(f"**{len(ledger)} claims. {claims.tally(ledger).capitalize()}.**")

# %% [markdown]
# In the tables an interval is over seeds, 95 %; a single published number is held against the interval in which one more run of ours
# would fall.


# %%
def save(group, name):
    title, chapters = group
    rows = [(c, f) for c, f in ledger if c.chapter in chapters]
    save_table(
        claims.table(rows),
        name,
        figures,
        f"{title}: what was claimed, what was measured, and the verdict by rule ({claims.tally(rows)}).",
        f"Table of {len(rows)} claims with the claimed value, the measured one, the number of seeds and the verdict.",
        digest,
        "00_overview",
    )
    plt.show()


save(claims.GROUPS["claims_text"], "claims_text")
save(claims.GROUPS["claims_masked"], "claims_masked")
save(claims.GROUPS["claims_capacity"], "claims_capacity")
save(claims.GROUPS["claims_sudoku"], "claims_sudoku")
rows = claims.everything(ledger, digits=True)
write_atomically(Path(figures) / "claims.csv", rows.to_csv(index=False, float_format="%.10g").encode())  # further digits are the CPU's own

# %% [markdown]
# ### Each verdict, with its reason
#
# A verdict links to the heading that shows it.

# %%
for title, chapters in claims.GROUPS.values():
    say(f"#### {title}\n\n" + claims.linked([(c, f) for c, f in ledger if c.chapter in chapters]))

# %% [markdown]
# The sources, by number:

# %%
say("\n".join(f"- {key}: *{s['title']}*{', ' + s['address'] if s['address'] else ''}" for key, s in claims.load()[0].items()))

# %% [markdown]
# ## How to read it
#
# - A **record** is one training run: a small JSON file under `data/results/`, with its spec, its curve, its costs and its
#   numbers. Every number and figure here comes from records by name. Nothing is typed.
# - A **profile** says how large a run is: `smoke` (a generated toy language, seconds), `cpu` (real data, fewer steps), `full`
#   (the scale of the earlier write-ups). A cut profile can show an effect; it never refutes a claim that there is one.
# - **Seeds are paired.** Seed *s* sees the same data in the same order in every arm, so that an arm is compared with its rival
#   seed by seed; intervals are 95 % *t* intervals of those differences.
# - Words for results follow rules: *reproduced* means that the interval excludes zero and holds
#   the claimed value; *not reproduced* that it excludes the claim; *the same* that the 90 % interval lies within ±2 %. A published level
#   (or a curve) that our runs of the rival would reach as well decides nothing: *inconclusive*.
# - `claims.csv` beside the figures holds all this with what was measured as numbers (`value`, `low`, `high`, `unit`, `n`); `trm claims --json`
#   prints the same.
#
# ## The idea, in code
#
# The whole of it is one page, `trmlib/recursion.py`: x is the question, y the answer, z the latent state.

# %%
display(Code(inspect.getsource(recursion), language="python"))

# %% [markdown]
# ## Where things stand

# %%
rows = status(store, (profile,))
state = pd.DataFrame(summary(rows))
say(
    f"**{int(state.recorded.sum())} runs recorded, {int(state.pending.sum())} pending, {int(state.failed.sum())} failed** (profile {profile}). "
    + cost(rows)
)
chapters = state.groupby("experiment", sort=False)
chapters[["recorded", "pending", "failed"]].sum().assign(arms=chapters.size(), hours=(chapters.minutes.sum() / 60).round(1))

# %% [markdown]
# ## What was learned
#
# By rule, from the ledger and from the comparisons that every chapter fixed beforehand; what is pending stays open. When thinking time helps is
# chapter 06's to say; to try it yourself, chapter 08.

# %%
headlines = {v: [c.short for c, f in ledger if c.headline and f.verdict == v] for v in claims.VERDICTS}
say("\n".join(f"- **{verdict}**: {'; '.join(short)}." for verdict, short in headlines.items() if short))

# %%
say(site.together(store, profile))
for chapter, about, table in site.primaries(store, profile):
    settled = table[table.reading != "pending"]
    found = "; ".join(f"{r.comparison} ({r.change}): **{r.reading}**" for r in settled.itertuples())
    say(f"- *{chapter}* ({about}): {len(settled)} of {len(table)} comparisons. {found or 'All are pending.'}")
