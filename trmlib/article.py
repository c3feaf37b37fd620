"""The article: a Jinja template filled with what the records say. Nothing that was measured is typed; what is pending reads as pending."""

import html
import math
from pathlib import Path
from types import SimpleNamespace

import jinja2
import mistune
import numpy as np

from trmlib import claims, compare, stats
from trmlib.errors import TrmError
from trmlib.experiments import autoregressive_report, capacity_report, grid, masked_report, shakespeare_report, sudoku_report, when_report
from trmlib.export import percent
from trmlib.figures import known, note
from trmlib.tables import frame, shown

PENDING = "(pending)"
STOPPING = ("with_stopping", "equal_steps_best", "equal_steps_last")  # rules by which identical models are compared
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
    """What the template may name: `claims` by id, and a namespace a chapter. Chapters show `profile`, or the cut one where it has more to show."""
    frames = {name: shown(store, name, profile) for name in (*claims.REPORTS, "hops", "dial")}
    rows, _ = claims.judged(store, profile)
    df = {name: of for name, (of, _) in frames.items()}
    return {
        "claims": {c.id: claim(c, f) for c, f in rows},
        "counts": counts(rows),
        "sources": [source(**s) for s in claims.load()[0].values()],
        "about": {name: about(of, used) for name, (of, used) in frames.items()},
        "shakespeare": shakespeare(store, df["shakespeare"]),
        "masked": masked(store, *frames["masked"]),
        "autoregressive": autoregressive(store, df["autoregressive"], *shown(store, "autoregressive", profile, ("TRM", "baseline"))),
        "capacity": capacity(store, df["capacity"]),
        "sudoku": sudoku(store, *frames["sudoku"]),
        "hops": hops(when_report.longer(store, df["hops"]), profile, when_report.pointers_read(store, df["hops"])),
        "dial": dial(df["dial"]),
        "language": language(store, df["masked"]),
        "runs": sum(len({*of.key, *frame(store, name, profile).key}) for name, of in df.items()),  # some full runs stand beside cut ones
        "number": number,
    }


def number(n):
    """A count as one writes it in prose."""
    return WORDS[n] if 0 <= n < len(WORDS) else str(n)


def claim(c, f):
    """A claim of the ledger as the template sees it; `link` is its verdict, leading to the cell that shows it."""
    return SimpleNamespace(
        claimed=c.claimed,
        measured=claims.measured(f, c.unit),
        link=claims.link(f"**{f.verdict}**", c, "../notebooks/"),
        open=f.verdict == "open",
        against=f.verdict == "inconclusive" and f.why.startswith("reads “not reproduced"),  # by records that cannot refute
    )


def counts(rows):
    """How many claims there are, how many of each verdict, and of those that need no run ("computed") how many hold."""
    computed = [f.verdict for c, f in rows if claims.kind(c, f) != "measured"]
    run = [f.verdict for c, f in rows if claims.kind(c, f) == "measured"]
    found = {word.replace(" ", "_"): run.count(word) for word in claims.VERDICTS}
    found["sized"] = sum(f.verdict == "reproduced" and c.value is not None for c, f in rows if claims.kind(c, f) == "measured")
    return SimpleNamespace(all=len(rows), computed=len(computed), hold=computed.count("reproduced") + computed.count("adds up"), **found)


def source(title, address):
    """A line of the list of sources."""
    title = title.split(", as ")[0]
    return f"*{title}*" + (f", [{address.removeprefix('https://')}]({address})" if address else "")


def about(df, profile):
    """What the numbers of a chapter rest on."""
    return f"{'' if profile == 'full' else 'cut training, '}{number(compare.enough(df))} seeds"


def share(v):
    return PENDING if v is None or not math.isfinite(v) else f"{100 * v:.0f} %"


def fine(v):
    """A share with a decimal."""
    return PENDING if v is None or not math.isfinite(v) else f"{100 * v:.1f} %"


def perplexity(v):
    return PENDING if v is None or not math.isfinite(v) else f"{v:.2f}" if v < 10 else f"{v:.0f}"


def said(effect):
    return percent(effect) if effect else PENDING


def points(effect):
    return when_report.points(effect).replace("-", "−") if effect else PENDING


def change(df, arm, rival):
    return said(compare.effect(df, arm, rival))


