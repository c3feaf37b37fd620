"""The Medium kit of a made-up article, and single figures."""

import csv
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trmlib import cli, figures, medium, plots
from trmlib.errors import TrmError

ROOT = Path(__file__).parents[1]
ARTICLE = r"""# Does it *help*?

Some **bold** words, $x_i^2 \le \alpha$, `code` & a [paper](https://example.org/a?b=1&c=2), and [a file](../README.md).

![ignored](../figures/two.png)

## The sum

$$
\log p(a, b) = \frac{1}{K}
$$

| arm | change |
| --- | ---: |
| **TRM** | −1 < 0 & so on |
| base | 0 |

- one
- two

```python
x = 1 < 2
```

> quoted

#### Deeper

![](../figures/one.png)

---
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two figures, the second of chapter 05 and without records; the first with a CSV beside it."""
    folder = tmp_path_factory.mktemp("figures")
    plots.style()
    for name, about, chapter in (("one", "profile full, 5 seeds", "05_sudoku"), ("two", "profile full, no records yet", "02_masked")):
        fig, ax = plt.subplots()
        ax.plot([0, 1])
        plots.save(fig, name, folder, f"Caption of {name} ({about})", f'Alt of "{name}"', "0123", chapter)
        plt.close(fig)
    (folder / "one.csv").write_text("a\n1\n")
    return folder


@pytest.fixture(scope="module")
def strip():
    """A 4×4 board that is solved at the second of three passes."""
    target = "1234341221434321"
    digits = ["1".ljust(15, "2") + "1", target, target]
    return {"solved": True, "puzzle": "1" + 14 * "." + "1", "target": target, "digits": digits, "confidence": [[0.5] * 16] * 3}


@pytest.fixture(scope="module")
def kit(drawn, strip, tmp_path_factory):
    out = tmp_path_factory.mktemp("kit")
    medium.kit(ARTICLE, out, drawn, (medium.board(strip, "TRM"), "A board <solved>", "Animation"))
    return out


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]


def test_the_html_is_plain_and_complete(kit):
    text = (kit / "article.html").read_text()
    body = text.partition("<body>")[2]
    found = Tags(body)
    assert set(found.tags) == set(medium.PLAIN) - {"ol"}
    assert {(tag, name) for tag, name, _ in found.attributes} == {("img", "src"), ("img", "alt"), ("a", "href")}
    assert [v for _, name, v in found.attributes if name == "href"] == ["https://example.org/a?b=1&c=2"]
    assert "<title>Does it help?</title>" in text and "<h1>Does it <em>help</em>?</h1>" in body and "<h3>Deeper</h3>" in body
    assert "<p>Some <strong>bold</strong> words, xᵢ² ≤ α, code &amp; a <a" in body and "and a file.</p>" in body
    assert "<pre>x = 1 &lt; 2</pre>" in body and "<p>quoted</p>" in body and "<ul>\n<li>one</li>\n<li>two</li>\n</ul>" in body
    assert "$" not in text and "style" not in text and "base64" not in text and "<p><figure" not in body


def test_pictures_are_numbered_in_order_and_1400_pixels_wide(kit):
    order = ["01-two.png", "02-equation.png", "03-table.png", "04-one.png", "05-solved-board.gif"]
    assert re.findall(r'<img src="([^"]*)"', (kit / "article.html").read_text()) == order
    assert sorted(p.name for p in kit.iterdir()) == sorted(
        [*order, "03-table.csv", "04-one.csv", "article.html", "captions.md", "checklist.md"]
    )
    assert {Image.open(kit / name).width for name in order[:4]} == {1400}
    assert list(csv.reader((kit / "03-table.csv").open())) == [["arm", "change"], ["TRM", "−1 < 0 & so on"], ["base", "0"]]


