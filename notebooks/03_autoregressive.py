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
# # 03 · Left to right: does a causal model gain from passes?
#
# **The claim.** On WikiText-2, left to right, baseline and Tiny Recursive Model (TRM) do equally well: perplexities near 1.0,
# whatever the context, the chunk, the vocabulary or the dropout; the one record that is known says 1.043 and 1.051. The earlier write-ups conclude that recursion does not help where
# each word is predicted from those before it.
#
# **The questions.** A perplexity of 1.04 means that next to nothing is left to predict. What did both models know? And when they no longer
# know it, do passes help a causal model, at equal parameters, equal depth, equal compute?
#
# Nothing below trains: every number comes from committed records by name. `trm list` shows the runs, `trm run` trains more.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import math

import matplotlib.pyplot as plt
import pandas as pd

from trmlib import claims, compare, plots, stats
from trmlib.experiments import autoregressive, when_report
from trmlib.experiments import autoregressive_report as report
from trmlib.export import percent, save_table, say, show_table, waits
from trmlib.runs import Store
from trmlib.tables import frame, records_digest, shown

plots.style()
store = Store()
say(claims.in_short(store, "autoregressive", profile))
df, profile = shown(store, "autoregressive", profile)
tuned = df.arm.str.contains("(lr", regex=False)
digest, about = records_digest(df), compare.label(df[~tuned], profile)
claimed = report.CLAIMED


def save(fig, name, caption, alt, runs=("*",), about=about, digest=digest, profile=profile):
    """The figure as files; where nothing of it is recorded, one line: what trains its runs."""
    if plots.empty(fig):
        return waits(fig, name, profile, "autoregressive", runs)
    return plots.save(fig, name, figures, f"{caption} ({about})", alt, digest, "03_autoregressive")


failed = int((df.status == "failed").sum())
say(
    f"This page shows {len(df)} runs: {about}. A run that diverged counts as log V: {failed} did. How they are trained: {compare.setting('autoregressive', 'TRM', profile)}. "
    "There are no bits per byte here: nobody knows the bytes of an `<UNK>`."
)

# %% [markdown]
# ## What the earlier code reads where
#
# A causal stack of two blocks reads sixteen words and predicts the next two. At position *i* it sees the words up to and including word *i*. It
# must therefore be asked there for word *i + 1*. The earlier code asks it for word *i*: **its logits are not shifted.** All arms are one config:
#
# | arm | what differs |
# | --- | --- |
# | baseline, no shift; TRM, no shift | as it was: asked at each position for the word that stands there |
# | baseline | the same stack, asked for the next word |
# | TRM | the stack is applied three times, to its own results, the context embedded again each time |
# | 2, 5, 8 passes | other numbers of passes |
# | every-pass | as TRM, but each pass is read out and trained |
# | recursion | TRM's own: two latent updates of *z*, then *y*, three times, gradient through the last (so that the slots' positions stay as drawn) |
# | 6-blocks | no recursion: as deep as the TRM, with blocks of its own for each step; more parameters, and no learning rate of its own |
# | baseline-compute | the baseline trained for as many FLOPs as the TRM, counted |
# | baseline-longer | the baseline trained for three times as many steps, more compute than the TRM's; it stood here as equal compute once |
# | baseline-, TRM-everywhere | trained at every position of the window, as language models usually are; passes then refine every position, in training and when scored |
# | baseline-everywhere-compute | baseline-everywhere, trained for as many FLOPs as TRM-everywhere |
# | TRM-everywhere, chunk alone | the same training, scored with passes over the chunk alone, which read the context's bare embeddings: not the function that was trained. It stood here as *TRM-everywhere* once |

# %%
leaks = compare.leak_matrices(store, df)
names = ("baseline, no shift", "TRM, no shift", "baseline", "TRM")
fig, axes = plt.subplots(2, 2, figsize=(7, 6.4))
for ax, arm in zip(axes.flat, names, strict=True):
    plots.matrix(leaks[arm]["as trained"], ax, arm) if arm in leaks else plots.pending(ax, arm)
