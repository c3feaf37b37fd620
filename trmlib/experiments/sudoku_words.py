"""Chapter 05 in words: sentences by rule from what `sudoku_report` measures, as Markdown. Nothing to say: an empty text."""

import re

from trmlib import compare, stats
from trmlib.experiments import grid
from trmlib.experiments import sudoku as experiment
from trmlib.experiments import sudoku_report as report
from trmlib.runs import REPOSITORY

PEAK, SHARE = 989e12, 0.3  # bf16 FLOP/s of one H200 without sparsity, and the share of it that an estimate counts on
MINUTES = 30  # in which the published accuracy is to be reached on one H200
TIMES = 1.5  # how much faster than the public code a training step was to be on a CPU


def read(e, up, down, same, unclear):
    """One of four words for an Effect in shares: its interval above 0, below, within ±2 points, or none of these."""
    return up if e.low > 0 else down if e.high < 0 else same if e.low > -compare.SAME and e.high < compare.SAME else unclear


def points(e):
    return compare.change(e, report.METRIC)


def steps_text(e):
    return f"{e.estimate:.1f} [{e.low:.1f}, {e.high:.1f}]"


def spec_of(profile, arm="TRM"):
    return next(r.spec for r in grid(profile) if r.spec.experiment == "sudoku" and r.arm == arm)


def recipe(spec):
    """How a model is trained."""
    m, t = spec.model, spec.train
    return (
        f"d = {m.d}, {m.blocks} layers, n = {m.n}, T = {m.T}, N_sup = {m.n_sup}; {t.steps:,} steps of {t.batch} puzzles, "
        f"{ {'adamw': 'AdamW', 'muon': 'Muon'}[t.optimizer] } at {t.lr:g} after {t.warmup:,} steps of warm-up, weight decay {t.weight_decay:g}, EMA {t.ema:g}"
    )


def smaller(profile):
    """How many times fewer parameters the TRM of a profile has than the published one."""
    a, b = (sum(p.numel() for p in experiment.build(spec_of(p)).parameters()) for p in ("full", profile))
    return a / b


def halting(df):
    found = report.halting_steps(df)
    if not found:
        return ""
    whole, late, most = found
    claim = report.CLAIMED["halting"]
    short = "below" if late.high < claim else "above" if late.low > claim else "about"
    steps = df[df.arm == "TRM"].steps.iloc[0]
    return (
        f"A puzzle takes {steps_text(whole)} of at most {most} steps over the whole training of {steps:,} steps (mean over puzzles) and "
        f"{steps_text(late)} in its last quarter: {short} the {claim} of the claim, which is about {spec_of('full').train.steps:,} steps."
    )


def single_step(df):
    """Thinking time of the model that was trained for a single step."""
    found = report.single_step(df)
    if not found:
        return ""
    first, last, steps, e = found
    what = read(e, "thinking time pays", "it costs accuracy", "it changes nothing", "whether thinking time pays stays open")
    rest = report.unsupervised(df)
    left = read(rest, "better than the TRM", "still worse than the TRM", "as good as the TRM", "no difference from the TRM is shown")
    return (
        f"Trained for a single supervision step, the model solves {first:.0%} after it, and with the TRM's {steps} steps at test time, the same weights, "
        f"{last:.0%} ({points(e)}): {what}. Then it is {points(rest)} from the TRM: {left}."
    )


def stopping(store, df):
    found = report.stopping(store, df)
    if not found:
        return ""
    e, spent = found
    what = read(e, "it gains by it", "it stops too early", "it loses nothing", "whether it loses by it stays open")
    return f"Stopped as soon as the head is sure, a TRM's puzzle takes {steps_text(spent)} steps at test time, and accuracy changes by {points(e)}: {what}."


