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
    "95 % interval",
    "step 13,750",
    "step 20,000",
)


def prose(template):
    """What is typed: the template without its expressions, statements and picture paths."""
    return re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\]\(.*?\)", "", template, flags=re.DOTALL)


def test_no_number_is_typed():
    text = prose(TEMPLATE)
    for constant in DECLARED:
        assert text.count(constant) == 1, constant
        text = text.replace(constant, "")
    text = text.replace("WikiText-103", "")
    assert re.findall(r".*\d.*", text) == []


def test_without_records_everything_measured_is_pending_or_open(tmp_path):
    text = article.fill(TEMPLATE, article.values(Store(tmp_path / "results", tmp_path / "cache")))
    assert re.findall(r"\d+ %? ?\[", text) == []  # no interval
    assert text.count("still **open**") >= 12 and article.PENDING in text
    assert not [
        claim
        for claim in ("no gain to explain", "training time, not thinking time", "they pay almost", "none, at any dose")
        if claim in text
    ]
    assert "{{" not in text and "{%" not in text


def test_the_article_has_its_length_and_shows_figures_that_exist():
    text = article.fill(TEMPLATE, article.values(Store()))
    assert 2000 <= len(text.split()) <= 3000
    shown = re.findall(r"\]\(\.\./figures/(\w+)\.png\)", text)
    assert len(shown) == len(set(shown)) >= 8 and not [s for s in shown if not (ROOT / "figures" / f"{s}.png").exists()]


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


def test_what_was_measured_is_said_once():
    c = SimpleNamespace(claimed="–", unit="points", short="x")
    f = article.claims.Finding("inconclusive", "+1.0 points [−5.0, +7.0]; profile cpu", 0.01, (-0.05, 0.07), 5)
    assert (article.claim(c, f).measured, article.claim(c, f).why) == ("+1.0 points [−5.0, +7.0]", "profile cpu")
