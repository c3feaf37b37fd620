"""All results as CSV, for whoever wants to do the sums again: a row a run, a row a point of every curve, and a row a number of what
the records and the evaluations hold besides, with a data dictionary."""

import pandas as pd

from trmlib.errors import TrmError
from trmlib.experiments.sudoku_evaluations import unpacked
from trmlib.runs import write_atomically

FILES = ("runs.csv", "curves.csv", "details.csv", "evaluations.csv")

COLUMNS = {
    "experiment": "experiment that the run belongs to; also the folder of its record",
    "arm": "variant of the experiment; arms of one experiment and profile differ in a field or two of one config",
    "seed": "seed of weights and data order; equal seeds of two arms see the same data, so pair by it",
    "profile": "size of the run: smoke (a toy language), cpu (real data, cut), full (the scale of the earlier write-ups)",
    "hash": "hash of the run's spec; with device and precision the name of its record",
    "status": "recorded, or failed: it diverged and is scored as log V",
    "reason": "why it failed",
    "device": "kind of device that trained it",
    "precision": "arithmetic of the training pass",
    "data": "corpus",
    "steps": "optimiser steps taken",
    "parameters": "trained parameters, counted",
    "train_flops": "floating-point operations of the whole training, counted: forward and backward",
    "inference_flops": "floating-point operations of one window or puzzle, forward, counted",
    "serial_depth": "blocks or layers one after the other on the longest path from input to output",
    "seconds": "wall-clock seconds of training, evaluations included",
    "torch": "version of torch",
    "commit": "commit of the code that trained it",
    "digest": "digest of the record; an edited record no longer fits its own",
    "step": "optimiser step at which the point of the curve was measured",
    "measure": "what was measured: see below",
    "value": "the value measured",
    "name": "what the numbers belong to: see below",
    "keys": "which of its numbers, from the outside in, separated by slashes: see below",
}
MEASURES = {
    "nll": "negative log-likelihood in nats, mean over blanks, tokens, characters or cells; perplexity is its exponential",
    "accuracy": "share of targets named right; of Sudokus, share of puzzles solved in every cell",
    "nll_known": "`nll` over blanks whose word is in the vocabulary",
    "accuracy_known": "`accuracy` over blanks whose word is in the vocabulary",
    "nll_split": "`nll` with validation text in a character table of its own, as the earlier code had it",
    "nll_last": "`nll` of a leaking model that is started at the last context token in place of the target",
    "nll_constant": "`nll` of a leaking model that is started at a constant in place of the target",
    "bits": "bits a byte of text; empty where a target is unknown",
    "joint": "negative log-likelihood in nats of a whole chunk",
    "cells": "share of the cells of a Sudoku that are right",
    "halting": "cross-entropy in nats of the halting head that says whether the answer is right",
    "estimate": "perplexity's logarithm as the earlier code estimated it, from random batches (nats)",
    "estimate_sd": "standard error of `estimate`",
    "noisy_nll": "`nll` on random batches drawn anew for every arm and evaluation: the earlier write-ups' rule",
    "noisy_accuracy": "`accuracy` on those batches",
    "train_loss": "training loss, mean since the last point of the curve",
    "halting_steps": "supervision steps that a puzzle took in training before it was let go, mean since the last point",
    "train_accuracy": "share of the puzzles that left training solved, since the last point",
    "halting_right": "share of those for which the halting head was right",
}
PARTS = {"a": "part A of the validation set, on which choices are made", "b": "part B, which figures show", "all": "both parts"}