def shakespeare(store, df):
    leaking, honest = (shakespeare_report.ladder(df, best=False).iloc[i] for i in (1, -1))  # both with one table of characters
    others = shakespeare_report.other_starts(store, df)
    of = others[(others.arm == "target") & (others.start != "target")]
    tables = shakespeare_report.two_tables(frame(store, "shakespeare", "full"))
    (word, e), counted = shakespeare_report.verdict(df), compare.references(store, df)
    first = compare.primary(df, shakespeare_report.PRIMARY, unlearnt=compare.unlearnt(df, counted))
    recursion = next(compare.reading(r) for _, r in first.iterrows() if (r.arm, r.rival) == ("mask", "parallel"))
    parallel = math.exp(compare.scores(df, "parallel").mean()) if compare.complete(df, "parallel") else None
    return SimpleNamespace(
        claimed=shakespeare_report.CLAIMED["trm_ppl"], leaking=perplexity(leaking.trm), honest=perplexity(honest.trm), baseline=perplexity(honest.baseline), change=said(e),
        recursion=change(df, "mask", "parallel"), one_refinement=change(df, "T-1", "parallel") if compare.complete(df, "T-1") else None, parallel=perplexity(parallel),
        unsettled=recursion == "inconclusive", other_start=perplexity(of.ppl.min() if len(of) else None), artefact=word.startswith("artefact"), causes=word.partition("(")[2].rstrip(")"),
        tables=tables and SimpleNamespace(best=f"{tables['best']:.1f}", end=f"{tables['last']:.0f}", then=f"{tables['then']:.1f}", one=f"{tables['one']:.1f}", steps=f"{tables['steps']:,}", first=tables["first"]),
        done=e is not None,
        unlearnt={"mask", "parallel"} <= set(compare.unlearnt(df, counted)), counted=counted is not None,
    )  # fmt: skip


def masked(store, df, profile):
    claimed, (word, e), same = masked_report.CLAIMED, masked_report.verdict(df), masked_report.identical_models(df)
    alike = {
        k: None if v is None else float(np.mean(masked_report.seems_better(v, -claimed["change"])))
        for k, v in (same or dict.fromkeys(STOPPING)).items()
    }
    first = compare.primary(df, masked_report.PRIMARY)
    partner = first[first.rival == "random-partner"].iloc[0]
    restored, plain = masked_report.unequal_steps(df, "joint"), compare.effect(df, "4-blocks", "baseline")
    cost = lambda of: df[df.arm == "4-blocks"].iloc[0][of] / df[df.arm == "joint"].iloc[0][of]  # noqa: E731
    both = e is not None and plain is not None
    return SimpleNamespace(
        claimed_baseline=claimed["baseline_ppl"], claimed_trm=claimed["trm_ppl"], claimed_change=f"{-100 * claimed['change']:.1f} %",
        kept=f"{max(claimed['baseline_curve']):,}", last=f"{max(claimed['trm_curve']):,}",
        change=said(e), seeds=e.n if e else 0, planned=planned("masked", "joint", profile), artefact=word.startswith("artefact"),
        restored=said(restored), at_claim=restored is not None and not restored.excludes(claimed["change"]),
        restored_baseline=said(masked_report.unequal_steps(df, "baseline")), by_rule=spread(masked_report.by_rule(df)),
        self_only=change(df, "self-only", "joint"), matched=said(matched[-1]) if (matched := compare.at_equal_compute(df, "joint", "baseline")) else None,
        alike=share(alike["with_stopping"]), alike_best=fine(alike["equal_steps_best"]), alike_last=share(alike["equal_steps_last"]),
        stopping=same is not None and alike["with_stopping"] > max(alike["equal_steps_best"], alike["equal_steps_last"]),
        steady=same is not None and alike["equal_steps_best"] < alike["equal_steps_last"],
        random_partner=change(df, "random-partner", "joint"), needs_no_partner=bool(partner["effect"] and partner["same"]),
        one_pass=change(df, "joint", "1-pass"), single_pass=change(df, "1-pass", "baseline"), passes_hurt=(more := compare.effect(df, "joint", "1-pass")) is not None and more.low > 0,
        plain_depth=said(plain), buys=plain is not None and plain.high < 0,
        compute=f"{cost('inference_flops'):.1f}" if both else PENDING, training=f"{cost('train_flops'):.1f}" if both else PENDING,
        time=longer(store, "masked", df),
    )  # fmt: skip


def spread(changes):
    """The lowest and the highest of relative changes, as "−24 % to +21 %"; None of fewer than two."""
    return "{:+.0f} % to {:+.0f} %".format(*(100 * f(changes.values()) for f in (min, max))).replace("-", "−") if len(changes) > 1 else None


