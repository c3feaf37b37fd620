"""The ledger: claim → rule → verdict. `data/claims.yaml` holds what the earlier write-ups claim; a rule below turns records into a verdict.

*Reproduced*: the interval excludes 0 and holds the claimed value. *Not reproduced*: it excludes the claim. *Artefact*: removing the cause
gives equivalence, restoring it restores the effect. Else *inconclusive*; *open* while the runs that could decide are missing: pending, or so
far only of a size, text or device that says nothing of the claim; or nothing here can test it. Counts need no runs. Nor does what is checked on
paper: sums of the write-ups' own numbers, and numbers that they quote, *add up* or do not, which says nothing of the world. Where a chapter's
report has the rule, it is called, not repeated. A cut profile, or a stand-in for the corpus, model, size or device of the claim, can show an
effect or an artefact's cause and never refutes; it says nothing of a level. A claim of any model is about those that it was made on.

Two variants of *artefact*. Of Shakespeare (`shakespeare_gain`, `skill`) the removal of the cause need not give equivalence: no improvement of
2 % or more may be left, for a TRM that is worse without its leak unmakes the claim no less than a tie does. Where a level is claimed and not a gain
(a perplexity near 1, left to right; the plain model's 55.08), that level must come with the cause and go with it.
"""

import math
import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache

import numpy as np
import pandas as pd
import yaml
from scipy.stats import chi2

from trmlib import compare, stats
from trmlib.errors import TrmError
from trmlib.experiments import autoregressive_report as autoregressive
from trmlib.experiments import capacity_report as capacity
from trmlib.experiments import grid, module
from trmlib.experiments import masked_report as masked
from trmlib.experiments import shakespeare_report as shakespeare
from trmlib.experiments import sudoku_report as sudoku
from trmlib.export import percent
from trmlib.models.chunk import ChunkConfig, ChunkLM
from trmlib.runs import REPOSITORY, Store, spec_hash, write_atomically
from trmlib.tables import frame, shown

LEDGER = REPOSITORY / "data" / "claims.yaml"
PAPER = ("adds up", "does not add up")
VERDICTS = ("reproduced", "not reproduced", "artefact", "inconclusive", "open", *PAPER)
REPORTS = {"shakespeare": shakespeare, "masked": masked, "autoregressive": autoregressive, "capacity": capacity, "sudoku": sudoku}
FIXED = ("PRIMARY", "ADDED", "RECURSION", "DILUTION", "WORDS", "WORDS_ADDED")  # lists of comparisons in the chapters' reports
SCOPE = ("corpus", "model", "parameters", "device")  # in which records may fall short of a claim
TEXTS = {  # length of whole texts, and who says so
    "WikiText-2, training": (2_088_628, "Merity et al. 2016, arXiv 1609.07843, a token for each line's end included"),
    "WikiText-103, training": (103_227_021, "Merity et al. 2016, arXiv 1609.07843"),
    "Tiny Shakespeare": (1_115_394, "the length of input.txt of karpathy/char-rnn"),
}
RULES = {}  # name → rule(claim, df, store) → Finding, or of a computed one rule(claim) → Finding


@dataclass(frozen=True)
class Claim:
    """One line of the ledger."""

    id: str
    chapter: str  # experiment whose records decide
    source: tuple  # keys of the ledger's sources
    short: str  # for tables
    statement: str  # in our words
    rule: str  # name of a function below
    shown: dict  # notebook, heading, and figure where there is one
    value: object = None  # number, (low, high) or {step: number}
    unit: str = ""
    tolerance: float | None = None  # of the value, in its unit, unless the rule says otherwise
    arms: tuple = ()  # runs that the rule reads, the claimed one first
    args: dict = field(default_factory=dict)  # of the rule
    scope: dict = field(default_factory=dict)  # of SCOPE: what the claim is about
    headline: bool = False  # in the README

    @property
    def claimed(self):
        """The value as text."""
        if isinstance(self.value, dict):
            return f"{len(self.value)} {self.unit}"
        if self.value == 0 and self.unit == "%":
            return f"within ±{100 * self.tolerance:g} %"
        return ("at most " if self.args.get("at_most") else "") + number(self.value, self.unit)


@dataclass(frozen=True)
class Finding:
    """What a rule says of a claim."""

    verdict: str  # one of VERDICTS
    why: str = ""  # the artefact's cause, what is missing, or what the verdict rests on
    measured: float | None = None
    interval: tuple | None = None  # (low, high)
    n: int = 0  # seeds
    brief: str = ""  # `why` in a few words: cause, limits of the records, how far they go
    text: str = ""  # `measured` and `interval` as text; made from them where it is empty
    profile: str = ""  # of the records; empty where none are needed
    unit: str | None = None  # of `measured`; None: the claim's


def number(value, unit):
    """A value with its unit; a share or change is a fraction."""
    if value is None:
        return "–"
    if isinstance(value, (tuple, list)):
        *first, last = value
        first = [number(v, unit).split()[0] if unit in ("%", "share", "points") else number(v, "") for v in first]
        return ("–" if len(value) == 2 else ", ").join([*first, number(last, unit)])
    text = {
        "%": f"{100 * value:+.1f} %", "share": f"{100 * value:.1f} %", "points": f"{100 * value:+.1f} points",
        "×": f"{value:.3g}×", "±": f"±{value:.3g}", "perplexity": f"{value:,.0f}" if value >= 1000 else f"{value:.2f}".rstrip("0").rstrip("."), "parameters": f"{value:,.0f}",
    }.get(unit, f"{value:{',.0f' if value >= 1000 else '.3g'}} {unit}".strip())  # fmt: skip
    return text.replace("-", "−")


def joined(*parts):
    return "; ".join(filter(None, parts))


def measured(finding, unit):
    """What was measured as text, with its interval."""
    unit = unit if finding.unit is None else finding.unit
    if finding.text or finding.measured is None:
        return finding.text or "–"
    if finding.interval is None:
        return number(finding.measured, unit)
    if unit in ("%", "points", "share"):
        low, high = (f"{100 * v:{'' if unit == 'share' else '+'}.1f}" for v in finding.interval)
    else:
        low, high = (number(v, "") for v in finding.interval)
    return f"{number(finding.measured, unit)} [{low}, {high}]".replace("-", "−")


# ---------------------------------------------------------------- the ledger


def load(path=None):
    """(sources, claims) of the ledger, checked."""
    path = path or LEDGER
    document = yaml.safe_load(path.read_text())
    claims = [parsed(entry, document["sources"]) for entry in document["claims"]]
    if twice := {c.id for c in claims if [d.id for d in claims].count(c.id) > 1}:
        raise TrmError(f"claim {sorted(twice)[0]}: there are two of this id in {path.name}; name one of them anew")
    return document["sources"], claims