NESTED = {  # name, or name/key → (what its lists count, from the outside in, and from which number on; a word without one: by the list of that name; what it holds)
    "by_pass": ("pass:0", "scores of the read-out before any pass (0) and after each"),
    "by_step": ("step:1", "scores after each supervision step"),
    "by_slot": ("slot:1", "scores of each slot of a chunk"),
    "by_article": ("article:0", "`nll` of each article or stretch of the validation text, what it weighs (blanks, tokens, characters), and whether it lies in part B"),
    "nll": ("pass:0 groups", "`nll` after each pass, at each number of hops or dose (nats)"),
    "accuracy": ("pass:0 groups", "`accuracy` after each pass, at each number of hops or dose (nats)"),
    "joint": ("groups", "scores of two blanks together, in nats, at each dose: by the parallel marginals, filled in one by one (ab, ba), and what that coordinates"),
    "joint/blanks": ("groups blank:1", "`nll` of each blank by the parallel marginals, at each dose"),
    "leak_probe": ("prediction:1 target:1", "dependency matrix: how far the prediction at a slot moves when the target at a slot changes, 0 to 1"),
    "refinement": ("pass:0", "by frequency and class of word: scores after each pass; changed, mended, broken: shares of the words in the step after that pass"),
    "adaptive": ("seed:0 share", "`nll_b` when a share of the windows goes on thinking, by who chooses"),
    "adaptive/flops": ("share", "compute a window of the same"),
    "coordination": ("", "joint scores in nats of blanks side by side and far apart, means over windows"),
    "starts": ("pass:0", "`nll` after each refinement, from another start"),
    "references": ("", "`nll` that counting single tokens, or pairs of them, reaches (`last`: a token and the last one read before the chunk)"),
    "passes": ("pass:0", "`nll` after each pass, more than were trained"),
    "slots": ("pass:0 slot:1", "`nll` of each slot of the chunk after each pass; `encoder`: of the first slot's token, as the encoder alone names it"),
    "gradients": ("count:0", "of eight refinements, before training (fresh) and trained: `gradient`, the norm of what each adds to the gradient (0: the first), and `size`, the root mean square of the answer before any (0) and after each"),
    "trained_gradients": ("count:0", "the same of the trained model and of the refinements that it was trained with"),
    "known": ("", "`nll_b` of targets that are words, and the share of those that are none"),
    "alignment": ("hops:1", "asymptotic alignment: does the model end where it does from another start?"),
    "budget": ("steps starts", "share of puzzles solved after so many steps, when a rule chooses one of so many random starts"),
    "longer": ("steps", "share of puzzles solved (right), and if each stops when the halting head is sure (surely), after so many steps; on hops: after each pass, at each number of hops"),
    "longer/nll": ("pass:0 hops:1", "`nll` after each pass, more than were trained, at each number of hops"),
    "longer/accuracy": ("pass:0 hops:1", "`accuracy` of the same"),
    "pointers": ("hop:1", "questions asked of chains of `k` hops with so many passes, answered right, and (solved) answered right in both windows by the hop after which they exchange their rest"),
    "pointers/old": ("pass:0 hop:1", "of those solved, how many name the end from before the exchange, if that comes after so many passes"),
    "pointers/new": ("pass:0 hop:1", "of those solved, how many name the end that the exchange makes right"),
    "harder": ("group:0", "puzzles of other givens and more rounds of deduction"),
    "harder/groups": ("group:0 steps", "each group: givens, rounds needed, puzzles, and the share solved after so many steps"),
    "noise": ("steps", "share of puzzles solved with noise of that standard deviation after every step"),
    "thinking": ("step:1", "how far the answer moves in a step (residual)"),
    "thinking/changed": ("step:2", "share of the blank cells that change in a step"),
    "thinking/by_round": ("step:1 round:1", "share of cells that are right after a step, by the round of deductions in which they fall"),
    "thinking/difficulty": ("row:0", "share solved by the rounds of deduction that a puzzle needs"),
    "thinking/calibration": ("step:1 bin:1", "the halting head's probability in ten bins after a step: puzzles, what it said, share solved"),
    "thinking/sure": ("bin:1", "the same at the first step at which it says more than a half"),
}  # fmt: skip
LEFT_OUT = {
    "by_puzzle": "first step and outcome of every single Sudoku",
    "strips": "boards and texts pass by pass",
    "samples": "texts that models wrote",
    "examples": "likeliest words for the blanks of sentences",
}