def planned(experiment, arm, profile):
    """How many seeds of an arm were fixed beforehand."""
    return len({r.spec.seed for r in grid(profile) if (r.spec.experiment, r.arm) == (experiment, arm)})


CAUSAL = "causal 0.1M"  # the rival trained on the four tokens that the TRM names


def capacity(store, df):
    counted = compare.references(store, df)
    word, _ = capacity_report.law_verdict(df, counted, "steady")
    table, fit = capacity_report.law(df, "steady")
    turned, (_, size) = capacity_report.turned(df), capacity_report.law(df, "leaking", "last")
    (trm, standard, _), (whole, flat, _) = capacity_report.PRIMARY[0], capacity_report.RECURSION[0]
    slots = {arm: nll.mean(0) for arm, nll in capacity_report.by_slot(store, df).items()}
    first = {arm: perplexity(math.exp(nll[0])) for arm, nll in slots.items()}
    told = {whole, standard, CAUSAL} <= set(first) and slots[whole][0] - slots[standard][0] < (slots[whole] - slots[standard]).mean() / 2
    mean = lambda arm: perplexity(math.exp(compare.scores(df, arm).mean()))  # noqa: E731
    compared = counted is not None and compare.effect(df, trm, standard) is not None
    leaking = {
        s: turned[turned.arm.str.startswith("leaking") & (turned["scored from"] == s)] if len(turned) else turned for s in ("own", "last")
    }
    rates = leaking["last"].set_index("arm")["at"].reindex(capacity_report.MISMATCH.values()).dropna()  # where the arms turn, by their rate
    return SimpleNamespace(
        done=word != "open", curves=len(table), turned=int((~table.censored).sum()) if len(table) else 0, sizes=table.arm.nunique(),
        largest=f"{table.parameters.max():,}" if len(table) else PENDING,
        reached=f"{table.reached.min():.1f}" if len(table) else PENDING,
        at=f"{10**fit[1].estimate:.2g} [{10**fit[1].low:.2g}, {10**fit[1].high:.2g}]" if fit else None,
        first=first[whole] if told else None, first_standard=first.get(standard), first_causal=first.get(CAUSAL),
        recursion=said(e) if (e := compare.effect(df, whole, flat)) else None, flat=mean(flat) if e else None,
        compared=compared and trm in compare.unlearnt(df, counted), trm=mean(trm) if compared else PENDING, standard=mean(standard) if compared else PENDING,
        unigram=perplexity(math.exp(counted["unigram"])) if counted else PENDING,
        whole=mean(whole) if compare.complete(df, whole) else None,
        leaking=int(leaking["own"].seeds.sum()), leaking_own=int(leaking["own"].turned.sum()), leaking_turned=int(leaking["last"].turned.sum()),
        sooner=len(rates) == len(capacity_report.MISMATCH) and bool((rates.diff().dropna() < 0).all()), larger=bool(size and size[0].high < 0),
        corpus=" and ".join(sorted({f"*{r['data']['name']}*" for r in df[df.arm.isin(table.arm)].record})) if len(df) else PENDING,
        size=f"{df[df.arm == trm].parameters.iloc[0]:,} parameters" if compared else PENDING,
    )  # fmt: skip


def autoregressive(store, df, headline, of):
    """`df`: what the chapter shows; `headline`, of profile `of`: where TRM and baseline stand."""
    word, ppl = autoregressive_report.verdict(df)
    reads = lambda arm: perplexity(ppl.get(arm))  # noqa: E731
    e = compare.effect(headline, "TRM", "baseline")
    return SimpleNamespace(
        change=said(e), about=about(headline, of), cut=of == "cpu",
        leaking_baseline=reads("baseline, no shift"), leaking=reads("TRM, no shift"), baseline=reads("baseline"), trm=reads("TRM"),
        artefact=word.startswith("artefact"), done=word != "open", compared=e is not None, gains=e is not None and e.high < 0,
        time=longer(store, "autoregressive", headline),
        equal_steps=change(df, "TRM", "baseline"), compute=change(df, "TRM", "baseline-compute"), at_compute=compare.effect(df, "TRM", "baseline-compute") is not None,
    )  # fmt: skip