def parsed(entry, sources):
    """A claim from its entry, or one line that says what is wrong with it."""
    name = entry.get("id", "(without id)")
    needed = ("id", "chapter", "source", "short", "statement", "rule", "shown")
    wrong = lambda what: TrmError(f"claim {name}: {what}")  # noqa: E731
    if missing := [k for k in needed if not entry.get(k)]:
        raise wrong(f"field {missing[0]!r} is missing; a claim needs {', '.join(needed)}")
    if unknown := entry.keys() - Claim.__dataclass_fields__.keys():
        raise wrong(f"unknown field {sorted(unknown)[0]!r}; known: {', '.join(Claim.__dataclass_fields__)}")
    if entry["chapter"] not in REPORTS:
        raise wrong(f"unknown chapter {entry['chapter']!r}; known: {', '.join(REPORTS)}")
    if unknown := entry.get("scope", {}).keys() - SCOPE:
        raise wrong(f"unknown scope {sorted(unknown)[0]!r}; known: {', '.join(SCOPE)}")
    if unknown := [s for s in entry["source"] if s not in sources]:
        raise wrong(f"unknown source {unknown[0]!r}; known: {', '.join(sources)}")
    if entry["rule"] not in RULES:
        raise wrong(f"unknown rule {entry['rule']!r}; known: {', '.join(RULES)}")
    if unknown := [a for a in entry.get("arms", ()) if a not in known_arms(entry["chapter"])]:
        raise wrong(f"unknown run {unknown[0]!r}; `trm list {entry['chapter']}` names the runs of {entry['chapter']}")
    if not RULES[entry["rule"]].computed and not entry.get("arms"):
        raise wrong(f"rule {entry['rule']} reads records; name its runs in `arms`")
    if {"notebook", "heading"} - entry["shown"].keys():
        raise wrong("`shown` needs a notebook and a heading")
    lists = {k: tuple(entry.get(k, ())) for k in ("source", "arms")}
    return Claim(**entry | lists)


@cache
def known_arms(experiment):
    """Names of all arms of an experiment at the full profile."""
    return frozenset(r.arm for r in module(experiment).grid("full"))


def rule(f=None, *, computed=False, level=False, null=False, count=False):
    """Enters a function into RULES. `computed`: it needs no records; `level`: it judges a level, of which a cut profile says nothing;
    `null`: it is about a claim that there is *no* effect, which a cut profile can refute and never show; `count`: it reads off the records
    what is the same for every seed, so that more of them change nothing."""
    if f is None:
        return lambda f: rule(f, computed=computed, level=level, null=null, count=count)
    f.computed, f.level, f.null, f.count = computed, level, null, count
    RULES[f.__name__] = f
    return f


# ---------------------------------------------------------------- judging


def judge(claim, df, store, profile):
    """The Finding of one claim on the records (`tables.shown`: frame, profile) of its chapter."""
    f = RULES[claim.rule]
    if f.computed:
        return f(claim)
    if waiting := pending(df, claim.arms):
        return Finding("open", f"pending: {waiting}", brief="runs pending")
    if f.level and (few := [a for a in claim.arms if len(of(df, a)) < 2]):
        return Finding("open", f"fewer than two runs of {few[0]} finished", profile=profile)
    if len(claim.arms) > 1 and set(claim.arms) <= set(compare.unlearnt(df, compare.references(store, df))):
        return Finding("open", "none of its models has learnt enough to compare them", profile=profile)
    finding = f(claim, df, store)
    if finding.verdict not in VERDICTS:
        raise TrmError(f"claim {claim.id}: rule {claim.rule} says {finding.verdict!r}; expected one of {', '.join(VERDICTS)}")
    brief = finding.brief or (finding.why if finding.verdict == "artefact" else "")
    finding = limited(replace(finding, profile=profile, brief=brief), claim, df, f)
    return finding if f.count else interim(finding, claim, df, profile)


def pending(df, arms):
    """The arms whose seeds are not all there, as text; empty where nothing is missing."""
    if not len(df):
        return "all runs of the chapter"
    have = df.groupby("arm").seed.nunique()
    return ", ".join(f"{a} ({have.get(a, 0)} of {compare.enough(df)} seeds)" for a in arms if have.get(a, 0) < compare.enough(df))


def interim(finding, claim, df, profile):
    """A finding that says so where more seeds than stand were planned."""
    planned = {a: {r.spec.seed for r in grid(profile) if (r.spec.experiment, r.arm) == (claim.chapter, a)} for a in claim.arms}
    few = min(
        ((df[df.arm == a].seed.nunique(), len(seeds)) for a, seeds in planned.items()), key=lambda pair: pair[0] - pair[1], default=(0, 0)
    )
    if finding.verdict == "open" or few[0] >= few[1]:
        return finding
    said = f"interim, {few[0]} of {few[1]} seeds"
    return replace(finding, why=joined(finding.why, said), brief=joined(finding.brief, said))


def limits(claim, df, profile):
    """In what the records are not what the claim is about, as text."""
    of = df[df.arm.isin(claim.arms)]
    whole = {r.spec.hash for r in grid("full")} if profile == "cpu" else set()  # some runs are the same in both
    found = [] if profile == "full" or {r["hash"] for r in of.record} <= whole else [f"profile {profile}"]
    corpora, kinds = sorted({r["data"]["name"] for r in of.record}), sorted(set(of.device))
    if claim.scope.get("corpus") not in (None, *corpora):
        found.append(f"{' and '.join(corpora)} in place of {claim.scope['corpus']}")
    if claim.scope.get("model") not in (None, *claim.arms):
        model = capacity.MODELS.get(claim.arms[0].split()[0])
        found.append(f"{f'a {model} model' if model else claim.arms[0]} in place of {claim.scope['model']}")
    read = capacity.law(df, claim.arms[0].split()[0])[0].arm if claim.rule == "law" else claim.arms[:1]  # the law is read off all sizes
    own, size = df[df.arm.isin(read)].parameters.max(), claim.scope.get("parameters", 0)
    if own < 0.9 * size:  # 6.79 M stand for 6.84 M, and not for 10 M
        found.append(f"a model of {millions(own)} parameters in place of {millions(size)}")
    if "device" in claim.scope and kinds == ["cpu"]:
        found.append("a CPU in place of a GPU")
    return ", ".join(found)


def millions(n):
    return f"{n / 1e6:.{1 if n < 1e6 else 2}g} M"


def limited(finding, claim, df, rule):
    """A finding on cut or stand-in records: it can show an effect, or a cause that makes and unmakes one; it never shows that there is
    none, and says nothing of a level."""
    of = limits(claim, df, finding.profile)
    if not of:
        return finding
    said = f"{of}, which says nothing of this number" if rule.level else of
    told = replace(finding, why=joined(finding.why, said), brief=joined(finding.brief, of))
    if finding.verdict in ("open", "inconclusive"):
        return told
    if rule.level:
        return replace(finding, verdict="open", why=f"only {said}", brief=f"only {of}")
    if finding.verdict in (("not reproduced",) if rule.null else ("reproduced", "artefact")):
        return replace(told, why=joined(finding.why, f"shown with {of}"))
    reads = f"{finding.verdict} ({finding.why})" if finding.why else finding.verdict
    opposite = ": worse" in finding.why  # of `better`: an effect is there, but another one
    limit = (
        "shows another effect, and says nothing of the claim's own setting" if opposite else "can show an effect, never that there is none"
    )
    return replace(told, verdict="inconclusive", why=f"reads “{reads}”, but {of} {limit}",
                   brief=f"reads “{finding.verdict}”; {told.brief}")  # fmt: skip


def judged(store, profile="full", patterns=()):
    """[(claim, finding)] of the ledger, and the digest of all records that were read. Patterns (shell wildcards) choose claims by id,
    chapter or source."""
    _, claims = load()
    for p in patterns:
        if not any(named(c, p) for c in claims):
            raise TrmError(f"no claim matches {p!r}; a pattern is an id, a chapter ({', '.join(REPORTS)}) or a source, with * and ?")
    claims = [c for c in claims if not patterns or any(named(c, p) for p in patterns)]
    frames = {chapter: shown(store, chapter, profile) for chapter in dict.fromkeys(c.chapter for c in claims)}

    @cache
    def largest(chapter, *arms):  # the chapter's frame, or that of the full profile where a claim's own arms stand in it
        return frames[chapter] if frames[chapter][1] == profile else shown(store, chapter, profile, arms)

    of = {c.id: section(c, store, profile) or largest(c.chapter, *c.arms) for c in claims}
    digest = spec_hash(sorted({r["digest"] for df, _ in (*frames.values(), *of.values()) for r in df.record}))
    return [(c, judge(c, of[c.id][0], store, of[c.id][1])) for c in claims], digest


