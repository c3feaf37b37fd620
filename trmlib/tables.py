"""Runs and records as rows and frames: what `trm list` prints and what the notebooks read."""

import math
from fnmatch import fnmatchcase
from functools import partial
from statistics import median

import pandas as pd
from tqdm import tqdm

from trmlib.errors import TrmError
from trmlib.experiments import PROFILES, grid, matches, module, select
from trmlib.flops import forward
from trmlib.runs import spec_hash


def status(store, profiles, patterns=()):
    """One row for every record of every run in the grids, and one for every run without a record."""
    records, rows = {}, []
    for record in store.records().values():
        records.setdefault(record["hash"], []).append(record)
    for profile, runs in chosen(profiles, patterns).items():
        for run in runs:
            base = {
                "experiment": run.spec.experiment,
                "arm": run.arm,
                "seed": run.spec.seed,
                "profile": profile,
                "hash": run.spec.hash,
                "priority": run.priority,
            }
            blank = dict.fromkeys(
                ("parameters", "train_flops", "inference_flops", "serial_depth", "device", "precision", "seconds", "metrics")
            )
            for r in records.get(run.spec.hash, []):
                copied = {k: r[k] for k in ("status", "steps", *blank)} | {"device": r["device"]["kind"]}
                rows.append(base | copied)
            if run.spec.hash not in records:
                rows.append(base | {"status": "pending", "steps": run.spec.train.steps} | blank)
    return rows


def chosen(profiles, patterns):
    """{profile: its runs}, as `select`, but that a pattern need match in only one of the profiles."""
    if len(profiles) == 1:
        return {profiles[0]: select(profiles[0], patterns)}
    found = {p: [r for r in grid(p) if not patterns or any(matches(r, pattern, fnmatchcase) for pattern in patterns)] for p in profiles}
    for pattern in patterns:
        if not any(matches(r, pattern, fnmatchcase) for runs in found.values() for r in runs):
            raise TrmError(f"no run of any profile matches {pattern!r}; `trm list` names the arms")
    return found


def estimated(rows, store):
    """Rows of `status`, the pending ones with `estimated_seconds`: the seconds a step of the same arm times their steps; where that has
    no record, the seconds a FLOP of the experiment's (else all) records whose steps have the most similar cost, forward passes counted, times theirs."""
    specs, a_step, known = {r.spec.hash: r.spec for p in PROFILES for r in grid(p)}, {}, {}  # known: (FLOPs, seconds) of steps
    arm = lambda r: (r["profile"], r["experiment"], r["arm"])  # noqa: E731
    for r in rows:
        if r["seconds"] and r["steps"]:
            a_step.setdefault(arm(r), []).append(r["seconds"] / r["steps"])
    pending = [r for r in rows if r["status"] == "pending"]
    records = [r for r in store.records().values() if r["hash"] in specs and r["seconds"] and r["steps"]]
    others = {r["experiment"] for r in pending if arm(r) not in a_step}  # whose records must be counted; all where one has none
    if not others <= {r["experiment"] for r in records}:
        others = {r["experiment"] for r in records}
    counting = partial(tqdm, desc="costs", leave=False, disable=None, delay=2)
    for r in counting([r for r in records if r["experiment"] in others]):
        for key in (r["experiment"], None) if (flops := forward(specs[r["hash"]])) else ():
            known.setdefault(key, []).append((flops, r["seconds"] / r["steps"]))
    for r in counting(pending):
        if rates := a_step.get(arm(r)):
            r["estimated_seconds"] = median(rates) * r["steps"]
        elif (steps := known.get(r["experiment"]) or known.get(None)) and (flops := forward(specs[r["hash"]])):
            nearest = min((f for f, _ in steps), key=lambda f: abs(math.log(f / flops)))
            r["estimated_seconds"] = median(s for f, s in steps if f == nearest) * flops / nearest * r["steps"]
        else:
            r["estimated_seconds"] = None
    return rows


def summary(rows):
    """One row an arm: how many seeds in which state, what they took or will take, and when its turn is (the lowest priority first)."""
    groups = {}
    for r in rows:
        groups.setdefault((r["profile"], r["experiment"], r["arm"], r["device"] or ""), []).append(r)
    out = []
    for (profile, experiment, arm, device), g in groups.items():
        count = {s: sum(r["status"] == s for r in g) for s in ("recorded", "pending", "failed")}
        seconds = [s for r in g if (s := r["seconds"] or r.get("estimated_seconds"))]
        out.append({"profile": profile, "experiment": experiment, "arm": arm, "device": device, **count, "minutes": sum(seconds) / 60,
                    "priority": min(r["priority"] for r in g)})  # fmt: skip
    return out


