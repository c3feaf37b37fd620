"""The site of two small notebooks, and the results as CSV."""

import csv
import html
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from trmlib import figures, plots, results, site, stats
from trmlib.claims import GROUPS, load
from trmlib.errors import TrmError
from trmlib.experiments import EXPERIMENTS, masked_report, module
from trmlib.experiments.sudoku_evaluations import packed
from trmlib.pairs import choose, read_source
from trmlib.runs import Store

ROOT = Path(__file__).parents[1]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ARTICLE = "# The article\n\nIt says *so*.\n\n![](../figures/one.png)\n\n$$\nx^2\n$$\n\n## End\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Figures, sources and executed notebooks of two small chapters."""
    folder = tmp_path_factory.mktemp("report")
    plots.style()
    for name, chapter in (("one", "01_first"), ("two", "02_second"), ("masked_curves", "02_second")):
        fig, ax = plt.subplots()
        ax.plot([0, 1])
        plots.save(fig, name, folder / "figures", f"Caption of {name} (5 seeds)", f"Alt of {name}", "0123", chapter)
        plt.close(fig)
    (folder / "figures" / "two.csv").write_text("a\n1\n")
    shown = new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    framed = (
        '<div><style scoped>x</style><table border="1" class="dataframe"><tr><td>7 &lt; 8</td></tr></table><script>bad()</script></div>'
    )
    first = [
        new_markdown_cell("# 01 · First\n\nIs it so?\n\n## What is seen\n\nSee [it](../README.md) or <b>not</b>.\n\n### Finer"),
        new_code_cell('figures = "/home/me/figures"', metadata={"tags": ["injected-parameters"]}),
        new_code_cell("def save(fig, name):\n    plots.save(fig, name)"),
        new_code_cell('save(\n    fig,\n    "one",\n)  # a < b', outputs=[shown]),
        new_code_cell("x", outputs=[
            new_output("stream", name="stdout", text="3 < 4"), new_output("display_data", {"text/markdown": "## said **so**", "text/plain": "M"}),
            new_output("display_data", {"text/html": framed, "text/plain": "T"}), new_output("execute_result", {"text/plain": "'<plain>'"}),
            new_output("execute_result", {"text/plain": "VBox()", site.WIDGET: {"model_id": "1"}}),
        ]),
    ]  # fmt: skip
    second = [
        new_markdown_cell("# 02 · Second\n\n[back](01_first.ipynb#What-is-seen), [away](09_other.ipynb#Here)"),
        new_code_cell('plots.table(fig)\nsave_table(df, "two", figures)'),
        new_code_cell('save(fig, "masked_curves")'),
    ]
    (folder / "build").mkdir()
    (folder / "notebooks").mkdir()
    for stem, cells in (("01_first", first), ("02_second", second)):
        nbformat.write(new_notebook(cells=cells), folder / "build" / f"{stem}.ipynb")
        (folder / "notebooks" / f"{stem}.py").touch()
    (folder / "article.md").write_text(ARTICLE)
    return folder


def build(places, out, store):
    site.make(store, places / "article.md", places / "figures", places / "build", choose(places / "notebooks"), out)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pages(places, tmp_path_factory):
    files = build(places, tmp_path_factory.mktemp("dist") / "site", Store(places / "results"))
    return {name: data.decode() if name.endswith((".html", ".css", ".md", ".csv", ".js")) else data for name, data in files.items()}


def test_every_link_and_picture_is_there_and_nothing_is_fetched(pages):
    ids = {name: re.findall(r'\bid="([^"]*)"', text) for name, text in pages.items() if name.endswith(".html")}
    assert len(ids) == 10 and all(len(found) == len(set(found)) for found in ids.values())
    for name in ids:
        for attribute, url in re.findall(r'\b(href|src)="([^"]*)"', pages[name]):
            if url.startswith("http"):
                assert attribute == "href" and "<a " in pages[name]  # a link that a reader may follow, no part of the page
                continue
            if url.startswith("data:,"):
                continue
            path, _, anchor = url.partition("#")
            assert (path or name) in pages, (name, url)
            assert not anchor or unquote(anchor) in ids[path or name], (name, url)
        assert re.findall(r"<(?:link|script|img|iframe)[^>]*https?:", pages[name]) == []
    assert not re.search(r"https?:|@import|url\(", pages["style.css"]) and "http" not in pages["site.js"]