def section(claim, store, profile):
    """(frame, profile) of the section of chapter 04 that a claim is about, if its cut runs are no full runs; else None."""
    name = next((s for s in capacity.SECTIONS for a in claim.arms if claim.chapter == "capacity" and s in a), None)
    return name and capacity.section(store, name, profile)


def named(claim, pattern):
    return any(fnmatchcase(name, pattern) for name in (claim.id, claim.chapter, *claim.source))


# ---------------------------------------------------------------- rules without records


@rule(computed=True)
def parameters(claim):
    """Parameters counted, or of two arms their ratio; args: `characters` of a Shakespeare model, `of` a number to divide by."""
    first, *rest = (counted(claim.chapter, a, claim.args.get("characters")) for a in claim.arms)
    value = first / (rest[0] if rest else claim.args.get("of", 1))
    return within(value, claim, "counted")


@cache
def counted(experiment, arm, characters=None):
    """Parameters of an arm at the full profile; with the number of characters given, no corpus is needed."""
    spec = next(r.spec for r in grid("full") if r.spec.experiment == experiment and r.arm == arm)
    model = ChunkLM(spec.model, characters, spec.data.context, spec.data.chunk) if characters else module(experiment).build(spec)
    return sum(p.numel() for p in model.parameters())


@rule(computed=True)
def arithmetic(claim):
    """The write-up's numbers put together; args: `expression` of numbers (of several values, or the ends of a range: one for each), `at_most` if
    the value is a bound, `what` the expression stands for."""
    texts = claim.args["expression"] if isinstance(claim.args["expression"], list) else [claim.args["expression"]]
    value, *more = (calculated(claim, text) for text in texts)
    why = claim.args.get("what", " and ".join(texts).replace("*", "×"))
    if more:
        ends = (value, *more)
        close = all(close_to(v, said, claim.tolerance) for v, said in zip(ends, claim.value, strict=True))
        return Finding(PAPER[not close], why, interval=ends if len(ends) == 2 else None, text=number(ends, claim.unit))
    if claim.args.get("at_most"):
        return Finding(PAPER[value > claim.value], why, value)
    return within(value, claim, why, PAPER)


def calculated(claim, text):
    if not re.fullmatch(r"(\d+(\.\d+)?(e\d+)?|[-+*/() ])+", text):
        raise TrmError(f"claim {claim.id}: {text!r} is no sum of numbers")
    return float(eval(text, {"__builtins__": {}}))


def within(value, claim, why, words=VERDICTS):
    """Computed values: the first of the words within the tolerance of the value, or of the range; else the second."""
    low, high = claim.value if isinstance(claim.value, (tuple, list)) else (claim.value, claim.value)
    close = close_to(value, min(max(value, low), high), claim.tolerance)
    return Finding(words[not close], why, value)


def close_to(value, claimed, tolerance):
    """The last digit of a tolerance is given away to rounding."""
    return abs(value - claimed) <= (tolerance or 0) * (1 + 1e-9)


@rule(computed=True)
def table_agrees(claim):
    """Rows of the capacity write-up's own table that agree with its batch."""
    agree = int((capacity.examples_table().agree == "yes").sum())
    return replace(within(agree, claim, "steps × 32 against the examples stated", PAPER), text=f"{agree} of {claim.value} rows")


@rule(computed=True)
def quoted(claim):
    """A number of somebody else's, against the publication; args: `corpus` and `model` of a perplexity, or `text`, one of TEXTS, of its length."""
    if "text" in claim.args:
        length, source = TEXTS[claim.args["text"]]
        return within(length, claim, source, PAPER)
    found = capacity.PUBLISHED
    row = found[(found.corpus == claim.args["corpus"]) & (found.model == claim.args["model"])].iloc[0]
    return within(float(row["test perplexity"]), claim, row.source, PAPER)


@rule(computed=True)
def untested(claim):
    """What nothing here can test; args: `missing`, what it would take."""
    return Finding("open", claim.args["missing"])


# ---------------------------------------------------------------- rules on records


def from_effect(e, verdict, why="", unit=None, **more):
    return Finding(verdict, why, e.estimate, (e.low, e.high), e.n, unit=unit, **more)


def split(word):
    """ "artefact (of this)" or "open, with a candidate" → verdict, why."""
    verdict = next((v for v in VERDICTS if word.startswith(v)), "open")
    return verdict, word[len(verdict) :].strip(" ,").removeprefix("(").removesuffix(")") if word.startswith(verdict) else word


def level(values, claim, tolerance=0.0):
    """A level that one run was said to have: does it lie where one more run of ours would (`interval_for_one`)? A perplexity on the scale of
    its logarithm. An interval that holds the level claimed of the rival, too (args: `rival`), tells nothing."""
    log = claim.unit == "perplexity"
    values = np.asarray(values, float)
    found = shakespeare.interval_for_one(np.log(values) if log else values)
    mean, low, high = (math.exp(v) for v in found) if log else (float(v) for v in found)
    first, last = claim.value if isinstance(claim.value, (tuple, list)) else (claim.value, claim.value)
    inside = low <= last + tolerance and high >= first - tolerance
    both = inside and low <= claim.args.get("rival", -math.inf) <= high
    why = "interval: where one more run would fall" + (", and the rival's value lies there, too" if both else "")
    return Finding("inconclusive" if both else "reproduced" if inside else "not reproduced", why, mean, (low, high), len(values))


def of(df, arm):
    """The runs of an arm that did not diverge."""
    return df[(df.arm == arm) & (df.status == "recorded")]


@rule
def better(claim, df, store):
    """The first arm is better than each of the others; args: `metric`; `also`: a pair of arms whose difference is said, too, if need be from the cut profile; `note`. Comparisons
    fixed together (FIXED) are read as the chapter reads them, Holm-corrected together; others for themselves."""
    metric, first = claim.args.get("metric", "nll_b"), claim.arms[0]
    fixed = [getattr(REPORTS[claim.chapter], name, ()) for name in FIXED]

    def row_of(a, b):
        of = next((f for f in fixed if (a, b) in [c[:2] for c in f]), [(a, b, "")])
        return next(r for _, r in compare.primary(df, of, metric).iterrows() if (r["arm"], r["rival"]) == (a, b))

    rows = [row_of(first, b) for b in claim.arms[1:]]
    readings = [compare.reading(r) for r in rows]
    worse = [r for r, text in zip(rows, readings, strict=True) if text.startswith("the same") or text.endswith("worse")]
    verdict = "not reproduced" if worse else "reproduced" if all(t.endswith("better") for t in readings) else "inconclusive"
    row = (worse or rows)[0]
    why = "; ".join(f"against {r['rival']}: {text.removeprefix(first + ' is ')}" for r, text in zip(rows, readings, strict=True))
    if pair := claim.args.get("also"):
        e, where = row_of(*pair)["effect"], ""
        if e is None:
            e, where = compare.effect(frame(store, claim.chapter, "cpu"), *pair, metric), " (profile cpu)"
        why += f"; {pair[0]} against {pair[1]}: {compare.change(e, metric)}{where}" if e else ""
    why = joined(why, claim.args.get("note"))
    return from_effect(row["effect"], verdict, why, unit="points" if compare.is_share(metric) else "%")


