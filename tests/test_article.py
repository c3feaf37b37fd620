"""The article: nothing measured is typed, what is missing says so, and the page shows every figure with its words."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from trmlib import article
from trmlib.errors import TrmError
from trmlib.experiments import EXPERIMENTS as ALL
from trmlib.runs import Store

EXPERIMENTS = ALL
ROOT = Path(__file__).parents[1]
TEMPLATE = (ROOT / "article" / "template.md").read_text()
DECLARED = (  # names, and constants of the published or our own set-up: not measured
    "95 % intervals",
    "WikiText-103",
    "Four write-ups",
    "a few million parameters",
    "Two characters of",
    "Two masked words",
    "three passes in place of one",
    "Two blanks, and a stopping rule",
    "Hide two words",
    "guesses together in three passes",
    "Three passes against a single one",
    "worth a standard model of two to three times its parameters",
    "Two languages with nothing to hide",
    "Two blanks, each on its own",
    "the perplexity of two blanks",
    "names four tokens at once",
    "trained on the same four",
    "far beyond seven million parameters",
)
QUANTITY = re.compile(  # a digit, or a number written as a word; "one" and ordinals up to the second are everywhere
    r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    r"|hundred|thousand|million|half|halves|twice|thrice|double|doubled|triple|third|quarter|dozen)s?\b",
    re.IGNORECASE,
)


def prose(template):
    """What is typed: the template without its expressions, statements and picture paths."""
    return re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\]\(.*?\)", "", template, flags=re.DOTALL)


def typed(text):
    """The lines of a text that hold a quantity."""
    return [line for line in text.splitlines() if QUANTITY.search(line)]


def test_no_number_is_typed():
    text = prose(TEMPLATE)
    for constant in DECLARED:
        assert constant in text, constant
        text = text.replace(constant, "")
    assert typed(text) == []


@pytest.mark.parametrize("line", ["at half the cost", "Twice as many", "sixteen of them", "3 of them", "a thousand times its size"])
def test_a_quantity_in_words_is_found(line):
    assert typed(line) == [line]


def test_without_records_everything_measured_is_pending_or_open(tmp_path):
    text = article.fill(TEMPLATE, article.values(Store(tmp_path / "results", tmp_path / "cache")))
    assert re.findall(r"\d+ %? ?\[", text) == []  # no interval
    assert text.count("still [**open**](") >= 10 and "(pending)" not in text
    said = ("no gain to explain", "training time, not thinking time", "**: thinking time", "none, at any dose", "have it:", "had learnt to copy", "It can help",
            "stopping rule. What", "in series", "We read this so", "Let every pass")  # fmt: skip
    assert [words for words in said if words in text] == []
    assert text.count("not recorded yet") + text.count("not complete") >= 5
    assert "{{" not in text and "{%" not in text


def test_the_article_has_its_length_and_shows_figures_that_exist():
    text = article.fill(TEMPLATE, article.values(Store()))
    assert 2000 <= len(text.split()) <= 3000
    shown = re.findall(r"\]\(\.\./figures/(\w+)\.png\)", text)
    assert len(shown) == len(set(shown)) >= 8 and not [s for s in shown if not (ROOT / "figures" / f"{s}.png").exists()]


def everything():
    """Values as they will be when all runs are recorded; where the text depends on what they show, the longer way."""
    values, effect = article.values(Store()), "+10.0 % [+5.0, +15.0]"
    for c in values["claims"].values():
        c.open, c.against, c.measured = False, c.link.count("05_sudoku") > 0, effect
    more = {
        "shakespeare": {"done": True, "artefact": True, "unlearnt": True, "parallel": "26", "other_start": "71", "unsettled": True, "one_refinement": effect, "tables": SimpleNamespace(best="54.5", end="277", then="16.0", one="9.8", steps="4,000", first=True)},
        "masked": {"seeds": 5, "planned": 10, "artefact": True, "at_claim": True, "stopping": True, "steady": True, "needs_no_partner": True, "buys": True,
                   "time": effect, "change": effect, "plain_depth": effect, "one_pass": effect, "single_pass": effect, "passes_hurt": True, "by_rule": "−24 % to +21 %", "matched": effect, "self_only": effect, "restored": effect, "restored_baseline": effect},
        "autoregressive": {"done": True, "compared": True, "cut": False, "at_compute": True, "change": effect, "compute": effect, "time": effect, "equal_steps": effect},
        "capacity": {"done": True, "at": "1.1 [0.9, 1.2]", "leaking": 25, "sooner": True, "larger": True, "compared": True, "size": "93,460 parameters",
                     "whole": "619", "recursion": effect, "flat": "630", "first": "252", "first_standard": "202", "first_causal": "301"},
        "sudoku": {"done": True, "cut": True, "longer": True, "still": False, "gain": effect, "longer_steps": 256, "asked": 250, "soon": 16, "little": effect, "little_gains": True, "equal": effect, "harder_gains": True, "harder": effect, "most_starts": 64, "puzzles": 32, "retry": effect,
                   "single": SimpleNamespace(first="48 %", last="75 %", steps=8, gain=effect, pays=True, lost=effect)},
        "language": {"done": True, "local": True} | {f"{way}_{where}": "0.36 [0.35, 0.37]" for way in article.when_report.READ for where in ("neighbours", "distant")},
    }  # fmt: skip
    for name, fields in more.items():
        vars(values[name]).update(fields)
    arm = lambda name: SimpleNamespace(  # noqa: E731
        done=True, mastered=True, at_guess=True, passes=8, tested=32, parameters=57_280, trained="99 %", between="99 %", beyond="1 %", most="94 %", gain=effect,
        gains=not name.endswith(("blind", "random")) and not name.startswith("2"), less=True, ends_less=True, reaches=True, guesses=True,
    )  # fmt: skip
    hops = {
        "arm": arm,
        "able": 13,
        "learnt": 10,
        "learnt_gain": 9,
        "detached": True,
        "asked": True,
        "as_good": True,
        "saves": "7.1",
        "step": True,
        "opened": "97 %",
        "solved": "70 %",
    }
    vars(values["hops"]).update(hops)
    vars(values["dial"]).update(
        dict.fromkeys(("samples", "filling", "passes", "samples_cost", "filling_cost", "starts", "symbols"), "99 %")
        | {"done": True, "none": True, "enough": True, "filling_with": "parallel", "nats": "2.77"}
    )
    return values


def test_it_keeps_its_length_when_everything_is_recorded():
    text = re.sub("```.*?```\n\n", "", article.fill(TEMPLATE, everything()).replace(article.PENDING, "12.3"), flags=re.DOTALL)
    assert len(text.split()) <= 3000 and not re.search(r"\bstill \[|not recorded|not complete|\bNone\b", text)
    assert not re.search(r"[a-z]\.[A-Z]|  |\n\n\n", text)  # a condition has eaten a space or left an empty paragraph


def test_a_wrong_template_gets_one_line():
    assert article.fill("a {{ x }} b\n", {"x": 3}) == "a 3 b\n"
    with pytest.raises(TrmError, match="^the template names what no record gives: 'y' is undefined$"):
        article.fill("{{ x }} {{ y }}", {"x": 1})
    with pytest.raises(TrmError, match="^the template, line 2: "):
        article.fill("a\n{% if %}", {})


def test_numbers_read_as_words_and_shares():
    assert [article.share(v) for v in (0.954, None, float("nan"))] == ["95 %", article.PENDING, article.PENDING]
    assert [article.perplexity(v) for v in (1.0123, 83.4, None)] == ["1.01", "83", article.PENDING]


def test_the_page_shows_a_figure_with_its_caption_and_alt_text():
    text = article.page("# A *title*\n\nSome words.\n\n![short](../figures/masked_arms.png)\n", ROOT / "figures")
    about = article.known(ROOT / "figures")["masked_arms"]
    assert '<img src="../figures/masked_arms.png" alt="' in text and article.html.escape(about["caption"], False) in text
    assert "<p><figure>" not in text and "<title>A *title*</title>" in text
    with pytest.raises(TrmError, match="unknown figure"):
        article.page("![x](../figures/nothing.png)", ROOT / "figures")


def test_a_claim_is_said_with_a_link_to_what_shows_it():
    c = SimpleNamespace(claimed="–", unit="points", short="x", shown={"notebook": "05_sudoku", "heading": "Think longer"})
    f = article.claims.Finding("inconclusive", "reads “not reproduced”, but …", 0.01, (-0.05, 0.07), 5)
    told = article.claim(c, f)
    assert (told.measured, told.against, told.open) == ("+1.0 points [−5.0, +7.0]", True, False)
    assert told.link == "[**inconclusive**](../notebooks/05_sudoku.ipynb#Think-longer)"
