"""The article: a Jinja template filled with what the records say. Nothing that was measured is typed; what is pending reads as pending."""

import html
import math
from pathlib import Path
from types import SimpleNamespace

import jinja2
import mistune
import numpy as np

from trmlib import claims, compare
from trmlib.errors import TrmError
from trmlib.experiments import autoregressive_report, capacity_report, masked_report, shakespeare_report, sudoku_report, when_report
from trmlib.experiments.capacity import TIMES
from trmlib.export import percent
from trmlib.figures import known, note
from trmlib.tables import shown

PENDING = "(pending)"
WORDS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def fill(template, values):
    """A template (Jinja) with the values filled in; a name that it does not have is an error of one line."""
    settings = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    try:
        return jinja2.Environment(**settings).from_string(template).render(values)
    except jinja2.TemplateSyntaxError as e:
        raise TrmError(f"the template, line {e.lineno}: {e.message}") from None
    except jinja2.UndefinedError as e:
        raise TrmError(f"the template names what no record gives: {e.message}") from None


STYLE = """body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem; font: 1.1rem/1.6 Georgia, serif; color: #1d1d1f; }
h1, h2 { line-height: 1.25; } h2 { margin-top: 2.2rem; } figure { margin: 1.8rem 0; } img { max-width: 100%; } figcaption { font-size: .9rem; color: #5c5c62; }"""