@rule
def own_blocks(claim, df, store):
    """The first arm is better than the second, which refines with the encoder's blocks and so has fewer parameters: running those again harms, and no
    more is shown. What either gains over the third, which does not refine, is said."""
    own, again, plain = claim.arms
    found, size = better(replace(claim, arms=(own, again)), df, store), df.groupby("arm").parameters.max()
    gains = ", ".join(f"{a} {percent(compare.effect(df, a, plain))}" for a in (own, again))
    brief = f"{again} runs the encoder's again, with {100 - 100 * size[again] / size[own]:.0f} % fewer parameters; against {plain}: {gains}"
    return replace(found, why=joined(found.why, brief), brief=brief)


@rule
def change(claim, df, store):
    """The claimed change from the second arm to the first; args: `metric`."""
    e = compare.effect(df, *claim.arms, claim.args["metric"])
    return from_effect(e, stats.verdict(e, claim.value))


@rule
def masked_gain(claim, df, store):
    word, e = masked.verdict(df)
    return Finding("open") if e is None else from_effect(e, *split(word))


@rule
def shakespeare_gain(claim, df, store):
    """The chapter's verdict, with what is left, at the best evaluation, where either cause alone is removed."""
    word, e = shakespeare.verdict(df)
    if e is None:
        return Finding("open")
    verdict, why = split(word)
    left = [f"{r.what} alone leaves {percent(r.effect)}" for r in shakespeare.ladder(df).iloc[1:3].itertuples()]
    return from_effect(e, verdict, joined(why, "at the best evaluation, as published: " + ", ".join(left)), brief=why)


@rule(level=True)
def shakespeare_tables(claim, df, store):
    """Do two character tables make the baseline's level? With one it is far lower, with two it lies where one more run would."""
    found = shakespeare.two_tables(df, claim.arms[0])
    if found is None:
        return Finding("open", "fewer than two runs finished")
    explained = found["verdict"].startswith("explained") and found["then"] < found["low"]
    cause = "of two character tables" if explained else ""
    read = f"with two tables it depends on when it is read: {found['best']:.1f} at its {'first' if found['first'] else 'best'} evaluation, {found['last']:.0f} at its last, step {found['steps']:,}"
    whole = next(r.spec.train.steps for r in grid("full") if (r.spec.experiment, r.arm) == (claim.chapter, "baseline"))
    seen = f"seen over {found['steps']:,} of {whole:,} steps"
    return Finding("artefact" if explained else "open", joined(cause, read, seen), found["best"], (found["low"], found["high"]), len(of(df, claim.arms[0])),
                   text=f"{found['best']:.1f} with two tables, {found['then']:.1f} with one", brief=joined(cause, explained and seen))  # fmt: skip


@rule
def skill(claim, df, store):
    """Weights trained from the target, started elsewhere (args: `starts`): a skill of refining would beat the second arm from there, too."""
    found = compare.evaluation_frame(store, df, "starts")
    own, rival = claim.arms
    seeds = [s for a, s in found if a == own]
    if len(seeds) < compare.enough(df):
        return Finding("open", "the evaluation `starts` is pending")
    plain = compare.scores(df, rival).loc[seeds].to_numpy()
    effects = {s: stats.ratio(np.array([found[own, k][s][-1] for k in seeds]), plain) for s in claim.args["starts"]}
    best = min(effects, key=lambda s: effects[s].estimate)
    e, told = effects[best], compare.effect(df, own, rival)
    gone = all(v.low > math.expm1(-stats.MARGIN) for v in effects.values())
    verdict = "artefact" if stats.artefact(gone, told) and told.high < 0 else "reproduced" if e.high < 0 else "inconclusive"
    return from_effect(e, verdict, "of starting at the target" if verdict == "artefact" else f"the best other start is {best}", unit="%")


@rule(level=True)
def training_loss(claim, df, store):
    """The training loss (nats) of the last stretch of training."""
    return level([r["curve"]["train_loss"][-1] for r in of(df, claim.arms[0]).record], claim, claim.tolerance)


@rule
def each_pass(claim, df, store):
    """Perplexity falls from the first refinement to the last that is trained, by more than the ±2 % that count as the same."""
    runs = of(df, claim.arms[0]).record
    trained = ChunkConfig(**runs.iloc[0]["spec"]["model"]).T
    first, last = (np.array([r["detail"]["by_pass"]["nll_b"][k] for r in runs]) for k in (1, trained))
    e, same = stats.ratio(last, first), stats.equivalent(last, first)[1]
    return from_effect(e, "not reproduced" if same else signed(e, -1), "from the first refinement to the last", unit="%")


@rule
def gradients(claim, df, store):
    """How many times as much the first trained refinement adds to the gradient of the chunk's loss as the last, where none is detached. Nobody
    says from where on that is exploding or vanishing, and it grows with n and T, so no number decides the claim."""
    runs = {key for key in df.key[df.arm == claim.arms[0]]}
    found = [r["gradient"] for (arm, _), r in compare.evaluation_frame(store, df, "trained_gradients").items() if arm == claim.arms[0]]
    if len(found) < len(runs):
        return Finding("open", "the evaluation `trained_gradients` is pending")
    first, last = np.log([g[0] for g in found]), np.log([g[-1] for g in found])
    e = stats.paired(first, last)
    times, low, high = (math.exp(v) for v in (e.estimate, e.low, e.high))
    why = f"so many times as much as the last of {len(found[0])} refinements adds the first to the gradient of the chunk's loss; from where on that explodes the claim does not say"
    return Finding("open", why, times, (low, high), e.n, unit="×")


@rule(level=True)
def minutes(claim, df, store):
    """Minutes of a training run, a tolerance (a factor) for another machine."""
    low, high = claim.value
    value = float(np.mean([of(df, a).seconds.mean() for a in claim.arms])) / 60
    fits = low / claim.tolerance <= value <= high * claim.tolerance
    return Finding(
        "reproduced" if fits else "not reproduced",
        f"within a factor {claim.tolerance:g} for another machine",
        value,
        n=len(of(df, claim.arms[0])),
    )


@rule(level=True)
def as_reported(claim, df, store):
    """What the earlier rule of stopping reports on our runs; args: `column` of `masked_report.earlier_rule`."""
    return level(masked.earlier_rule(df, claim.arms)[claim.args["column"]], claim)


@rule(level=True)
def spread(claim, df, store):
    """How far from the mean one more run would fall, in the unit of the claim: the narrowest arm decides."""
    rows, widths = masked.earlier_rule(df, claim.arms), {}
    for arm, g in rows.groupby("arm"):
        mean, low, _ = shakespeare.interval_for_one(g[claim.args["column"]])
        widths[arm] = mean - low
    arm = min(widths, key=widths.get)
    verdict = "reproduced" if max(widths.values()) <= claim.value else "not reproduced" if widths[arm] > claim.value else "inconclusive"
    text = ", ".join(f"±{w:.1f} ({a})" for a, w in widths.items())
    return Finding(verdict, "where 95 % of further runs would fall", widths[arm], n=int((rows.arm == arm).sum()), text=text)


@rule(level=True)
def no_chance(claim, df, store):
    """Share of pairs of identical models that differ by the claimed change by the earlier rule; args: `change`."""
    found = masked.identical_models(df, claim.arms[0])
    share = float(np.mean(masked.seems_better(found["with_stopping"], claim.args["change"])))
    why = f"identical models differ as much in {share:.0%} of the pairs"
    return Finding("reproduced" if share < claim.tolerance else "not reproduced", why, share, n=len(of(df, claim.arms[0])))