save(
    fig,
    "autoregressive_leak",
    "Dependency probe: how far the prediction of a slot moves when a target changes. Without the shift each slot depends on its own target.",
    "Four two-by-two matrices: large diagonals for the two models without shift; with it only the entry below the diagonal.",
)
plt.show()
for arm in (a for a in names if a in leaks):
    found = leaks[arm]["as trained"]
    say(f"**{arm}**: on the diagonal {found.diagonal().max():.2g}, above it {found[0, 1]:.2g}, below it {found[1, 0]:.2g}.")
say(compare.probed(leaks))

# %%
word, ppl = report.verdict(df)
scope = "" if profile == "full" else f" (profile *{profile}*: a cut profile can show an effect, never refute a claim)"
if not ppl:
    say("**Verdict on “1.04 for both models”: open.** Runs are pending.")
else:
    say(
        f"**Verdict on “1.04 for both models”: {word}**{scope}. Without the shift: {ppl['baseline, no shift']:.3f} and {ppl['TRM, no shift']:.3f} "
        f"(on record: {claimed['baseline_ppl']} and {claimed['trm_ppl']}). With it: **{ppl['baseline']:.1f}** and **{ppl['TRM']:.1f}**."
    )

# %% [markdown]
# ### Could anything that was tried then change it?
#
# Context, chunk, vocabulary, dropout, one at a time. If the missing shift makes the 1.04, every setting falls to it without the
# shift, and none with it. (Perplexities at different vocabularies, or with other chunks, are not comparable with one another.)

# %%
table = report.settings(df)
show = lambda v: "–" if pd.isna(v) else f"{v:.3f}" if v < 10 else f"{v:.1f}"  # noqa: E731
show_table(pd.DataFrame({
    "setting": table.setting, **{name: table[name].map(show) for name in names}, "TRM against baseline": table.effect.map(percent),
}))  # fmt: skip
say(
    f"The settings are trained alike among themselves, and where they are cut at a higher rate than the arms below, chosen so that a large vocabulary comes near the claimed level in few steps; that of chunk 4: {compare.setting('autoregressive', 'TRM (chunk 4)', profile)}."
)
ready = table.dropna(subset=names)
low, high = (sum(all(near(r[a]) for a in pair) for _, r in ready.iterrows()) for pair, near in (
    (names[:2], lambda v: v < report.NEAR_ONE), (names[2:], lambda v: v > report.NEAR_ONE)))  # fmt: skip
if len(ready):
    say(
        f"Below {report.NEAR_ONE} without the shift, both models: **{low} of {len(ready)}** recorded settings. Above it with the shift, both models: **{high} of "
        f"{len(ready)}**." + ("" if len(ready) == len(table) else f" {len(table) - len(ready)} settings are pending.")
    )
for r in ready.to_dict("records"):
    if max(r[a] for a in names[:2]) >= report.NEAR_ONE:
        late, runs = report.falling(df, r["setting"])
        say(
            f"Without the shift *{r['setting']}* ends at {show(r[names[0]])} and {show(r[names[1]])}, and was still falling at its last point (by 1 % or more) in {late} of {runs} runs: "
            + ("cut too soon to tell." if late == runs else "it may stay there.")
        )

# %% [markdown]
# ## Does thinking time help left to right?
#
# Choices are made on half of the validation text (part A, a random half of the articles); numbers are from the other half (part B).
# Change of perplexity on part B against the baseline, paired by seed, with 95 % intervals. The grey zone is ±2 %.

