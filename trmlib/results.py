"""All results as CSV, for whoever wants to do the sums again: a row a run, and a row a point of every curve, with a data dictionary."""

import pandas as pd

from trmlib.errors import TrmError
from trmlib.runs import write_atomically

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


def dictionary(tables):
    """The data dictionary of {file: frame} as Markdown."""
    lines = [
        "# The columns",
        "",
        "One row a run in `runs.csv`, one row a point of a curve in `curves.csv`. An empty field: not measured in that run.",
        "",
    ]
    for file, df in tables.items():
        lines += [f"## {file}", "", "| column | what it holds |", "| --- | --- |", *(f"| `{c}` | {describe(c)} |" for c in df), ""]
    measures = sorted(set(tables["curves.csv"].measure))
    lines += [
        "## Measures of the curves",
        "",
        "| measure | what it is |",
        "| --- | --- |",
        *(f"| `{m}` | {describe(m)} |" for m in measures),
    ]
    return "\n".join(lines) + "\n"


def write(store, folder):
    """runs.csv, curves.csv and columns.md of all records; returns the dictionary's text."""
    records = sorted(store.records().values(), key=lambda r: (r["experiment"], r["profile"], r["arm"], r["seed"], r["device"]["kind"], r["precision"], r["hash"]))  # fmt: skip
    tables = {"runs.csv": runs(records), "curves.csv": curves(records)}
    for name, df in tables.items():
        write_atomically(folder / name, df.to_csv(index=False).encode())
    text = dictionary(tables)
    write_atomically(folder / "columns.md", text.encode())
    return text