def cost(rows):
    """One line on the pending ones among the rows, and what they will take if that was `estimated`."""
    rows = [r for r in rows if r["status"] == "pending"]
    text = f"{len(rows)} runs pending"
    if not any("estimated_seconds" in r for r in rows):
        return f"{text}; `trm list --pending` says which and what they take, `trm run` trains them"
    hours = sum(r["estimated_seconds"] or 0 for r in rows) / 3600
    text += (
        f", about {hours:,.{0 if hours >= 100 else 1}f} core-hours at the speed of the recorded ones"
        if hours
        else " (no record says how long)"
    )
    return f"{text}; `trm run` trains them"


def show_record(record):
    """A record as text, its curve left out."""
    lines = [
        f"{record['experiment']} / {record['arm']} / seed {record['seed']} ({record['profile']}), {record['status']} {record['reason']}".rstrip()
    ]
    for key in ("hash", "spec", "steps", "parameters", "train_flops", "inference_flops", "serial_depth", "seconds", "device", "precision",
                "mode", "versions", "commit", "data", "metrics"):  # fmt: skip
        lines.append(f"  {key:16} {record[key]}")
    return "\n".join(lines)


def frame(store, experiment, profile, precision=None):
    """Tidy frame, a row a recorded or failed run of the profile, its metrics as columns and the record itself in `record`.

    All rows are of one device kind and precision, the pair with the most records (of `precision`, if named): pairs never mix them."""
    rows, of = [], {}
    for key, r in store.records(experiment).items():
        of.setdefault(r["hash"], []).append((key, r))
    for run in grid(profile):
        for key, r in of.get(run.spec.hash, ()):
            if precision in (None, r["precision"]):
                rows.append({"arm": run.arm, "seed": run.spec.seed, "key": key, "device": r["device"]["kind"], "precision": r["precision"],
                             **{k: r[k] for k in ("status", "steps", "parameters", "train_flops", "inference_flops", "serial_depth", "seconds")},
                             **r["metrics"], "record": r})  # fmt: skip
    if not rows:
        return pd.DataFrame(columns=["arm", "seed", "key", "device", "precision", "status", "record"])
    df = pd.DataFrame(rows)
    device, precision = df.groupby(["device", "precision"]).size().sort_index(ascending=False).idxmax()
    return df[(df.device == device) & (df.precision == precision)].reset_index(drop=True)


def shown(store, experiment, profile, arms=()):
    """(frame, profile) of the records that a chapter shows: those of the profile, or in place of "full" those of "cpu" where more arms
    have all their seeds there, unless all of `arms`, where named, have theirs in full. Where the two share runs, a chapter says itself
    which of its others are cut."""
    df = frame(store, experiment, profile)
    if profile == "full" and not (arms and arms_done(df[df.arm.isin(arms)], experiment) == len(set(arms))):
        cut = frame(store, experiment, "cpu")
        if not set(cut.key) & set(df.key) and (arms_done(cut, experiment), len(cut)) > (arms_done(df, experiment), len(df)):
            return cut, "cpu"
    return df, profile


def arms_done(df, experiment):
    """How many arms of a frame have the experiment's seeds."""
    return int((df.groupby("arm").seed.nunique() >= len(module(experiment).SEEDS)).sum()) if len(df) else 0


def curves(df, value="nll"):
    """Long frame (arm, seed, step, value) of the curves in a frame of records."""
    parts = [
        pd.DataFrame({"arm": r.arm, "seed": r.seed, "step": r.record["curve"]["step"], value: r.record["curve"][value]})
        for r in df.itertuples() if r.record["curve"]  # a run that diverged at once has none
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "seed", "step", value])


def by_pass(df, metric="nll_b"):
    """Long frame (arm, seed, pass, metric): the read-out after each pass."""
    rows = [
        {"arm": r.arm, "seed": r.seed, "pass": k, metric: v}
        for r in df.itertuples() if r.status == "recorded"
        for k, v in enumerate(r.record["detail"]["by_pass"][metric])
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "seed", "pass", metric])


def records_digest(df):
    """The records that a figure shows, as one short digest."""
    return spec_hash(sorted(r["digest"] for r in df.record))