@rule(null=True)
def converged(claim, df, store):
    """No change of perplexity from `step` to the end beyond the tolerance."""
    e = masked.unequal_steps(df, claim.arms[0], claim.arms[0], claim.args["step"])
    if e is None:
        return Finding("open", f"no run reaches step {claim.args['step']:,}")
    same = -claim.tolerance < e.low and e.high < claim.tolerance
    verdict = "reproduced" if same else "not reproduced" if e.high < -claim.tolerance or e.low > claim.tolerance else "inconclusive"
    return from_effect(e, verdict, f"change from step {claim.args['step']:,} to the last", unit="%")


@rule
def still_falling(claim, df, store):
    """Perplexity falls from `step` to the end."""
    e = masked.unequal_steps(df, claim.arms[0], claim.arms[0], claim.args["step"])
    if e is None:
        return Finding("open", f"no run reaches step {claim.args['step']:,}")
    why = f"change from step {claim.args['step']:,} to the last"
    if (rival := claim.args.get("rival")) and (other := masked.unequal_steps(df, rival, rival, claim.args["step"])):
        why += f"; that of *{rival}*: {percent(other)}"
    return from_effect(e, signed(e, -1), why, unit="%")


@rule
def behind(claim, df, store):
    """The first arm's perplexity is higher at `step`."""
    e = masked.unequal_steps(df, *claim.arms, claim.args["step"], claim.args["step"])
    if e is None:
        return Finding("open", f"no run reaches step {claim.args['step']:,}")
    return from_effect(e, signed(e, 1), f"at step {claim.args['step']:,}", unit="%")


def signed(e, sign):
    """An effect whose direction is claimed."""
    low, high = sorted((sign * e.low, sign * e.high))
    return "reproduced" if low > 0 else "not reproduced" if high < 0 else "inconclusive"


@rule(level=True)
def curve_points(claim, df, store):
    """Does each published point lie where one more run's noisy evaluation would at that step? The intervals hold together (Bonferroni).
    Where all lie in those of the other arm (args: `rival`), too, the points tell nothing: either model may have made them."""
    noise = masked.noise(df)
    found = {arm: points_inside(claim.value, of(df, arm), noise) for arm in (claim.arms[0], claim.args["rival"])}
    if late := [why for inside, why in found.values() if inside is None]:
        return Finding("open", late[0])
    (inside, _), (other, _) = found.values()
    verdict = "not reproduced" if not all(inside) else "inconclusive" if all(other) else "reproduced"
    why = joined("points that lie where one more run would", f"in the intervals of {claim.args['rival']} lie {sum(other)} of them")
    n, text = len(of(df, claim.arms[0])), f"{sum(inside)} of {len(inside)} points"
    return Finding(verdict, why, float(sum(inside)), n=n, text=text, unit="")


def points_inside(points, runs, noise):
    """(of each {step: perplexity}, whether it lies where one more of these runs would; "") or (None, what is missing). A few runs can lie closer
    together than one evaluation scatters, `noise` (nats), by chance; an interval is no narrower than that makes it."""
    if len(runs) < 2:
        return None, "fewer than two runs of the rival finished"
    curves, inside = [r["curve"] for r in runs.record], []
    for step, ppl in points.items():
        if any(step not in c["step"] for c in curves):
            return None, f"no run reaches step {step:,}"
        at = [c["noisy_nll"][c["step"].index(step)] for c in curves]
        _, low, high = shakespeare.interval_for_one(at, 1 - 0.05 / len(points), noise)
        inside.append(low <= math.log(ppl) <= high)
    return inside, ""


@rule(level=True)
def expected(claim, df, store):
    """A range that a run (of two arms: a pair of runs, by how much the first is better) is expected to fall into by the earlier rule: do more
    than half? An exact test of the count, one-sided at 5 %; args: `column` of `masked_report.earlier_rule`."""
    rows = masked.earlier_rule(df, claim.arms).pivot(index="seed", columns="arm", values=claim.args["column"])
    first, *rest = (rows[a] for a in claim.arms)
    values = (1 - first / rest[0] if rest else first).dropna()
    n, k = len(values), int(values.between(*claim.value).sum())
    chance = lambda k: sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n  # noqa: E731, of k or more, were it half of them
    verdict = "reproduced" if chance(k) < 0.05 else "not reproduced" if chance(n - k) < 0.05 else "inconclusive"
    text = f"{k} of {n} ({number(values.min(), claim.unit)} to {number(values.max(), claim.unit)})"
    return Finding(verdict, "how many fall there", float(values.mean()), n=n, text=text)


@rule(null=True, count=True)
def isolated(claim, df, store):
    """No prediction at one blank moves with the word at the other: the dependency probe off its diagonal, the words left in."""
    found = compare.leak_matrices(store, df).get(claim.arms[0])
    if found is None:
        return Finding("open", "the evaluation `leak_probe` is pending")
    moved = float(np.max(found["words left in"] * (1 - np.eye(2))))
    why = "how far a prediction moves when the word at the other blank is another, of 1 at most"
    return Finding("not reproduced" if moved else "reproduced", why, moved)


@rule(level=True)
def time_ratio(claim, df, store):
    """Time of a step of the first arm in that of the second, paired by seed."""
    rate = {a: df[df.arm == a].set_index("seed").eval("seconds / steps") for a in claim.arms}
    seeds = sorted(set.intersection(*(set(r.index) for r in rate.values())))
    e = stats.ratio(*(np.log(rate[a].loc[seeds].to_numpy()) for a in claim.arms))
    e = replace(e, **{k: 1 + getattr(e, k) for k in ("estimate", "low", "high")})
    near = e.low - claim.tolerance <= claim.value <= e.high + claim.tolerance
    return from_effect(e, "reproduced" if near else "not reproduced", "a step, on equal terms")


@rule(count=True)
def inference_ratio(claim, df, store):
    """Time of a prediction lies between the ratio of counted operations and that of blocks in series."""
    a, b = (df[df.arm == arm].iloc[0] for arm in claim.arms)
    low, high = sorted((a.inference_flops / b.inference_flops, a.serial_depth / b.serial_depth))
    inside = low <= claim.value <= high
    text = f"{number(low, '×')} the operations, {number(high, '×')} the depth"
    return Finding(
        "inconclusive" if inside else "not reproduced", "time was not measured; it lies between the two", None, (low, high), text=text
    )


@rule(level=True, count=True)
def validation_words(claim, df, store):
    """Words of the validation text: the fixed windows cover each of them once, but for what is left over at an article's end."""
    r = of(df, claim.arms[0]).record.iloc[0]
    data = r["spec"]["data"]
    words = sum(r["detail"]["by_article"]["blanks"]) / data.get("blanks", 2) * data.get("context", 16)
    fits = abs(words / claim.value - 1) <= claim.tolerance
    return Finding("reproduced" if fits else "not reproduced", "counted by windows of 16", words)


@rule
def near_one(claim, df, store):
    word, ppl = autoregressive.verdict(df)
    return Finding("open") if not ppl else one_or_not(*split(word), [ppl], len(of(df, "TRM")))


@rule
def near_one_settings(claim, df, store):
    """As `near_one`, of every setting that was tried."""
    rows = [r for r in autoregressive.settings(df).to_dict("records") if r["effect"] is not None]
    if len(rows) < len(autoregressive.SETTINGS):
        return Finding("open", f"{len(rows)} of {len(autoregressive.SETTINGS)} settings recorded")
    near = lambda r, names: [r[a] is not None and r[a] < autoregressive.NEAR_ONE for a in names]  # noqa: E731
    leaking, honest = (all(all(near(r, names)) if low else not any(near(r, names)) for r in rows)
                       for names, low in ((autoregressive.UNSHIFTED, True), (("baseline", "TRM"), False)))  # fmt: skip
    return one_or_not(*(("artefact", "of a missing shift") if leaking and honest else ("inconclusive", "")), rows, compare.enough(df))