def test_a_heading_with_an_apostrophe_and_a_point_is_found(places):
    small = site.Site(places / "headings", places / "figures", [places / "build" / f"{stem}.ipynb" for stem in ("01_first", "02_second")])
    heading, link = small.markdown("### The model's 55.08"), small.markdown("[so](01_first.ipynb#The-model's-55.08)")
    assert 'id="the-model-s-55-08"' in heading and 'href="01_first.html#the-model-s-55-08"' in link


def test_a_figure_leads_to_the_cell_that_saves_it(pages):
    for page in ("article.html", "figures.html"):
        assert '<a href="01_first.html#one">the cell that made it</a>' in pages[page]
    cell = re.search(r'<section id="one">.*?</section>', pages["01_first.html"], re.DOTALL)[0]
    assert '"one"' in cell and '<img src="img/01_first-1.png" alt="Alt of one"' in cell
    assert '<a href="02_second.html#two">' in pages["figures.html"] and '<section id="two">' in pages["02_second.html"]
    assert '<a href="figures/two.csv">CSV</a>' in pages["figures.html"] and "one.csv" not in pages["figures.html"]


def test_a_notebook_page_says_what_the_notebook_says(pages):
    text = pages["01_first.html"]
    assert '<h1 id="01-first">01 · First</h1>' in text and '<a href="#what-is-seen">What is seen</a>' in text and "#finer" not in text
    assert "See it or &lt;b&gt;not&lt;/b&gt;." in text
    assert "<pre>3 &lt; 4</pre>" in text and "<h3>said <strong>so</strong></h3>" in text and "<pre>'&lt;plain&gt;'</pre>" in text
    assert '<table class="dataframe"><tr><td>7 &lt; 8</td></tr></table>' in text and "bad()" not in text and "<style" not in text
    assert "VBox" not in text and text.count("The controls that stand here need JupyterLab") == 1
    assert "/home/me" not in text and text.count("<details><summary>code") == 3  # the injected cell knows only this machine


def test_the_article_has_its_equation_figure_and_table(pages):
    text = pages["article.html"]
    assert '<figure class="equation"><img src="img/equation-1.png" alt="x^2"></figure>' in text
    assert "Caption of one (5 seeds)" in text and '<div class="scroll"><table>' in text and "<p><figure" not in text
    assert '<a href="article.html" aria-current=page>Article</a>' in text


def test_links_to_a_heading_of_a_notebook_lead_to_its_page(pages):
    assert '<a href="01_first.html#what-is-seen">back</a>, away' in pages["02_second.html"]


def test_claims_are_a_page_with_every_statement(pages):
    text = pages["claims.html"]
    assert text.count("<tr>") == len(load()[1]) + len(GROUPS) and ".ipynb" not in text
    assert re.findall(r'<li><a href="#(\w+)', text) == re.findall(r'<h2 id="(\w+)', text) and text.count("<h2") == len(GROUPS)


def test_a_row_that_stacks_on_a_phone_names_each_cell(pages):
    text = pages["claims.html"]
    columns = re.findall(r"<th>(.*?)</th>", text.partition("</thead>")[0])
    assert columns[0] == "claim" and {"verdict", "claimed", "measured", "source"} < set(columns)
    assert re.findall(r'<td data-label="([^"]*)"', text) == columns * len(load()[1]) and "<td>" not in text
    assert '<div class="scroll stack">' in text and "stack" not in pages["article.html"] and "attr(data-label)" in pages["style.css"]


def test_the_first_page_answers_before_it_lists(pages):
    text = pages["index.html"]
    order = [
        "<h1 id=",
        "are said to do",
        'href="article.html">The article',
        'src="figures/masked_curves.png"',
        "<th>verdict</th>",
        '<h2 id="chapters">',
    ]
    assert (at := [text.index(part) for part in order]) == sorted(at) and text.count("<h1") == text.count("<figure") == 1
    assert re.findall(r'<li><a href="(\d\d_\w+\.html)">([^<]*)', text) == [
        ("01_first.html", "01 · First"),
        ("02_second.html", "02 · Second"),
    ]
    headlines = [c.short for c in load()[1] if c.headline]
    assert re.findall(r"<tr>\n  <td>(.*?)</td>", text) == [html.escape(short, False) for short in headlines]
    assert text.count("<strong>open</strong>") > 0 and "verdicts --" not in text and "Two commands" not in text
    for page in ("claims", "figures", "verdicts", "corrections", "data"):
        assert f'<a href="{page}.html">' in text.partition("<main>")[2]
    assert '<a href="claims.html"><code>data/claims.yaml</code></a>' in text and "08_explorers" not in text