def longer(store, df):
    steps, e = report.longer_gain(store, df)
    if not e:
        return ""
    far, f = report.far_gain(store, df)
    soon, little = report.scored_gain(df)
    told = f"{soon} steps on all puzzles: {points(little)}. " if little else ""
    what = read(e, "more thinking helps", "more thinking harms", "no difference beyond ±2 points", "whether more thinking helps stays open")
    return (
        f"TRM, {steps} steps against the trained {report.trained_steps(df, 'TRM')}: {points(e)} over {e.n} seeds × {e.articles} puzzles: {what}. "
        f"{told}At {far} steps (the first {f.articles} puzzles): {points(f) if f.high > f.low else 'no answer changes for better or worse'}."
    )


def harder(store, df):
    found = report.harder(store, df)
    if not found:
        return ""
    lines, trained, effects, e = found
    steps = next(iter(lines.values()))[0]
    rows = [
        f"- {name}: {line[1][-1]:.0%} solved after {steps[-1]} steps, {points(effects[name])} against the trained number"
        for name, line in lines.items()
    ]
    last = f"- all that need more than {trained} rounds together: {points(e)}" if e else ""
    return "\n".join([*rows, last])


def noise(store, df):
    found = report.noise_effects(store, df)
    if not found:
        return ""
    steps, effects = found
    tell = [f"{name} {points(e)} ({read(e, 'helps', 'harms', 'changes nothing', 'open')})" for name, e in effects.items()]
    return f"Against no noise, after {steps} steps: {'; '.join(tell)}. n = {next(iter(effects.values())).n} seeds."


def calibration(store, df, arm="TRM"):
    found = report.calibration(store, df, arm)
    tell = [
        f"{name} it says {read(e, 'more than is true', 'less than is true', 'what is true', 'nothing shown to be wrong')} ({points(e)})"
        for name, (_, e) in found.items() if e
    ]  # fmt: skip
    return f"{arm}, mean probability of “solved” less the share solved: " + "; ".join(tell) + "." if tell else ""


def steps(store, df):
    order, moves = report.order(store, df, "TRM"), report.movement(store, df, "TRM")
    if order is None:
        return ""
    at, changed, *_ = moves["changed"]
    early, late = order[0, 0], order[0, -1]
    follows = all(a >= b for a, b in zip(order[0], order[0][1:], strict=False))
    text = (
        f"After one step {early:.0%} of the cells that fall in the first round are right and {late:.0%} of those of round {order.shape[1]}"
        f"{', fewer with every round' if follows else ''}; after {len(order)} steps {order[-1, 0]:.0%} and {order[-1, -1]:.0%}. "
        f"Step {at[0]} still changes {changed[0]:.1%} of the blanks, step {at[-1]} {changed[-1]:.2%}."
    )
    if {"solved", "unsolved"} <= moves.keys():
        a, b = (moves[k][1][-1] for k in ("unsolved", "solved"))
        text += f" In the last step *y* moves {a / b:,.0f} times as far (mean square) on puzzles that stay unsolved as on solved ones."
    return text


def difficulty(store, df):
    t = report.difficulty(store, df, "TRM")
    if len(t) < 2:
        return ""
    easy, hard = t.iloc[0], t.iloc[-1]

    def what(r, more):
        solved, low, high = r.solved
        text = f"{r.rounds:.0f} rounds{more} ({r.puzzles:.0f} puzzles): {solved:.0%} [{low:.0%}, {high:.0%}] solved"
        return text + (", first at step {:.1f} [{:.1f}, {:.1f}]".format(*r["first"]) if r["first"][0] > 0 else "")

    fewer = "fewer are solved" if hard.solved[2] < easy.solved[1] else "no fewer are shown to be solved"
    slower = (
        "the solved ones take more steps" if hard["first"][1] > easy["first"][2] else "the solved ones are not shown to take more steps"
    )
    return f"{what(easy, ' and fewer')}; {what(hard, ' and more')}: {fewer}, and {slower}."


def gains(store, df, arm="random starts"):
    b = report.budgets(store, df, arm)
    if not b:
        return ""
    return "\n".join(f"- {name}: {points(e)}" for name, e in report.gains(b, report.trained_steps(df, arm)).items())