# %%
table = report.arms(df)
done = table[table.seeds > 0]
rows = [
    {"name": r.arm, "effect": r.effect if r.seeds else None}
    for r in table.itertuples()
    if r.arm != "baseline" and "no shift" not in r.arm and " (" not in r.arm
]
fig, ax = plt.subplots(figsize=(7, 4.6))
plots.forest(rows, ax, zone=math.expm1(stats.MARGIN), xlabel="change of perplexity against the baseline (left is better)")
save(
    fig,
    "autoregressive_arms",
    "Every arm with the shift against the baseline: change of perplexity, 95 % intervals over seeds; grey: ±2 %. baseline-compute and baseline-longer train for more steps. Filled: at a false-discovery rate of 10 %, which is less strict than an interval that excludes zero.",
    "Forest plot: one interval an arm, with pending arms marked. Zero is the baseline.",
)
plt.show()

# %%
text = pd.DataFrame({"arm": ["no records yet"]})
if len(done):
    text = pd.DataFrame({
        "arm": done.arm, "seeds": done.seeds.astype(str), "perplexity": done.ppl.map(show), "vs its baseline": done.effect.map(percent),
        "params": (done.parameters / 1e6).map("{:.2f} M".format), "TFLOP": (1000 * done.train_pflop).map("{:,.3g}".format), "MFLOP": done.mflop.map("{:.1f}".format),
        "depth": done.depth.astype(int).astype(str), "minutes": done.minutes.map("{:.1f}".format),
    })  # fmt: skip
save_table(
    text[~text.arm.str.contains("(", regex=False)],
    "autoregressive_table",
    figures,
    f"The arms on part B of the validation text, mean over seeds ({about}). TFLOP: training; MFLOP: a window at inference; depth: blocks in series; minutes: a run, on whatever machine it was (compare costs by TFLOP).",
    "Table of the recorded arms with perplexity, change against the baseline, parameters, compute of training and of inference, depth and minutes.",
    digest,
    "03_autoregressive",
)
plt.show()

# %% [markdown]
# ### What the targets are
#
# Words in lower case, the 5,000 most frequent: what is rarer is `<UNK>`, and the corpus itself writes `<unk>` for the rarest. Ours end each line with
# an `<EOS>`, which the earlier code left out. None of the three is a word.

# %%
found = compare.evaluation_frame(store, df, "known")
if found:
    share = next(iter(found.values()))["share"]
    say("Share of the targets: " + ", ".join(f"{v:.1%} `{w}`" for w, v in share.items()) + ".")
    of = {arm: [r["nll_b"] for (a, _), r in found.items() if a == arm] for arm in ("baseline", "TRM")}
    say(
        "Perplexity of the other targets alone: "
        + ", ".join(f"*{a}* {math.exp(sum(v) / len(v)):.1f} ({len(v)} seeds)" for a, v in of.items() if v)
        + "."
    )
else:
    say("Not recorded yet.")

# %% [markdown]
# ### The comparisons fixed beforehand
#
# Chosen before the runs, Holm-corrected together; what equal compute is was counted anew when the first comparison at it was known (`CORRECTIONS.md`). The headlines are *TRM* against *baseline* and against *baseline-compute*. "The same" needs the 90 % interval to lie within ±2 % perplexity. *Detectable* is the
# smallest true difference that this many seeds would find four times in five. All of these models name the words one after the other and know the same before
# each, so that each slot is compared like for like.

# %%
first = compare.primary(df, report.PRIMARY)
show_table(compare.comparison_table(first))
added = compare.primary(df, report.ADDED)
say("Exploratory, added when the comparison of the two models that are trained everywhere was known:")
show_table(compare.comparison_table(added))
for rival in ("baseline", "baseline-compute"):
    if (crossed := compare.crossed_effect(df, "TRM", rival, of="tokens")) is not None:
        say(f"*TRM* against *{rival}* when the articles are drawn anew as well as the seeds: {percent(crossed)}.")

# %% [markdown]
# ### Longer training, and the published rate
#
# The cut profile stops early. Its learning rate is the best of the sweep below, and not the earlier code's, which is lower. In the full profile both models were trained longer,
# at either rate. If length made the difference, it would grow along the lines; if the rate does, the lines lie apart from the start. Lines are read on a few windows of part A; the marks on the right are the final weights on all of part B.