def test_figures_stand_by_chapter_in_the_order_of_the_cells(pages):
    text = pages["figures.html"]
    assert re.findall(r'<figure id="(\w+)"', text) == ["one", "two", "masked_curves"]
    listed = text.partition("<ul>")[2].partition("</ul>")[0]
    assert re.findall(r'href="#(\w+)">([^<]*)', listed) == [
        ("01_first", "01 · First"), ("one", "one"), ("02_second", "02 · Second"), ("two", "two"), ("masked_curves", "curves"),
    ]  # fmt: skip


def test_a_figure_without_records_says_that_it_waits(pages, places):
    assert "waits" not in pages["figures.html"]
    executed = [places / "build" / f"{stem}.ipynb" for stem in ("01_first", "02_second")]
    small = site.Site(places / "waiting", places / "figures", executed)
    small.notes["two"] = small.notes["two"] | {"caption": "Caption (no records yet)"}
    assert '<a href="#two">two</a> (waits for its runs)' in site.gallery(small, {"01_first": "1", "02_second": "2"})


def test_prose_that_names_a_page_as_code_leads_there(places):
    small = site.Site(places / "prose", places / "figures", [places / "build" / "01_first.ipynb", places / "build" / "02_second.ipynb"])
    said = small.markdown("`notebooks/01_first.py`, `02_second`, `trm claims`, `trm list`, `CORRECTIONS.md`")
    assert said == (
        '<p><a href="01_first.html"><code>notebooks/01_first.py</code></a>, <a href="02_second.html"><code>02_second</code></a>, '
        '<a href="claims.html"><code>trm claims</code></a>, <code>trm list</code>, <a href="corrections.html"><code>CORRECTIONS.md</code></a></p>\n'
    )


def test_verdicts_list_every_comparison_that_was_fixed_beforehand(pages):
    text = pages["verdicts.html"]
    for arm, rival, what in masked_report.PRIMARY:
        assert f"<td>{arm} vs {rival}</td>" in text and f"<td>{what}</td>" in text
    assert text.count("<td>pending</td>") == sum(len(t) for _, _, t in site.primaries(Store("nowhere"))) >= len(masked_report.PRIMARY)
    assert "The comparisons that were fixed beforehand" in text


def test_corrections_and_notices_are_pages(pages):
    assert "How to report" in pages["corrections.html"] and "Chapter 05: start budgets" in pages["corrections.html"]
    assert all(word in pages["notices.html"] for word in ("CC BY-SA 3.0", "WikiText", "public domain"))


def test_twice_the_same_bytes(places, pages, tmp_path):
    again = build(places, tmp_path / "site", Store(places / "results"))
    assert {k: v.encode() if isinstance(v, str) else v for k, v in pages.items()} == again


def test_what_is_missing_is_one_line(places, tmp_path):
    with pytest.raises(TrmError, match="^no 03_third.ipynb: run `make reproduce`$"):
        site.make(None, places / "article.md", places / "figures", places / "build", [Path("03_third.py")], tmp_path)
    for p in (places / "figures").glob("two.*"):
        (tmp_path / p.name).write_bytes(p.read_bytes())
    with pytest.raises(TrmError, match="no executed notebook has the cell that saves two;"):
        site.Site(tmp_path / "out", tmp_path, [places / "build" / "01_first.ipynb"])


def test_each_committed_figure_is_saved_by_one_cell_of_its_notebook():
    saved = [(name, py.stem) for py in choose(ROOT / "notebooks") for c in read_source(py).cells if c.cell_type == "code" for name in figures.saved_by(c.source)]  # fmt: skip
    assert len(saved) == len(dict(saved)) > 40
    for name, about in figures.known(ROOT / "figures").items():
        assert dict(saved)[name] == about["notebook"]


# ---------------------------------------------------------------- results as CSV