def test_captions_and_alt_texts_stand_in_the_same_order(kit, drawn):
    text = (kit / "captions.md").read_text()
    assert re.findall(r"^(\d+)\. `(\d\d)-", text, re.MULTILINE) == [(str(i), f"0{i}") for i in range(1, 6)]
    assert '1. `01-two.png`\n   - caption: Caption of two (profile full, no records yet)\n   - alt text: Alt of "two"\n' in text
    assert "   - caption: The sum\n   - alt text: Table of 2 rows with the columns arm, change.\n" in text
    assert r"   - caption: none" + "\n" + r"   - alt text: Equation: \log p(a, b) = \frac{1}{K}" in text
    body = (kit / "article.html").read_text()
    assert 'alt="Alt of &quot;two&quot;"' in body and "<figcaption>A board &lt;solved&gt;</figcaption>" in body


def test_the_checklist_names_what_is_missing(kit, drawn, tmp_path):
    text = (kit / "checklist.md").read_text()
    assert "the 5 pictures" in text and "the 1 code block(s)" in text and "the 2 table(s)" in text
    assert text.count("`01-two.png` is drawn without records") == 1 and "solved-board" not in text
    medium.kit("# T\n", tmp_path, drawn)
    assert "the solved-board GIF: no Sudoku" in (tmp_path / "checklist.md").read_text() and not list(tmp_path.glob("*.gif"))


def test_twice_the_same_bytes(kit, drawn, strip, tmp_path):
    medium.kit(ARTICLE, tmp_path, drawn, (medium.board(strip, "TRM"), "A board <solved>", "Animation"))
    assert {p.name: p.read_bytes() for p in kit.iterdir()} == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_the_gif_plays_the_passes_up_to_the_solution(kit):
    data = (kit / "05-solved-board.gif").read_bytes()
    with Image.open(BytesIO(data)) as gif:
        assert gif.n_frames == 3 and gif.width == 700  # the puzzle, a wrong pass, the solution: not the third pass
        first, last = (np.asarray(gif.convert("RGB"), int) for k in (0, 2) if gif.seek(k) is None)
        assert (first != last).any() and gif.info["loop"] == 0
    assert len(data) < medium.GIF_BYTES


def test_the_gif_says_that_it_is_chosen_among_the_solved_and_how_many_are(strip, monkeypatch):
    row = {"arm": "TRM", "accuracy_b": 0.75, "device": "cpu", "precision": "fp32"}
    df = pd.DataFrame([row | {"seed": 0}, row | {"seed": 1, "accuracy_b": 0.85}])
    monkeypatch.setattr(medium, "shown", lambda store, experiment, profile: (df, "cpu"))
    monkeypatch.setattr(medium.compare, "complete", lambda df, arm: True)
    strips = [strip | {"solved": False}]
    monkeypatch.setattr(medium.sudoku_report, "strips", lambda store, df, arm: strips)
    assert medium.solved_board(None) is None
    strips.append(strip)
    gif, caption, _ = medium.solved_board(None)
    assert gif == medium.board(strip, "TRM") and caption == (
        "A Sudoku, pass by pass, chosen among the solved: of all held-out puzzles the model solves 80.0%. Black digits are given, orange ones "
        "wrong, darker ground is more confident (cut training, profile cpu, 2 seeds, CPU, fp32)."
    )


def test_a_gif_that_medium_refuses_is_an_error(drawn, tmp_path):
    with pytest.raises(TrmError, match="has 3,000,000 bytes"):
        medium.kit("# T", tmp_path, drawn, (bytes(3_000_000), "", ""))


def test_inline_equations_become_unicode_or_an_error():
    assert medium.unicode(r"x_i^2 \le \alpha \cdot 10^{-3}") == "xᵢ² ≤ α · 10⁻³"
    assert medium.unicode(r"\lambda, \Omega, a - b, \log p") == "λ, Ω, a − b, log p"
    for latex, missing in ((r"\frac{a}{b}", r"\\frac"), ("x^{q}", r"\^q")):
        with pytest.raises(TrmError, match=rf"has no Unicode for {missing}; make it a display equation"):
            medium.unicode(latex)