def one_or_not(verdict, why, rows, n):
    without = [r[a] for r in rows for a in autoregressive.UNSHIFTED]
    shifted = [r[a] for r in rows for a in ("baseline", "TRM")]
    return Finding(verdict, why, max(without), None, n, text=f"{max(without):.3f} without the shift, {min(shifted):.1f} with it")


@rule(null=True)
def no_gain(claim, df, store):
    """The first arm is not better than the second by more than the tolerance."""
    e = compare.effect(df, *claim.arms)
    verdict = "reproduced" if e.low > -claim.tolerance else "not reproduced" if e.high < -claim.tolerance else "inconclusive"
    gain = (
        f"a gain, of a size that may still lie within the ±{claim.tolerance:.0%} that count as none"
        if verdict == "inconclusive" and e.high < 0
        else ""
    )
    return from_effect(e, verdict, gain)


@rule
def law(claim, df, store):
    """Read off causal models, which learn; what they are, and how the TRM itself reads, is said."""
    kind, counted = claim.arms[0].split()[0], compare.references(store, df)
    word, why = capacity.law_verdict(df, counted, kind)
    table, fit = capacity.law(df, kind)
    if fit:
        e = fit[1]
        found = {"measured": 10**e.estimate, "interval": (10**e.low, 10**e.high)}
    else:
        turned = int((~table.censored).sum())
        found = {"measured": float(turned), "text": f"{turned} of {len(table)} curves turn", "unit": "curves"}
    return Finding(word, joined(why, rests_on(df, counted, table.arm)), n=compare.enough(df), **found)


@rule
def forgetting(claim, df, store):
    """Do curves turn once the bound is passed? Read off the first arm; as to the TRM, see `law`."""
    row, counted = turning(df, claim), compare.references(store, df)
    if row is None:
        return Finding("open", f"too few runs of {claim.arms[0]} finished")
    if row["reached"] <= claim.value:
        return Finding("open", f"runs end at {row['reached']:.1f} examples a parameter")
    rests = rests_on(df, counted, claim.arms)
    if why := capacity.nothing_to_forget(df, counted, claim.arms):
        return Finding("open", joined(why, rests))
    return all_turn(row, joined(f" up to {row['reached']:.1f} examples a parameter", rests))


@rule
def safe(claim, df, store):
    """Is learning from fewer unique examples than the bound (in parameters) stable? Read off the first arm, which reads its few windows again
    and again. That every curve turns refutes it, whatever the model knew: where that was little, it is no forgetting, but not stable either."""
    row = turning(df, claim)
    if row is None:
        return Finding("open", f"too few runs of {claim.arms[0]} finished")
    r = df[df.arm == claim.arms[0]].iloc[0]
    unique = r.record["data"]["windows"] / r.parameters
    if unique >= claim.value:
        return Finding("open", f"its windows are {unique:.2f} a parameter")
    unknown = capacity.nothing_to_forget(df, compare.references(store, df), claim.arms)
    if unknown and row["turned"] < row["seeds"]:
        return Finding("open", unknown)
    high = f", and end {row['rise']:,.1f} times as high," if row["turned"] else ""
    why = f"{high} with {unique:.2f} unique examples a parameter, each read {row['reached'] / unique:.0f} times"
    found = all_turn(row, joined(why, sizes(df, claim.arms), unknown and f"unstable rather than forgetful ({unknown})"))
    said = ("reproduced", "not reproduced")
    return replace(found, verdict=dict(zip(said, said[::-1], strict=True)).get(found.verdict, found.verdict))


def turning(df, claim):
    """The row of `capacity_report.turned` of a claim's first arm, or None."""
    return next((r for r in capacity.turned(df).to_dict("records") if r["arm"] == claim.arms[0] and r["scored from"] == "own"), None)


def all_turn(row, why):
    verdict = "reproduced" if row["turned"] == row["seeds"] else "not reproduced" if not row["turned"] else "inconclusive"
    text = f"{row['turned']} of {row['seeds']} curves turn"
    return Finding(verdict, text + why, float(row["turned"]), n=row["seeds"], text=text, unit="curves")


def sizes(df, arms):
    """What models these arms are and what they read, as text."""
    of = df[df.arm.isin(arms)]
    parts = ", ".join(millions(n) for n in sorted(set(of.parameters)))
    return f"causal models of {parts} parameters on {', '.join(sorted({r['data']['name'] for r in of.record}))}"


def rests_on(df, counted, arms):
    """What a verdict on the capacity law rests on and how the TRM reads, as text."""
    word, why = capacity.law_verdict(df, counted, "TRM")
    return f"rests on {sizes(df, arms)}; of the TRM itself {word}: {why}"


@rule(level=True)
def turned_at(claim, df, store):
    """A run without a record: causes that give its shape are candidates, never a proof."""
    counted = compare.references(store, df)
    word, tested, names = capacity.ppl_verdict(df, counted)
    if counted is None and (alike := capacity.scored_from(capacity.alike(df))):
        return Finding("open", f"of its shape: {', '.join(alike)}; what counting reaches at that vocabulary is not evaluated")
    return Finding(
        "open",
        f"candidates: {', '.join(names)}"
        if names
        else f"tested {'; '.join(tested)}: none has its shape and ever knew more than counting tells",
    )


@rule
def efficiency(claim, df, store):
    word, e, bound = capacity.efficiency_verdict(df)
    if e is None:
        return Finding("open", "the models that it is read off are pending")
    lost = claim.arms[0] in compare.unlearnt(df, compare.references(store, df))
    why = joined("the answer lies beyond the models that were trained" if bound else "",
                 f"{claim.arms[0]} has learnt little more than token frequencies" if lost else "")  # fmt: skip
    found = capacity.times(e, bound)
    text = f"{found} times" if bound else "between {:.2f} and {:.2f} times (interpolated: {})".format(*capacity.next_to(df, e), found)
    return from_effect(e, word, joined(why, "its rivals name one token after the other"), text=text)


@rule(level=True)
def wikitext2(claim, df, store):
    """Perplexity of a word-level WikiText-2 model."""
    return level(np.exp(of(df, claim.arms[0]).nll_b), claim, claim.tolerance or 0)


@rule(level=True)
def solved(claim, df, store):
    """Share of puzzles solved."""
    return level(of(df, claim.arms[0])[sudoku.METRIC], claim)


@rule
def observation(claim, df, store):
    """A row of `sudoku_report.observations`; args: `row`, its name."""
    rows = observations(store, df)
    if claim.args["row"] not in rows.index:
        raise TrmError(f"claim {claim.id}: the chapter's report has no observation {claim.args['row']!r}")
    r = rows.loc[claim.args["row"]]
    verdict = {"seen": "reproduced", "inconclusive": "inconclusive", "open": "open"}.get(r.reading, "not reproduced")
    if verdict == "open" or r.effect is None:
        return Finding(verdict, "its evaluation is pending" if verdict == "open" else r.measured)
    return from_effect(r.effect, verdict, r.measured, unit="points" if "points" in r.measured else "")


def observations(store, df):
    return sudoku.observations(store, df).set_index("observation")


FORMS = {  # what a claim on the alignment rests on: table of `sudoku_report.alignments` → Effect; the side on which it is seen
    "latents": (lambda table: sudoku.latents(table), 1),
    "starts": (lambda table: sudoku.starts_alignment(table), -1),
    "accuracy": (lambda table: sudoku.correlations(table).get("prediction"), 1),
}