def record(arm, seed, **metrics):
    return {"experiment": "masked", "arm": arm, "seed": seed, "profile": "full", "hash": f"{arm}{seed}", "status": "recorded", "reason": "",
            "device": {"kind": "cpu"}, "precision": "fp32", "data": {"name": "wikitext-2"}, "steps": 500, "parameters": 10, "train_flops": 10**15,
            "inference_flops": 10**6, "serial_depth": 2, "seconds": 60.5, "versions": {"torch": "2.13"}, "commit": "abc", "digest": "0123",
            "metrics": metrics, "curve": {"step": [250, 500], "nll": [5.0, 4.5], "halting_steps": [None, 2.5]},
            "detail": {"groups": [1, 4], "accuracy": [[0.1, 0.2], [0.3, None]], "by_pass": {"nll_b": [5.0, 4.5]}, "by_puzzle": {"first": [1]}}}  # fmt: skip


class Records:
    def __init__(self, *rows, found=()):
        self.rows, self.found = rows, found

    def records(self):
        return dict(enumerate(self.rows))

    def evaluations(self, experiment, name):
        return [{"experiment": "masked", **e} for e in self.found]


def test_a_row_a_run_and_a_row_a_point(tmp_path):
    text = results.write(Records(record("joint", 1, nll_b=4.5), record("baseline", 0, nll_b=4.6, accuracy_known_a=0.25)), tmp_path)
    runs = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert [(r["arm"], r["seed"], r["nll_b"], r["accuracy_known_a"]) for r in runs] == [
        ("baseline", "0", "4.6", "0.25"),
        ("joint", "1", "4.5", ""),
    ]
    assert (runs[0]["train_flops"], runs[0]["seconds"], runs[0]["device"], runs[0]["data"]) == (
        "1000000000000000",
        "60.5",
        "cpu",
        "wikitext-2",
    )
    curves = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [(c["measure"], c["step"], c["value"]) for c in curves if c["arm"] == "joint"] == [
        ("halting_steps", "250", ""), ("halting_steps", "500", "2.5"), ("nll", "250", "5.0"), ("nll", "500", "4.5"),
    ]  # fmt: skip
    assert "| `nll_b` | negative log-likelihood" in text and "; part B, which figures show |" in text
    described = set(re.findall(r"^\| `(\w+)` \|", text[: text.index("## Names and keys")], re.MULTILINE))
    assert {*runs[0], *curves[0], "name", "keys", *(c["measure"] for c in curves)} == described


def test_a_row_a_number_of_details_and_evaluations(tmp_path):
    found = [
        {"name": "leak_probe", "runs": [1], "result": {"masked": [[0.0, 0.5], [0.25, 1.0]]}},
        {"name": "adaptive", "runs": [0, 1], "result": {"first": 1, "share": [0.0, 0.5], "nll_b": {"head": [[3.0, 2.0]]}, "flops": {"head": [7, 9]}}},
        {"name": "examples", "runs": [0], "result": {"a _": "b"}},
        {"name": "leak_probe", "runs": ["of a run that is not here"], "result": {}},
    ]  # fmt: skip
    text = results.write(Records(record("joint", 1), record("baseline", 0), found=found), tmp_path)
    read = lambda name: [tuple(r[k] for k in ("arm", "seed", "name", "keys", "value")) for r in csv.DictReader((tmp_path / name).open())]  # noqa: E731
    assert [r for r in read("details.csv") if r[0] == "joint"] == [
        ("joint", "1", "accuracy", "0/1", "0.1"), ("joint", "1", "accuracy", "0/4", "0.2"), ("joint", "1", "accuracy", "1/1", "0.3"),
        ("joint", "1", "by_pass", "nll_b/0", "5.0"), ("joint", "1", "by_pass", "nll_b/1", "4.5"),
    ]  # fmt: skip
    assert read("evaluations.csv") == [
        ("baseline", "0", "leak_probe", "masked/1/1", "0.0"), ("baseline", "0", "leak_probe", "masked/1/2", "0.5"),
        ("baseline", "0", "leak_probe", "masked/2/1", "0.25"), ("baseline", "0", "leak_probe", "masked/2/2", "1.0"),
        ("joint", "1 0", "adaptive", "first", "1.0"), ("joint", "1 0", "adaptive", "nll_b/head/0/0.0", "3.0"),
        ("joint", "1 0", "adaptive", "nll_b/head/0/0.5", "2.0"), ("joint", "1 0", "adaptive", "flops/head/0.0", "7.0"),
        ("joint", "1 0", "adaptive", "flops/head/0.5", "9.0"),
    ]  # fmt: skip
    assert "`by_puzzle`" in text and "| `leak_probe` | prediction from 1, target from 1 |" in text
    with pytest.raises(TrmError, match="nothing says what 'magic' holds"):
        results.write(Records(record("joint", 0), found=[{"name": "magic", "runs": [0], "result": {"a": 1}}]), tmp_path)