# %%
length = report.at_length(store)
_, published = length  # learning rates
name = lambda lr: f"learning rate {lr:g}" + (", as published" if lr == published else "")  # noqa: E731
drawn = {name(lr): found.along for lr, found in length.items() if found.along}
full = frame(store, "autoregressive", "full")
whole = full[full.arm.isin([name + of for name in ("baseline", "TRM") for of in ("", " (published rate)")])]
fig, ax = plt.subplots(figsize=(7, 4))
if drawn:
    plots.band_lines(drawn, ax, "training step")
    margin = 100 * math.expm1(stats.MARGIN)
    ax.axhspan(-margin, margin, color="#999999", alpha=0.15, linewidth=0)
    ax.axhline(0, color="#444444", linewidth=1)
    ax.axvline(autoregressive.CUT, color="#444444", linewidth=1, linestyle=":")
    ends = {name(lr): found.effect for lr, found in length.items() if found.effect and found.along}
    last = max(steps[-1] for steps, *_ in drawn.values())
    marks = {label: ([last * 1.03], *([100 * getattr(e, k)] for k in ("estimate", "low", "high"))) for label, e in ends.items()}
    plots.points(marks, ax, aside=last * 0.02)
    ax.legend(*(part[: len(drawn)] for part in ax.get_legend_handles_labels()), loc="lower left")
    ax.set_ylim(-8, 4)
    ax.set_ylabel("TRM against baseline, % of perplexity")
else:
    plots.pending(ax, "full training of both models")
save(
    fig,
    "autoregressive_length",
    "Change of perplexity from one pass to three along the full training, at two learning rates: the windows of part A that curves are read on, 95 % bands over seeds; grey: ±2 %; dotted: where the cut profile ends. Marks on the right: the final weights on part B.",
    "A line a learning rate, of the change in per cent against training steps, with bands and the zone of two per cent around zero, and at the right a mark with an interval for each.",
    ("baseline", "TRM", "* (published rate)"),
    compare.label(whole, "full"),
    records_digest(whole),
    "full",
)
plt.show()
for lr, found in length.items():
    if found.effect:
        say(
            f"**At {name(lr)}** *TRM* differs from *baseline* by **{percent(found.effect)}** after all steps ({found.ppl[1]:.1f} and {found.ppl[0]:.1f}, "
            f"part B, {found.seeds} of {compare.enough(df)} seeds)."
        )
if (crossed := compare.crossed_effect(full, "TRM", "baseline", of="tokens")) is not None:
    say(f"The first of these when the articles are drawn anew as well as the seeds: {percent(crossed)}.")
for lr, found in length.items():
    if found.grows:
        e = found.grows
        moved = (
            "length moves it towards the TRM"
            if e.high < 0
            else "length moves it away from the TRM"
            if e.low > 0
            else "length does not move it, as far as these runs can tell"
        )
        say(
            f"Along the line of {name(lr)} the difference is {percent(found.early)} before the dotted line (the second half of the cut profile's steps) and {percent(found.late)} over as "
            f"many points at the end: **{moved}** (by {percent(e)})."
        )
if (e := when_report.text_time(store, "autoregressive", whole)) is not None:
    (most, _), (own, _) = when_report.passed(store, "autoregressive", whole, "TRM")
    say(
        f"Given {most} passes in place of its {own}, the perplexity of the TRM trained in full changes by **{percent(e)}**: passes beyond training."
    )

# %% [markdown]
# ## Trained depth and thinking time
#
# Left: models trained with more passes. Right: trained models given more passes than they were trained with. If passes were thinking
# time, the right-hand curves would go on falling. The two panels have scales of their own; the left one's is the finer.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 4.2))
trained, more = report.trained_passes(df), report.more_passes(store, df)
if trained:
    plots.lines({"trained with as many": trained}, axes[0], "passes", "perplexity, part B")
    axes[0].set_xticks(trained[0])