def sudoku(store, df, profile):
    accuracy = lambda arm: share(compare.scores(df, arm, sudoku_report.METRIC).mean()) if compare.complete(df, arm) else PENDING  # noqa: E731
    (steps, gain), hard, done = sudoku_report.longer_gain(store, df), sudoku_report.harder(store, df), compare.complete(df, "TRM")
    by_step = sudoku_report.by_step(df, ["TRM"]).get("TRM")
    b, one = (sudoku_report.budgets(store, df, "random starts"), sudoku_report.single_step(df)) if len(df) else (None, None)
    single = one and SimpleNamespace(
        first=share(one[0]), last=share(one[1]), steps=one[2], gain=compare.change(one[3], sudoku_report.METRIC), pays=one[3].low > 0,
        lost=compare.change(compare.effect(df, "no deep supervision", "TRM", sudoku_report.METRIC), sudoku_report.METRIC),
    )  # fmt: skip
    retry, *_ = when_report.sudoku_ways(store, df)
    soon, little = sudoku_report.scored_gain(df)
    tell = lambda e: e and compare.change(e, sudoku_report.METRIC)  # noqa: E731
    return SimpleNamespace(
        retry=points(retry[2]) if retry[2] and retry[2].low > 0 else None,
        single=single, claimed=f"{100 * sudoku_report.CLAIMED['TRM']:.0f} %", accuracy=accuracy("TRM"), starts=accuracy("random starts"), first=share(by_step[1][0]) if by_step else PENDING,
        longer=gain is not None, gains=gain is not None and gain.low > 0, longer_steps=steps, gain=tell(gain), asked=gain and gain.articles,
        soon=soon, little=tell(little), little_gains=little is not None and little.low > 0 and little.high < compare.SAME, equal=tell(sudoku_report.unsupervised(df, "no deep supervision")),
        still=gain is not None and max(abs(gain.low), abs(gain.high)) < 0.0005,
        harder=hard and hard[-1] and compare.change(hard[-1], sudoku_report.METRIC), harder_gains=bool(hard and hard[-1]) and hard[-1].low > 0,
        most_starts=b and b["starts"][-1], puzzles=b and b["puzzles"], corpus=df.record.iloc[0]["data"]["name"] if len(df) else PENDING, trained=sudoku_report.trained_steps(df, "TRM") if done else 0, done=done, cut=profile != "full",
    )  # fmt: skip


def longer(store, experiment, df):
    """What passes beyond training do to the perplexity of a text, with how many of them and how many of training, or None."""
    if (e := when_report.text_time(store, experiment, df)) is None:
        return None
    (most, _), (own, _) = when_report.passed(store, experiment, df, when_report.TEXT[experiment][0])
    return f"{percent(e)} ({most} for {own})"


def hops(df, profile, opened):
    """`arm(name)`: what is said of a model; `learnt`: how many of those that can go on learnt the lengths of their training, and `learnt_gain`:
    how many of these passes beyond training help; `opened`: the share of answers that are those of a reader of one pointer a pass, where nearly all are."""
    table = {r["arm"]: r for r in when_report.thinking(df, profile).to_dict("records")}
    lang = when_report.language(df) if len(df) else None
    guess = when_report.guess(df) if lang else math.nan

    def arm(name):
        c, e = when_report.cube(df, name), table[name]["thinking"]
        if c is None:
            return SimpleNamespace(done=False, gains=False, guesses=False, mastered=False)
        own, k, tested = when_report.trained_most(when_report.whole(df, name)[0]), when_report.kinds(df, name), c.shape[1] - 1
        at = lambda kind, passes: c[:, passes, k[kind]].mean() if len(k[kind]) else math.nan  # noqa: E731
        beyond = at("beyond", own), at("beyond", tested)
        return SimpleNamespace(
            done=True, at_guess=abs(at("trained", own) - guess) < compare.SAME, mastered=at("trained", own) >= when_report.MASTERED,
            passes=own, tested=tested, parameters=int(table[name]["parameters"]), trained=share(at("trained", own)),
            between=share(at("between", own)), beyond=share(beyond[0]), most=share(beyond[1]), gain=points(e), gains=e is not None and e.low > 0,
            less=beyond[0] < guess - compare.SAME, ends_less=beyond[1] < guess - compare.SAME, reaches=max(beyond) > guess + compare.SAME, guesses=max(abs(v - guess) for v in beyond) < compare.SAME,
        )  # fmt: skip

    able = [arm(name) for name in table if table[name]["thinking"] is not None]
    learnt = [a for a in able if a.mastered]
    grown = when_report.growth(df, "8 passes") if len(df) else None
    loop, untied = arm("8 passes"), arm("8 passes, untied")
    return SimpleNamespace(
        arm=arm, per_hop=f"{grown['per_hop']:.2f}" if grown else PENDING, step=bool(grown) and abs(grown["per_hop"] - 1) < 0.1, guess=share(guess),
        solved=share(opened["8 passes"]["longest"]["solved"].mean()) if "8 passes" in opened else PENDING, longest=max(lang.trained) if lang else 0, able=len(able),
        asked=loop.gains and arm("4 passes, within reach").gains and arm("4 passes").guesses,
        detached=detached(df), untied_climbing=when_report.climbing(df, "8 passes, untied") if untied.done else 0,
        seeds=compare.enough(df) if lang else 0, learnt=len(learnt), learnt_gain=sum(a.gains for a in learnt),
        opened=one_pointer(opened), saves=f"{untied.parameters / loop.parameters:.1f}" if loop.done and untied.done else PENDING, as_good=no_worse(df, "8 passes", "8 passes, untied"),
    )  # fmt: skip


