"""The site in a real browser (`make test-browser`): quiet, offline, readable on a phone, light and dark."""

import os
from pathlib import Path

import pytest
from browser import Browser

from trmlib.experiments.masked_evaluations import SENTENCES

ROOT = Path(__file__).parents[1]
SITE = Path(os.environ.get("TRM_SITE") or ROOT / "dist" / "site")
PAGES = sorted(p.name for p in SITE.glob("*.html"))
SHOTS = SITE.parent / "screenshots"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    SHOTS.mkdir(exist_ok=True)
    yield browser
    browser.close()


@pytest.fixture
def page(browser):
    """Open a page at a width, in a scheme; nothing may be wrong with it."""

    def open(name, width=1280, scheme="light"):
        browser.size(width, 900)
        browser.prefer(scheme)
        browser.open(f"{SITE.as_uri()}/{name}")
        assert browser.problems == []
        assert [u for u in browser.requests if not u.startswith(("file:", "data:"))] == []
        return browser

    return open


def test_there_is_a_site():
    assert {"index.html", "article.html", "figures.html", "02_masked.html"} <= set(PAGES), f"no site in {SITE}: run `make site`"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_offline_and_fits_a_phone(page, name):
    browser = page(name)
    browser.screenshot(SHOTS / f"{name[:-5]}.png")
    assert browser.js("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)") == []
    assert browser.js("document.querySelectorAll('h1').length") == 1
    browser = page(name, width=390)
    browser.screenshot(SHOTS / f"{name[:-5]}-phone.png")
    assert browser.js("document.documentElement.scrollWidth") <= 390
    assert browser.js("parseFloat(getComputedStyle(document.querySelector('main')).fontSize)") >= 16
    wide = "[...document.querySelectorAll('main p, main li, main h1, main img')].filter(e => !e.closest('.scroll, pre') && e.getBoundingClientRect().right > 390)"
    assert browser.js(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []


def test_dark_by_the_readers_setting_and_by_the_button(page):
    light, dark = (page("index.html", scheme=scheme).js(BACKGROUND) for scheme in ("light", "dark"))
    assert light == "rgb(255, 255, 255)" and dark == "rgb(23, 24, 26)"
    browser = page("index.html")
    press = "document.querySelector('header button').click()"
    browser.js(press)
    assert browser.js(BACKGROUND) == dark
    browser.screenshot(SHOTS / "index-dark.png")
    assert page("article.html").js(BACKGROUND) == dark  # the choice goes along
    browser.screenshot(SHOTS / "article-dark.png")
    browser.js(press)
    assert browser.js(BACKGROUND) == light
    assert page("index.html", scheme="dark").js(BACKGROUND) == light  # and stands above the setting
    browser.js("localStorage.clear()")


def test_a_figure_leads_to_the_cell_that_made_it(page):
    browser = page("figures.html")
    ways = browser.js("[...document.querySelectorAll('figcaption a')].filter(a => a.hash).map(a => a.getAttribute('href'))")
    assert len(ways) == browser.js("document.querySelectorAll('figure').length") > 20
    browser = page("02_masked.html#masked_curves")
    assert browser.js("document.querySelector(':target details').open") is True
    assert '"masked_curves"' in browser.js("document.querySelector(':target').textContent")
    assert 0 <= browser.js("document.querySelector(':target').getBoundingClientRect().top") < 900
    browser.screenshot(SHOTS / "cell.png")


def test_the_first_page_and_the_ledger_are_read_without_sideways_scroll_on_a_phone(page):
    browser = page("index.html", width=390)
    assert browser.js("document.documentElement.scrollHeight") < 7000
    assert browser.js("document.querySelector('figure').getBoundingClientRect().top") < 900  # the headline figure is on the first screen
    sideways = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert browser.js(sideways) == 0
    browser = page("claims.html", width=390)
    assert browser.js(sideways) == 0
    label = "getComputedStyle(document.querySelector('td[data-label=verdict]'), '::before').content"
    assert browser.js(label) == 'attr(data-label) ": "' or "verdict" in browser.js(label)
    hidden = "[...document.querySelectorAll('td')].filter(e => e.getBoundingClientRect().right > 390).length"
    assert browser.js(hidden) == 0
    assert page("claims.html").js(label) == "none"  # a table where there is room


def test_every_explorer_steps_without_a_kernel(page):
    browser = page("08_explorers.html", width=390)
    shown = "[...document.querySelectorAll('input[type=range]')].map(i => [...i.parentNode.querySelectorAll('img')].filter(e => e.offsetWidth).map(e => [e.alt, e.offsetWidth <= 390]))"
    before = browser.js(shown)
    assert len(before) == 6 and all(len(pictures) == 1 for pictures in before)
    opening = [pictures[0][0] for pictures in before]
    assert opening[0] == f"{SENTENCES[-1]}: at first"  # words, not <UNK>
    assert opening[1].startswith("chosen among the solved: pass 1 of ") and opening[2].startswith("not solved: pass 1 of ")
    assert opening[3].endswith(" of 4 starts solved")
    browser.js("document.querySelectorAll('input[type=range]').forEach(i => { i.value = 1; i.dispatchEvent(new Event('input')) })")
    after = browser.js(shown)
    assert all(len(b) == 1 and a != b and b[0][1] for a, b in zip(before, after, strict=True))
    browser.screenshot(SHOTS / "08_explorers-stepped.png")
    assert "VBox" not in browser.js("document.body.textContent")