else:
    plots.pending(axes[0], "trained passes")
if more:
    plots.lines({a: tuple(v[1:] for v in s) for a, s in more.items() if "chunk alone" not in a}, axes[1], "passes at test time", "")
    plots.plain_log(axes[1])
    axes[1].set_xticks(range(1, max(len(s[0]) for s in more.values())))
    axes[1].legend(fontsize=9, ncols=2, columnspacing=1, loc="lower center", bbox_to_anchor=(0.4, 1))  # over no line
else:
    plots.pending(axes[1], "passes at test time")
counts = lambda passes: ", ".join(map(str, passes[:-1])) + f" and {passes[-1]}"  # noqa: E731
save(
    fig,
    "autoregressive_passes",
    f"Perplexity of models trained with {counts(trained[0]) if trained else 'other numbers of'} passes (left), and, where the weights of every seed were kept, of trained models after more and fewer passes at test time (right). Bands: 95 % over seeds.",
    "Two panels of perplexity against passes: one point a trained model on the left, one line a model on the right.",
)
plt.show()

# %% [markdown]
# ## Equal tuning
#
# The same grid of learning rates for both models, on seeds of their own, scored on part A. The other arms of the comparisons run at the same rate
# as these two, without a sweep of their own.

# %%
fig, ax = plt.subplots()
plots.tuning(compare.tuning(df, ("baseline", "TRM"), autoregressive.RATES), ax)
save(
    fig,
    "autoregressive_tuning",
    "Perplexity against the learning rate, baseline and TRM, mean and 95 % band over the tuning seeds.",
    "Two lines of perplexity against the learning rate.",
    ("* (lr *)",),
    compare.label(df[tuned], profile),
)
plt.show()
say(compare.best_rates(df, ("baseline", "TRM"), autoregressive.RATES))
if faster := report.as_if_faster(df):
    say(
        "Below its best rate the TRM reads what the baseline would read at a higher one, by interpolation: "
        + "; ".join(f"at {lr:g}, about **{v:.1f}** times as high [{low:.2f}, {high:.2f}]" for lr, (v, low, high) in faster.items())
        + f" ({len(compare.scores(df, f'TRM (lr {autoregressive.RATES[0]:g})', 'nll_a'))} tuning seeds; the intervals hold their scatter, and not the error of a line between rates threefold apart). At an untuned rate a comparison measures this, too. Why is not tested (weights that are applied three times may move the answer further with each update); the reading was not planned."
    )
if profile == "cpu" and (found := compare.tuning(full, ("baseline", "TRM"), autoregressive.RATES)):
    say(
        f"In the full profile, {', '.join(f'{n} tuning seed' + 's' * (n > 1) for n in sorted({len(compare.scores(full, f'{model} (lr {lr:g})', 'nll_a')) for model, (rates, *_) in found.items() for lr in rates}))} a rate so far, part A: "
        + "; ".join(
            f"*{model}* " + ", ".join(f"{p:.1f} at {lr:g}" for lr, p in zip(rates, ppl, strict=True))
            for model, (rates, ppl, *_) in found.items()
        )
        + "."
    )

# %% [markdown]
# ## What it means
#
# The list is made by rule from the comparisons above; what is pending stays open.

# %%
settled = compare.primary(full, report.PRIMARY)
if profile == "cpu" and settled.effect.notna().any():
    say(
        f"In full ({compare.setting('autoregressive', 'TRM', 'full')}):\n\n"
        + compare.findings(settled[settled.effect.notna()])
        + f"\n\nPending there: {'; '.join(f'*{r.arm}* against *{r.rival}*' for r in settled[settled.effect.isna()].itertuples()) or 'none'}. In the cut profile:"
    )
say(
    compare.findings(pd.concat([first, added]), profile)
    + "\n\n"
    + compare.swept(df, "autoregressive", ("baseline", "TRM"), profile)
    + "\n- The other arms run at the same rate; none of them has a sweep."
)