def test_outcomes_of_single_puzzles_become_shares():
    right = packed(torch.tensor([[1, 0, 1], [1, 1, 1]]))  # after 1 and 2 steps, of three puzzles
    of = lambda name, result: results.shares({"experiment": "sudoku", "name": name, "result": result})  # noqa: E731
    found = of(
        "longer",
        {"steps": [1, 2], "puzzles": 3, "right": right, "far": {"steps": [4], "puzzles": 2, "right": packed(torch.tensor([[0, 1]]))}},
    )
    assert found["right"] == pytest.approx([2 / 3, 1]) and found["far"]["right"] == [0.5]
    (group,) = of("harder", {"steps": [1, 2], "groups": [{"givens": [17, 30], "puzzles": 3, "right": right}]})["groups"]
    assert group["right"] == pytest.approx([2 / 3, 1]) and (group["fewest givens"], group["most givens"]) == (17, 30)
    tried = [[right, packed(torch.tensor([[1, 1, 0]]))], [packed(torch.tensor([[0, 0, 1]])), None]]  # 2 starts after 1 step, 1 after 2
    found = of("budget", {"steps": [1, 2], "starts": [1, 2], "puzzles": 3, "any": tried})
    assert found["any"] == [[pytest.approx(5 / 6), pytest.approx(2 / 3)], [pytest.approx(1 / 3), None]]


def test_a_column_that_nobody_described_is_an_error(tmp_path):
    with pytest.raises(TrmError, match="nothing says what 'magic_b' holds"):
        results.write(Records(record("joint", 0, magic_b=1.0)), tmp_path)


def test_every_measure_that_the_experiments_write_is_described():
    """The names as they stand in the code, and those of the committed records."""
    known = ("nll", "accuracy", "nll_known", "accuracy_known", "nll_split", "nll_last", "nll_constant", "bits", "cells", "halting")
    for name in (
        *(f"{m}_{part}" for m in known for part in results.PARTS),
        "joint_b",
        "estimate",
        "estimate_sd",
        "noisy_nll",
        "train_loss",
    ):
        assert results.describe(name)
    records = Store(ROOT / "data" / "results").records().values()
    tables = {"runs.csv": results.runs(records), "curves.csv": results.curves(records), "details.csv": results.details(records),
              "evaluations.csv": results.evaluations(Store(ROOT / "data" / "results"))}  # fmt: skip
    assert len(tables["runs.csv"]) == len(records) > 0 and "`nll_known_b`" in results.dictionary(tables)
    for experiment in EXPERIMENTS:  # and what is evaluated, as it stands in the code
        offered = module(experiment).evaluations
        assert {*offered.SINGLE, *offered.GROUPED} <= {*results.NESTED, *results.LEFT_OUT}


def test_detectable_effects_come_from_the_records():
    """`primaries` shows what `compare` computes, where there are records."""
    found = {name: (about, table) for name, about, table in site.primaries(Store(ROOT / "data" / "results"))}
    about, table = found["masked"]
    first = table.iloc[0]
    assert first.comparison == "joint vs baseline" and first.seeds >= 5 and re.fullmatch(r"\d+\.\d%", first.detectable)
    assert "hops" not in found and len(found["sudoku"][1]) == 10
    assert about.startswith("full training, profile full")


def test_the_comparisons_of_all_chapters_are_also_corrected_together(monkeypatch):
    """0.02 stays below 5 % among two, not among four."""
    of = lambda *p: pd.DataFrame([{"arm": f"a{v}", "rival": "b", "effect": SimpleNamespace(p=v), "p_holm": q, "unlearnt": False}  # noqa: E731
                                  for v, q in zip(p, stats.holm(p), strict=True)])  # fmt: skip
    monkeypatch.setattr(site, "firsts", lambda *_: [("x", "", of(0.001, 0.9))])
    monkeypatch.setattr(site.when_report, "primary", lambda *_: of(0.02, 0.6))
    text = site.together(Store("nowhere"))
    assert "Its chapters have 4 (0 pending)" in text and text.endswith(
        "1 of the 2 that a chapter tells apart stay so; not so: *a0.02* against *b*."
    )