@rule
def both_forms(claim, df, store):
    """An observation that rests on the alignment, in both of its forms: started from another puzzle's end, as published, which is the
    report's row (args: `row`), and from its own, as 004 has it (args: `of`, a key of FORMS). Where they disagree neither decides."""
    first, table = observation(claim, df, store), sudoku.alignments(store, df, "own")
    effect, sign = FORMS[claim.args["of"]]
    own = effect(table)
    if own is None or first.interval is None:
        return Finding("open", "its evaluation is pending")
    second, runs, arms = signed(own, sign), len(table), table.arm.nunique()
    apart = "" if first.verdict == second else f"from another's end it reads “{first.verdict}”, from its own “{second}”"
    pooled = f"{runs} runs of {arms} arms" if first.n > compare.enough(df) else ""
    return replace(first, verdict="inconclusive" if apart else second, why=joined(first.why, pooled, apart), n=min(first.n, compare.enough(df)),
                   brief="the two forms of the score disagree" if apart else "")  # fmt: skip


@rule
def more_consistent(claim, df, store):
    """Alignment of the predictions scatters less over the seeds of an arm than that of y and of z: standard deviations in proportion, over arms.
    Both forms of the score must say so; shown is the least favourable ratio."""
    effects = {}
    for form in ("own", "other"):
        table = sudoku.alignments(store, df, form)
        if table.arm.nunique() < 2:
            return Finding("open", "its evaluation is pending")
        sd = np.log(table.groupby("arm")[["y", "z", "prediction"]].std())
        effects |= {f"than {k}, from {'its own' if form == 'own' else 'another’s'} end": stats.ratio(sd.prediction, sd[k]) for k in "yz"}
    words, worst = {signed(e, -1) for e in effects.values()}, max(effects.values(), key=lambda e: e.estimate)
    why = joined(*(f"{k} {percent(e)}" for k, e in effects.items()), f"{len(sd)} arms")
    return replace(from_effect(worst, words.pop() if len(words) == 1 else "inconclusive", why, unit="%"), n=compare.enough(df))


@rule
def uses_steps(claim, df, store):
    """Within configurations, the more a run's predictions align, the more it gains from the trained number of steps to the most in its record, in
    both forms of the score."""
    solved = {(r.arm, r.seed): r.record["detail"]["by_step"][sudoku.METRIC] for r in df[df.status == "recorded"].itertuples()}
    gain = {(a, s): v[-1] - v[sudoku.trained_steps(df, a) - 1] for (a, s), v in solved.items()}
    tables = [sudoku.alignments(store, df, form) for form in ("other", "own")]
    found = [sudoku.correlations(t.assign(accuracy=[gain[k] for k in zip(t.arm, t.seed, strict=True)])).get("prediction") for t in tables]
    if None in found:
        return Finding("open", "no gain beyond the trained steps is recorded beside the alignment")
    words = {signed(e, 1) for e in found}
    why = f"correlation; from its own end {found[1].text(digits=2)}; {len(tables[0])} runs of {tables[0].arm.nunique()} arms"
    return replace(from_effect(found[0], words.pop() if len(words) == 1 else "inconclusive", why), n=compare.enough(df))


@rule
def chooses_better(claim, df, store):
    """Among the most starts that were measured at the trained number of steps, the halting head chooses better than another rule (args: `than`)."""
    arm = claim.arms[0]
    b, steps = sudoku.budgets(store, df, arm), sudoku.trained_steps(df, arm)
    if b is None:
        return Finding("open", "the evaluation `budget` is pending")
    k = sudoku.shared(b, steps)
    e = sudoku.against(b, (steps, k), (steps, k, claim.args["than"]))
    return from_effect(e, signed(e, 1), f"{k} starts; {sudoku.sample(b)}", unit="points")


@rule
def stopping(claim, df, store):
    """At test time accuracy is lost where each puzzle stops as soon as the halting head is sure, in place of taking all trained steps."""
    found = sudoku.stopping(store, df, claim.arms[0])
    if found is None:
        return Finding("open", "the evaluation `longer` is pending")
    e, spent = found
    why = f"stopped after {spent.estimate:.1f} steps on average, in place of {sudoku.trained_steps(df, claim.arms[0])}"
    return from_effect(e, signed(e, -1), why, unit="points")


@rule
def largest_near(claim, df, store):
    """What random starts (args: `starts`) gain over one of them is largest near the trained number of steps: within a factor of two. The best of
    these against every other number measured; the intervals hold together (Bonferroni)."""
    arm, k = claim.arms[0], claim.args["starts"]
    b, trained = sudoku.budgets(store, df, arm), sudoku.trained_steps(df, arm)
    steps = [s for s, most in zip(b["steps"], b["most"], strict=True) if most >= k and k in b["starts"]] if b else []
    gain = {s: sudoku.solves(b, s, k, among=k) - sudoku.solves(b, s, 1, among=k) for s in steps}
    around = [s for s in steps if trained / 2 <= s <= 2 * trained]
    near, others = max(around, key=lambda s: gain[s].mean(), default=None), [s for s in steps if s not in around]
    if near is None or not others:
        return Finding("open", f"the evaluation `budget` of {k} starts, near the trained steps and away from them, is pending")
    less = {s: stats.crossed(gain[near], gain[s], level=1 - 0.05 / len(others)) for s in others}
    rival = min(less, key=lambda s: less[s].estimate)
    low, high = (min(getattr(e, side) for e in less.values()) for side in ("low", "high"))
    said = ", ".join(f"{100 * g.mean():.1f} after {s}" for s, g in gain.items())
    why = f"gain after {near} steps less that after {rival}, trained with {trained}; points that {k} starts gain: {said}"
    return from_effect(less[rival], "reproduced" if low > 0 else "not reproduced" if high < 0 else "inconclusive", why, unit="points")


@rule
def blip(claim, df, store):
    """The first arm is out of line with the mean of the others, on either side; args: `metric`."""
    of = [compare.scores(df, a, claim.args["metric"]) for a in claim.arms]
    seeds = sorted(set.intersection(*(set(s.index) for s in of)))
    own, *rest = (s.loc[seeds].to_numpy() for s in of)
    e, same = stats.paired(own, np.mean(rest, 0)), stats.equivalent(own, np.mean(rest, 0), compare.SAME)[1]
    return from_effect(e, "not reproduced" if same else "reproduced" if e.excludes(0) else "inconclusive", unit="points")


@rule(level=True)
def varies(claim, df, store):
    """Runs that differ in nothing but their seed vary by more than the tolerance: their standard deviation, with its χ² interval; args: `metric`."""
    v = of(df, claim.arms[0])[claim.args["metric"]].to_numpy(float)
    sd, free = float(v.std(ddof=1)), len(v) - 1
    low, high = (sd * math.sqrt(free / chi2.ppf(p, free)) for p in (0.975, 0.025))
    verdict = "reproduced" if low > claim.tolerance else "not reproduced" if high < claim.tolerance else "inconclusive"
    return Finding(verdict, "standard deviation over seeds", sd, (low, high), len(v), unit="share")


@rule(level=True)
def longer_gain(claim, df, store):
    """Accuracy after the most steps less that after the trained number, from the model's own start."""
    steps, e = sudoku.longer_gain(store, df, claim.arms[0])
    if e is None:
        return Finding("open", "the evaluation `longer` is pending")
    return from_effect(e, stats.verdict(e, claim.value), f"after {steps} steps")