def test_an_equation_that_cannot_be_drawn_or_would_not_fit(tmp_path):
    with pytest.raises(TrmError, match=r"cannot draw the equation '\\\\nonsense\{x\}': "):
        medium.equation(r"\nonsense{x}", tmp_path / "e.png")
    medium.equation(" + ".join(f"x_{{{i}}}" for i in range(60)), tmp_path / "e.png")
    ink = np.asarray(Image.open(tmp_path / "e.png").convert("L")) < 128
    assert ink.any() and not ink[:, :20].any() and not ink[:, -20:].any()


def test_unknown_figures_and_other_widths_are_one_line(drawn, tmp_path):
    with pytest.raises(TrmError, match="^unknown figure 'on'; there are, among 2: one, two$"):
        medium.kit("![](../figures/on.png)", tmp_path, drawn)
    (tmp_path / "f").mkdir()
    for p in drawn.glob("two.*"):
        (tmp_path / "f" / p.name).write_bytes(p.read_bytes())
    Image.new("RGB", (700, 400)).save(tmp_path / "f" / "two.png")
    with pytest.raises(TrmError, match="two.png is 700 pixels wide; 1400 were expected"):
        medium.kit("![](two.png)", tmp_path, tmp_path / "f")


def test_the_real_article_makes_a_kit(tmp_path):
    article = (ROOT / "article" / "article.md").read_text()
    items = medium.kit(article, tmp_path, ROOT / "figures")
    body = (tmp_path / "article.html").read_text().partition("<body>")[2]
    assert set(Tags(body).tags) <= set(medium.PLAIN) and all(p["alt"] for p in items)
    assert {Image.open(tmp_path / p["file"]).width for p in items} == {1400}
    shown = [p["file"][3:] for p in items if (ROOT / "figures" / p["file"][3:]).exists()]
    assert shown == re.findall(r"!\[[^]]*\]\(\.\./figures/([^)]*)\)", article) != []


# ---------------------------------------------------------------- single figures

NOTEBOOK = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
profile = "full"
figures = "../figures"

# %%
import matplotlib.pyplot as plt

from trmlib import plots

plots.style()
fig, ax = plt.subplots()
ax.plot([0, 1])
plots.save(fig, "one", figures, "Caption", "Alt", "0123", "05_sudoku")
"""


def test_committed_figures_are_copied_and_others_drawn_anew(drawn, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "05_sudoku.py").write_text(NOTEBOOK)
    places = {"figures": drawn, "notebooks": tmp_path / "notebooks", "build": tmp_path / "build"}
    paths = figures.export(["one", "two"], ["png", "svg"], 1400, tmp_path / "out", **places)
    assert [p.name for p in paths] == ["one.png", "one.svg", "two.png", "two.svg"] and not (tmp_path / "build").exists()
    assert all(p.read_bytes() == (drawn / p.name).read_bytes() for p in paths)

    paths = figures.export(["one"], ["png", "svg", "pdf"], 2040, tmp_path / "out", **places)
    files = {p.suffix: p.read_bytes() for p in paths}
    assert Image.open(BytesIO(files[".png"])).size == (2040, 2040 * 4 // 7) and files[".pdf"].startswith(b"%PDF-")
    assert files[".svg"] == (drawn / "one.svg").read_bytes()
    assert b"CreationDate" not in files[".pdf"] and b"05_sudoku, records 0123" in files[".pdf"]
    assert json.loads((tmp_path / "build" / "figures" / "one.json").read_text())["records"] == "0123"


@pytest.mark.parametrize(
    "words, line",
    [
        (["masked_curve"], "trm: unknown figure 'masked_curve'; there are, among "),
        (["masked_curves", "--width", "1500"], "trm export: argument --width: invalid choice: 1500 (choose from 1400, 2040, 2500); "),
        (["masked_curves", "--format", "png,gif"], "trm export: argument --format: 'gif' is no format; known: png, svg, pdf; "),
    ],
)
def test_bad_words_are_one_line(words, line, capsys):
    try:
        status = cli.main(["export", *words])
    except SystemExit as e:
        status = e.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "") and err.startswith(line) and err.count("\n") == 1