def one_pointer(opened):
    """Of the block with eight passes on the longest chains, when they are exchanged between passes; None unless it is surely over 90 %."""
    found = opened.get("8 passes")
    mean, low, _ = when_report.interval(found["longest"]["agrees"]) if found else (0, 0, 0)
    return share(mean) if low > when_report.LEVEL else None


DETACHED = [a for a in when_report.WHOLE_GRADIENT if a.startswith("TRM")]


def detached(df):
    """Is the TRM at a guess on each of the lengths of its training, whatever is normed and however it is supervised, where its gradient does not reach all passes?"""
    own = [r for r in when_report.gradient_reach(df) if r["arm"] in DETACHED] if len(df) else []
    seen = when_report.kinds(df, "TRM")["trained"] if own else []
    return len(own) == len(DETACHED) and all(np.abs(r["accuracy"][seen] - when_report.guess(df)).max() < compare.SAME for r in own)


def no_worse(df, arm, rival):
    """Is an arm no worse than another by two points on the lengths of training, with its own passes? None before both are complete."""
    x, y = when_report.cube(df, arm), when_report.cube(df, rival)
    if x is None or y is None:
        return None
    at = when_report.kinds(df, arm)["trained"]
    own = lambda c, name: c[:, when_report.passes_of(when_report.whole(df, name)[0]), at].mean(1)  # noqa: E731
    return stats.paired(own(x, arm), own(y, rival)).low > -compare.SAME


def dial(df):
    if not len(df) or not all(when_report.whole(df, arm) for arm in when_report.arms("dial", df.record.iloc[0]["profile"])):
        return SimpleNamespace(done=False, nats=PENDING)
    lang = when_report.language(df)
    last = len(lang.groups) - 1
    ways, dose = when_report.recovered(df, last), lang.groups[last]
    best = {way: cheapest(points) for way, points in ways.items()}
    cost = lambda way: f"{best[way][1] / ways['passes'][0][1]:.1f}"  # noqa: E731
    none = max(abs(p[2]) for g in range(last + 1) for p in when_report.recovered(df, g)["passes"]) < 0.005
    starts = best["samples"][0].split()[0]
    return SimpleNamespace(
        done=True, nats=f"{dose:.2f}", none=none, passes=share(best["passes"][2] / dose), samples=share(best["samples"][2] / dose),
        samples_cost=cost("samples"), starts=starts, enough=starts == str(lang.symbols), filling=share(best["filling"][2] / dose),
        filling_cost=cost("filling"), filling_with=best["filling"][0], symbols=lang.symbols,
    )  # fmt: skip


def cheapest(points):
    """Of [(arm, FLOPs, mean, low, high)] the cheapest whose interval meets that of the best."""
    best = max(points, key=lambda p: p[2])
    return min((p for p in points if p[4] >= best[3]), key=lambda p: p[1])


def language(store, df):
    found = {where: when_report.language_coordination(store, df, where) if len(df) else {} for where in ("neighbours", "distant")}
    of = {
        (way, where): next((p for p in found[where].get(way, ()) if p[0] == arm), None)
        for way, arm in when_report.READ.items()
        for where in found
    }
    done = all(of.values())
    apart = done and all(max(-p[3], p[4]) < stats.MARGIN for (_, where), p in of.items() if where == "distant")
    return SimpleNamespace(
        **{f"{way}_{where}": when_report.nats(p) if p else PENDING for (way, where), p in of.items()}, done=done, starts=when_report.READ["samples"].split()[0],
        local=apart and of["filling", "neighbours"][3] > stats.MARGIN,
    )  # fmt: skip