@rule
def carries_most(claim, df, store):
    """More than half of the first arm's accuracy goes with what the second lacks, each after the steps that it was trained for; what is left
    of that after equally many steps is said, too. args: `metric`."""
    _, x, y = compare.pairs(df, *claim.arms, claim.args["metric"])
    e, half = compare.effect(df, *claim.arms, claim.args["metric"]), stats.paired(x / 2, y)
    why = f"each after its trained steps, without it {np.mean(y) / np.mean(x):.0%} of the accuracy are left"
    if (equal := sudoku.unsupervised(df, claim.arms[1])) is not None:
        why += f"; both after {sudoku.trained_steps(df, claim.arms[0])}, accuracy without it differs by {compare.change(equal, claim.args['metric'])}"
    return from_effect(e, signed(half, 1), why, unit="points")


@rule
def cheaper(claim, df, store):
    """The first arm trains for less, by counted operations, and is no worse than the second by 2 points; args: `metric`."""
    a, b = (df[df.arm == arm].iloc[0] for arm in claim.arms)
    saved, e = float(b.train_flops / a.train_flops), compare.effect(df, *claim.arms, claim.args["metric"])
    near, worse = abs(saved - claim.value) <= claim.tolerance, e.high < -compare.SAME
    verdict = "not reproduced" if worse else "reproduced" if near and e.low > -compare.SAME else "inconclusive"
    why = f"accuracy: {compare.change(e, claim.args['metric'])}; what is saved goes with the lengths of the stages, which the write-up does not name: ours are equal"
    return Finding(verdict, why, saved, n=e.n)


# ---------------------------------------------------------------- tables


def link(text, claim, folder=""):
    """Markdown link to the heading that shows a claim; Jupyter's anchors have hyphens for spaces."""
    return f"[{text}]({folder}{claim.shown['notebook']}.ipynb#{claim.shown['heading'].replace(' ', '-')})"


def documents(rows):
    """What `trm claims --json` prints: [(claim, finding)] as a list of dicts."""
    sources, _ = load()
    return [
        {"id": c.id, "chapter": c.chapter, "source": [{"key": s, **sources[s]} for s in c.source], "statement": c.statement,
         "claimed": {"value": c.value, "unit": c.unit, "tolerance": c.tolerance, "text": c.claimed},
         "measured": {**numbers(f), "unit": c.unit if f.unit is None else f.unit, "text": measured(f, c.unit)},
         "interval": f.interval and list(f.interval), "n": f.n, "profile": f.profile or None, "verdict": f.verdict, "why": f.why,
         "rule": c.rule, "runs": list(c.arms), "shown": c.shown}
        for c, f in rows
    ]  # fmt: skip


GROUPS = {  # tables short enough for a phone: name → (title, chapters)
    "claims_text": ("Text, letter by letter and left to right", ("shakespeare", "autoregressive")), "claims_masked": ("Two masked words", ("masked",)),
    "claims_capacity": ("Capacity", ("capacity",)), "claims_sudoku": ("Sudoku", ("sudoku",)),
}  # fmt: skip


def table(rows):
    """[(claim, finding)] as a frame of strings, ready for `export.save_table`."""
    return pd.DataFrame(
        [{"claim": c.short, "claimed": c.claimed, "measured": measured(f, c.unit), "seeds": str(f.n) if f.n else "–", "verdict": f.verdict}
         for c, f in rows], columns=["claim", "claimed", "measured", "seeds", "verdict"],
    )  # fmt: skip


def numbers(f):
    """What was measured, for a machine; None where there is no such number."""
    low, high = f.interval or (None, None)
    return {k: None if v is None else float(v) for k, v in (("value", f.measured), ("low", low), ("high", high))}


def everything(rows, digits=False):
    """[(claim, finding)] as a frame of strings with all that the ledger says; `digits`: and with what was measured as numbers, for a CSV."""
    table = pd.DataFrame(
        [{"id": c.id, "source": " ".join(c.source), "statement": c.statement, "claimed": c.claimed, "measured": measured(f, c.unit),
          "seeds": f.n, "profile": f.profile or "–", "verdict": f.verdict, "why": f.why, "shown in": f"{c.shown['notebook']}, {c.shown['heading']}"}
         for c, f in rows]
    )  # fmt: skip
    more = [numbers(f) | {"unit": c.unit if f.unit is None else f.unit} for c, f in rows]
    return pd.concat([table.rename(columns={"seeds": "n"}), pd.DataFrame(more)], axis=1) if digits else table


def linked(rows):
    """[(claim, finding)] as a Markdown table whose verdicts link to what shows them."""

    def line(c, f):
        verdict = link(f"**{f.verdict}**", c) + (f": {f.why}" if f.why else "")
        return f"| {c.statement} | {verdict} | {c.claimed} | {measured(f, c.unit)} | {f.n or '–'} | {', '.join(c.source)} |"

    head = "| claim | verdict | claimed | measured | seeds | source |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "\n".join(line(c, f) for c, f in rows)


def kind(claim, finding):
    """What a verdict rests on; one that is open waits for something to be measured."""
    if finding.verdict in PAPER:
        return "checked on paper"
    return "counted" if RULES[claim.rule].computed and finding.verdict != "open" else "measured"


def tally(rows):
    """How many claims have which verdict, in words, by what it rests on."""
    parts = {"measured": [], "counted": [], "checked on paper": []}
    for c, f in rows:
        parts[kind(c, f)].append(f.verdict)
    said = lambda n, word: f"{n} {word if n == 1 else word.replace('adds', 'add').replace('does', 'do')}"  # noqa: E731
    return "; ".join(f"{what}: " + ", ".join(said(v.count(x), x) for x in VERDICTS if x in v) for what, v in parts.items() if v)


def qualifier(claim, finding):
    """What a verdict must not be read without, in a few words: the artefact's cause, the limits of its records, that they are interim or
    pending; else how many seeds it rests on, or that it was counted or checked on paper."""
    if finding.brief:
        return finding.brief
    if finding.verdict == "open":
        return finding.why.split(";")[0]
    return f"{finding.n} seeds" if kind(claim, finding) == "measured" else kind(claim, finding)


def in_short(store, chapter, profile="full"):
    """A chapter's headline claims, what was claimed and measured, and the verdicts, as a Markdown table for its top."""
    rows = [(c, f) for c, f in judged(store, profile, [chapter])[0] if c.headline]
    head = ["**In short**, by the rules of chapter 00:", "", "| claim | claimed | measured | verdict |", "| --- | --- | --- | --- |"]
    lines = [f"| {c.short} | {c.claimed} | {measured(f, c.unit)} | {link(f'**{f.verdict}**', c)} ({qualifier(c, f)}) |" for c, f in rows]
    return "\n".join([*head, *lines])


START, END = "<!-- verdicts -->", "<!-- /verdicts -->"


def fill_readme(text, rows):
    """A README with the table of headline verdicts between its markers."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise TrmError(f"README.md needs the lines {START} and {END}, once each and in this order, around the table of verdicts")
    before, rest = text.split(START)
    lines = []
    for c, f in rows:
        if c.headline:
            where = link(f"{c.shown['notebook'][:2]}, {c.shown['heading']}", c, "notebooks/")
            lines.append(f"| {c.short} | **{f.verdict}** ({qualifier(c, f)}) | {where} |")
    head = ["| claim | verdict | where |", "| --- | --- | --- |"]
    total = f"All {len(rows)} claims of the ledger (`trm claims`): {tally(rows)}."
    return before + "\n".join([START, "", *head, *lines, "", total, "", END]) + rest.split(END)[1]


def write_readme(source, target):
    """The README at `source`, its table rebuilt from the records, to `target`."""
    write_atomically(target, fill_readme(source.read_text(), judged(Store())[0]).encode())