def describe(column):
    """What a column, or a measure of a curve, holds; one that nobody described is an error."""
    measure, _, part = column.rpartition("_")
    if column in COLUMNS:
        return COLUMNS[column]
    if column in MEASURES:
        return MEASURES[column]
    if measure in MEASURES and part in PARTS:
        return f"{MEASURES[measure]}; {PARTS[part]}"
    raise TrmError(f"nothing says what {column!r} holds; describe it in trmlib/results.py")


def place(r):
    """Where a record stands in the order of all."""
    return r["experiment"], r["profile"], r["arm"], r["seed"], r["device"]["kind"], r["precision"], r["hash"]


def runs(records):
    """A row a record, sorted; metrics that a run does not have are empty."""
    rows = [{
        **{k: r[k] for k in ("experiment", "arm", "seed", "profile", "hash", "status", "reason")}, "device": r["device"]["kind"],
        "precision": r["precision"], "data": r["data"].get("name"),
        **{k: r[k] for k in ("steps", "parameters", "train_flops", "inference_flops", "serial_depth", "seconds")},
        "torch": r["versions"]["torch"], "commit": r["commit"], "digest": r["digest"], **dict(sorted(r["metrics"].items())),
    } for r in records]  # fmt: skip
    return pd.DataFrame(rows or None, columns=None if rows else list(COLUMNS)[:-3])