def starts(store, df):
    """Does a model that was trained without random starts gain by them?"""
    both = [report.budgets(store, df, arm) for arm in ("TRM", "random starts")]
    if not all(both):
        return ""
    n = report.trained_steps(df, "TRM")
    k = min(report.shared(b, n) for b in both)
    e = report.against(both[0], (n, k), (n, 1))
    fixed, random = (report.solves(b, n, k) for b in both)
    between = stats.crossed(fixed, random)
    need = read(
        e,
        "training with random starts is not needed to gain by them",
        "it loses by them",
        "it gains nothing by them",
        "whether it gains stays open",
    )
    same = read(between, "better", "worse", "the same within ±2 points", "no difference is shown")
    return (
        f"Trained from a fixed start and given {k} random ones at test time, the TRM solves {fixed.mean():.0%} instead of "
        f"{report.solves(both[0], n).mean():.0%} ({points(e)}): {need}. Trained with random starts it is {random.mean():.0%} (fixed less random {points(between)}: {same})."
    )


def verdicts(store, df):
    """The chapter's question, answered from `gains` and `observations`."""
    b = report.budgets(store, df, "random starts")
    steps, e = report.longer_gain(store, df)
    if not b or not e:
        return "Nothing can be said before the evaluations `longer` and `budget` are recorded."
    n = report.trained_steps(df, "random starts")
    found = report.gains(b, n)
    name, wide = next(iter(found.items()))
    rows = [
        f"- **Think longer** (TRM, {steps} steps for {report.trained_steps(df, 'TRM')}): {points(e)}. "
        + read(e, "It helps.", "It harms.", "No difference beyond ±2 points, for this model and these puzzles.", "Open."),
        f"- **Try again** ({name}, the halting head choosing): {points(wide)}. "
        + read(wide, "It helps.", "It harms.", "No difference beyond ±2 points.", "Open."),
    ]
    rather = next((v for k, v in found.items() if "rather than" in k), None)
    if rather:
        what = read(
            rather,
            "Steps pay more, as the write-up says.",
            "Starts pay more, for this model and these puzzles: the opposite of what the write-up says of its own.",
            "The same.",
            "Open.",
        )
        rows.append(f"- **Which of them, at four times the compute**: steps less starts {points(rather)}. {what}")
    rows.append(f"- **Must training draw the starts?** {starts(store, df)}")
    seen = report.observations(store, df).set_index("observation")
    path = seen.loc["path independence goes with accuracy"]
    rows.append(f"- **Does path independence go with being right?** {path.reading}: {path.measured.partition(';')[0]}.")
    return "\n".join(rows)


def speed(path=None):
    """Of the hand-made measurements in data/benchmarks.md: how much faster a training step is than the public code's on a CPU."""
    text = (path or REPOSITORY / "data" / "benchmarks.md").read_text().partition("## Chapter 05")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (mixing over positions|attention) \|.*\| ([\d.]+) \(([\d.]+)\) \|$", text, re.M)
    tell = [f"{'met' if min(float(a), float(b)) >= TIMES else 'missed'} for {name} ({a}×, medians {b}×)" for name, a, b in rows]
    return f"On a CPU a training step was to be {TIMES}× as fast as the public code's: {' and '.join(tell)}." if tell else ""


def fast():
    """What the arm `fast` of the full profile will take, estimated."""
    spec = spec_of("full", "fast")
    work = experiment.step_flops(spec) * spec.train.steps
    return (
        f"The arm `fast` ({recipe(spec)}, with the curriculum) is to reach the published {report.CLAIMED['TRM']:.0%} in under {MINUTES} minutes on one "
        f"H200. It takes {work / 1e15:,.0f} PFLOP, {work / PEAK / SHARE / 60:.0f} minutes at {SHARE:.0%} of the chip's bf16 peak: an estimate, "
        "nothing of it has been measured."
    )