class Page(mistune.HTMLRenderer):
    """Markdown → HTML; pictures stand with the caption and alt text of their figure."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def image(self, text, url, title=None):
        about = note(Path(url).stem, self.notes)
        alt, caption = html.escape(about["alt"]), html.escape(about["caption"], False)
        return f'<figure><img src="{html.escape(url)}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'

    def paragraph(self, text):
        return f"{text}\n" if text.startswith("<figure>") else f"<p>{text}</p>\n"


def page(article, figures):
    """The article (Markdown) as one HTML page that shows the pictures where they lie."""
    title = html.escape(article.split("\n", 1)[0].lstrip("# "))
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>'
    body = mistune.create_markdown(renderer=Page(known(figures)), plugins=["table"])(article)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n'


def values(store, profile="full"):
    """What the template may name: `claims` by id, and a namespace a chapter. Chapters show `profile`, or the cut one where it has no record."""
    frames = {name: shown(store, name, profile) for name in (*claims.REPORTS, "hops", "dial")}
    rows, _ = claims.judged(store, profile)
    df = {name: frame for name, (frame, _) in frames.items()}
    about = {name: compare.label(frame, used) for name, (frame, used) in frames.items()}
    return {
        "claims": {c.id: claim(c, f) for c, f in rows},
        "tally": claims.tally(rows),
        "counts": {word: sum(f.verdict == word for _, f in rows) for word in claims.VERDICTS} | {"all": len(rows)},
        "about": about,
        "shakespeare": shakespeare(store, df["shakespeare"]),
        "masked": masked(df["masked"]),
        "autoregressive": autoregressive(df["autoregressive"]),
        "capacity": capacity(df["capacity"]),
        "sudoku": sudoku(store, *frames["sudoku"]),
        "hops": hops(df["hops"], profile),
        "dial": dial(df["dial"]),
        "language": language(store, df["masked"]),
        "runs": sum(len(frame) for frame in df.values()),
        "number": lambda n: WORDS[n] if 0 <= n < len(WORDS) else str(n),
    }


def claim(c, f):
    """A claim of the ledger as the template sees it; what was measured is said once."""
    measured = claims.measured(f, c.unit)
    return SimpleNamespace(
        claimed=c.claimed,
        measured=measured,
        verdict=f.verdict,
        why=f.why.removeprefix(measured).removeprefix("; "),
        seeds=f.n,
        open=f.verdict == "open",
        short=c.short,
    )


def share(v):
    return PENDING if v is None or not math.isfinite(v) else f"{100 * v:.0f} %"


def perplexity(v):
    return PENDING if v is None or not math.isfinite(v) else f"{v:.2f}" if v < 10 else f"{v:.0f}"


def said(effect):
    return percent(effect) if effect else PENDING


def change(df, arm, rival):
    return said(compare.effect(df, arm, rival))


def shakespeare(store, df):
    leaking, honest = (shakespeare_report.ladder(df).iloc[i] for i in (1, -1))  # both with one table of characters
    others = shakespeare_report.other_starts(store, df)
    of = others[(others.arm == "target") & (others.start != "target")]
    best = of.ppl.min() if len(of) else None
    return SimpleNamespace(
        leaking=perplexity(leaking.trm), honest=perplexity(honest.trm), baseline=perplexity(honest.baseline), change=change(df, "mask", "baseline"),
        recursion=change(df, "mask", "parallel"), other_start=perplexity(best), done=len(df) > 0,
    )  # fmt: skip


def masked(df):
    claimed, (word, e), same = masked_report.CLAIMED, masked_report.verdict(df), masked_report.identical_models(df)
    alike = None if same is None else np.mean(np.abs(same["with_stopping"]) >= -claimed["change"])
    return SimpleNamespace(
        claimed_baseline=claimed["baseline_ppl"], claimed_trm=claimed["trm_ppl"], claimed_change=f"{-100 * claimed['change']:.1f} % less",
        change=change(df, "joint", "baseline"), seeds=e.n if e else 0, artefact=word.startswith("artefact"), plain_depth=change(df, "4-blocks", "baseline"),
        one_pass=change(df, "joint", "1-pass"), random_partner=change(df, "random-partner", "joint"),
        restored=said(masked_report.unequal_steps(df, "joint")), restored_baseline=said(masked_report.unequal_steps(df, "baseline")), alike=share(alike),
    )  # fmt: skip


def capacity(df):
    (word, why), (eff, e, _) = capacity_report.law_verdict(df), capacity_report.efficiency_verdict(df)
    return SimpleNamespace(
        law=word, why=why, mismatch=capacity_report.law_verdict(df, "leaking", "last")[0], times=TIMES, efficiency_verdict=eff,
        efficiency=f"{e.estimate:.2f} [{e.low:.2f}, {e.high:.2f}]" if e else PENDING, done=len(df) > 0,
    )  # fmt: skip


def autoregressive(df):
    word, ppl = autoregressive_report.verdict(df)
    of = lambda arm: perplexity(ppl.get(arm))  # noqa: E731
    return SimpleNamespace(
        leaking_baseline=of("baseline, no shift"), leaking=of("TRM, no shift"), baseline=of("baseline"), trm=of("TRM"),
        change=change(df, "TRM", "baseline"), compute=change(df, "TRM", "baseline-compute"), done=word != "open",
    )  # fmt: skip


def sudoku(store, df, profile):
    accuracy = lambda arm: share(compare.scores(df, arm, sudoku_report.METRIC).mean()) if compare.complete(df, arm) else PENDING  # noqa: E731
    points = lambda e: when_report.points(e) if e else PENDING  # noqa: E731
    (steps, gain), hard, done = sudoku_report.longer_gain(store, df), sudoku_report.harder(store, df), compare.complete(df, "TRM")
    return SimpleNamespace(
        accuracy=accuracy("TRM"), starts=accuracy("random starts"), gain=points(gain), settled=gain is not None and gain.high < compare.SAME,
        longer_steps=steps, harder=points(hard and hard[-1]), trained=sudoku_report.trained_steps(df, "TRM") if done else 0, done=done, full=profile == "full",
    )  # fmt: skip


def hops(df, profile):
    table = when_report.thinking(df, profile).set_index("arm")
    grown = when_report.growth(df, "8 passes") if len(df) else None
    at = lambda arm, column: share(table.loc[arm].get(column)) if arm in table.index and table.loc[arm].seeds else PENDING  # noqa: E731
    gains = {arm: e for arm, e in table.thinking.items() if e is not None}
    names = lambda keep: ", ".join(a for a, e in gains.items() if keep(e)) or "none"  # noqa: E731
    lang = when_report.language(df) if len(df) else None
    return SimpleNamespace(
        per_hop=f"{grown['per_hop']:.2f}" if grown else PENDING, seen=at("8 passes", "trained"), unseen=at("8 passes", "between"),
        beyond=at("8 passes", "beyond"), beyond_most=at("8 passes", "beyond_most"), guess=share(1 / lang.chains) if lang else PENDING,
        asked_too_much=at("4 passes", "beyond_most"), within_reach=at("4 passes, within reach", "beyond_most"), longest=max(lang.trained) if lang else PENDING,
        length=max(lang.groups) if lang else PENDING, gaining=names(lambda e: e.low > 0), flat=names(lambda e: e.low <= 0), seeds=compare.enough(df) if len(df) else 0,
    )  # fmt: skip


def dial(df):
    if not len(df):
        return SimpleNamespace(**dict.fromkeys(("nats", "passes", "samples", "samples_cost", "filling", "filling_cost"), PENDING), seeds=0)
    lang = when_report.language(df)
    last = len(lang.groups) - 1
    ways, dose = when_report.recovered(df, last), lang.groups[last]
    best = {way: max(points, key=lambda p: p[2]) for way, points in ways.items()}
    cost = lambda way: f"{best[way][1] / ways['passes'][0][1]:.1f}" if way in best else PENDING  # noqa: E731
    of = lambda way: share(best[way][2] / dose) if way in best else PENDING  # noqa: E731
    return SimpleNamespace(
        nats=f"{dose:.2f}", passes=of("passes"), samples=of("samples"), samples_cost=cost("samples"), filling=of("filling"),
        filling_cost=cost("filling"), symbols=lang.symbols, seeds=compare.enough(df),
    )  # fmt: skip


def language(store, df):
    found = {where: when_report.language_coordination(store, df, where) if len(df) else {} for where in ("neighbours", "distant")}
    best = lambda where, way: max((p[2] for p in found[where].get(way, ())), default=None)  # noqa: E731
    nats = lambda v: PENDING if v is None else f"{v:.2f}".replace("-", "−")  # noqa: E731
    return SimpleNamespace(
        **{f"{way}_{where}": nats(best(where, way)) for way in ("passes", "samples", "filling") for where in found},
        done=bool(found["neighbours"]),
    )