def curves(records):
    """A row a point of every curve: run, step, measure, value."""
    keys = ("experiment", "arm", "seed", "profile", "hash")
    rows = [
        (*(r[k] for k in keys), r["device"]["kind"], r["precision"], step, measure, value)
        for r in records if r["curve"]
        for measure, values in sorted(r["curve"].items()) if measure != "step"
        for step, value in zip(r["curve"]["step"], values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[*keys, "device", "precision", "step", "measure", "value"])


def of(name, path):
    """The entry of NESTED for a number: that of the first of its keys that has one, or of the whole."""
    found = next((NESTED[k] for k in (*(f"{name}/{part}" for part in path), name) if k in NESTED), None)
    if found is None:
        raise TrmError(f"nothing says what {name!r} holds; describe it in trmlib/results.py")
    return found


def numbers(name, value, lists, path=(), depth=0):
    """(keys, number) of everything in a nested value that is a number."""
    if isinstance(value, dict):
        for k, v in value.items():
            if k not in LEFT_OUT:
                yield from numbers(name, v, {**lists, **value}, (*path, k), depth)
    elif isinstance(value, list):
        axes = of(name, path)[0].split()
        if path and path[-1] in axes:
            return  # what counts the others
        if depth == len(axes):
            raise TrmError(f"{name}/{'/'.join(path)} is nested deeper than trmlib/results.py says")
        axis, _, first = axes[depth].partition(":")
        for i, v in enumerate(value):
            yield from numbers(name, v, lists, (*path, f"{int(first) + i if first else lists[axis][i]}"), depth + 1)
    elif isinstance(value, (bool, int, float)):
        of(name, path)
        yield "/".join(path), +value


def shares(e):
    """The result of an evaluation; packed outcomes of single puzzles as shares of the puzzles."""

    def rows(part, steps):
        return part | {k: unpacked(v, steps, part["puzzles"]).mean(1).tolist() for k, v in part.items() if isinstance(v, str)}

    r = e["result"]
    if (e["experiment"], e["name"]) == ("sudoku", "budget"):
        groups = [[max(k for k, v in zip(r["starts"], row, strict=True) if v) // k for k in r["starts"]] for row in r["any"]]
        share = lambda v, n: None if v is None else float(unpacked(v, n, r["puzzles"]).mean())  # noqa: E731
        table = lambda rule: [[share(v, n) for v, n in zip(*pair, strict=True)] for pair in zip(r[rule], groups, strict=True)]  # noqa: E731
        return {k: table(k) if isinstance(v, list) and k not in ("steps", "starts") else v for k, v in r.items()}
    if (e["experiment"], e["name"]) == ("sudoku", "longer"):
        return rows(r, len(r["steps"])) | {"far": rows(r["far"], len(r["far"]["steps"]))}
    if (e["experiment"], e["name"]) == ("sudoku", "harder"):
        named = [rows(g, len(r["steps"])) | dict(zip(("fewest givens", "most givens"), g["givens"], strict=True)) for g in r["groups"]]
        return r | {"groups": [{k: v for k, v in g.items() if k != "givens"} for g in named]}
    return r


def long(parts):
    """[(record, seeds, name, value, the lists that may count its entries)] → a row a number."""
    rows = [
        (r["experiment"], r["arm"], seeds, r["profile"], r["device"]["kind"], r["precision"], name, keys, value)
        for r, seeds, name, held, lists in parts if name not in LEFT_OUT
        for keys, value in numbers(name, held, lists)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["experiment", "arm", "seed", "profile", "device", "precision", "name", "keys", "value"])


def details(records):
    """What the records hold besides curve and metrics."""
    return long((r, r["seed"], name, held, r["detail"]) for r in records for name, held in r["detail"].items() if name != "groups")


def evaluations(store):
    """What was measured of trained weights later; of several seeds at once where `seed` names several."""
    known = store.records()
    found = [(e, [known[k] for k in e["runs"] if k in known]) for e in store.evaluations("*", "*")]
    found = sorted((f for f in found if f[1]), key=lambda f: (*place(f[1][0])[:-1], f[0]["name"]))
    return long((runs[0], " ".join(str(r["seed"]) for r in runs), e["name"], shares(e), {}) for e, runs in found)


def dictionary(tables):
    """The data dictionary of {file: frame} as Markdown."""
    lines = [
        "# The columns",
        "",
        "One row a run in `runs.csv`, a point of a curve in `curves.csv`, a number of a run's details in `details.csv` and of an evaluation of its "
        "weights in `evaluations.csv`. An empty field: not measured in that run. Left out, since they have thousands of entries a run or are no numbers: "
        + "; ".join(f"`{name}`, {what}" for name, what in LEFT_OUT.items()) + ". The records hold them.",
        "",
    ]  # fmt: skip
    for file, df in tables.items():
        lines += [f"## {file}", "", "| column | what it holds |", "| --- | --- |", *(f"| `{c}` | {describe(c)} |" for c in df), ""]
    measures = sorted(set(tables["curves.csv"].measure))
    nested = [
        "## Names and keys of details and evaluations",
        "",
        "Keys of words stand for themselves; a number counts what the second column says, from the number that it gives, or else is one of these.",
        "",
        "| name | its lists count | what it holds |",
        "| --- | --- | --- |",
        *(
            f"| `{name}` | {', '.join(a.replace(':', ' from ') for a in axes.split()) or '–'} | {what} |"
            for name, (axes, what) in NESTED.items()
        ),
    ]
    lines += [
        "## Measures of the curves",
        "",
        "| measure | what it is |",
        "| --- | --- |",
        *(f"| `{m}` | {describe(m)} |" for m in measures),
        "",
        *nested,
    ]
    return "\n".join(lines) + "\n"


def write(store, folder):
    """All results as FILES, and columns.md; returns the dictionary's text."""
    records = sorted(store.records().values(), key=place)
    tables = dict(zip(FILES, (runs(records), curves(records), details(records), evaluations(store)), strict=True))
    for name, df in tables.items():
        write_atomically(folder / name, df.to_csv(index=False).encode())
    text = dictionary(tables)
    write_atomically(folder / "columns.md", text.encode())
    return text
