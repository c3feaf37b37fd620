"""The report as a static site: the article, all figures and all executed notebooks, opened from disk without a network.

Pages are plain HTML with one stylesheet and one small script (`site/`). Every figure links to the notebook cell that saved it."""

import base64
import html
import re
import shutil
from importlib import import_module
from itertools import cycle
from pathlib import Path
from urllib.parse import quote, unquote

import mistune
import nbformat
import pandas as pd
from nbconvert.filters import Highlight2HTML

from trmlib import claims, compare, medium, plots, results, stats
from trmlib.errors import TrmError
from trmlib.experiments import EXPERIMENTS, when_report
from trmlib.figures import known, note, saved_by, waiting
from trmlib.runs import REPOSITORY, write_atomically
from trmlib.tables import shown

TITLE = "When does thinking time help?"
PAGES = {  # page → its name, in the order of the menu; the notebooks stand on the first
    "index": "Start", "article": "Article", "figures": "Figures", "claims": "Claims", "verdicts": "Verdicts", "data": "Data", "corrections": "Corrections",
    "notices": "Notices",
}  # fmt: skip
PLACES = {  # what prose names as code → its page
    "data/claims.yaml": "claims", "trm claims": "claims", "CORRECTIONS.md": "corrections", "NOTICE.md": "notices", "data/results/": "data",
}  # fmt: skip
WIDGET = "application/vnd.jupyter.widget-view+json"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<script src="site.js"></script>
</head>
<body>
<header><nav>{menu}<button type="button" title="light or dark">◐</button></nav></header>
<main>
{body}
</main>
</body>
</html>
"""


def anchor_of(heading):
    """The anchor of a heading."""
    return re.sub(r"\W+", "-", medium.plain(heading).lower()).strip("-")


class Page(mistune.HTMLRenderer):
    """Markdown → HTML with anchors at headings, scrolling tables, and figures that name their cell. `headings` collects (level, anchor, text)."""

    def __init__(self, site, output=False):
        super().__init__()
        self.site, self.output, self.headings = site, output, []

    def heading(self, text, level, **attrs):
        if self.output:  # what a cell says stands below the page's own headings
            return f"<h{level + 1}>{text}</h{level + 1}>\n"
        anchor = anchor_of(text)
        self.headings.append((level, anchor, text))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def image(self, text, url, title=None):
        return self.site.figure(Path(url).stem)

    def paragraph(self, text):
        return text if text.startswith("<figure") else f"<p>{text}</p>\n"

    def table(self, text):
        columns = [medium.plain(c) for c in re.findall(r"<th\b[^>]*>(.*?)</th>", text)]
        if len(columns) < 5:
            return f'<div class="scroll"><table>\n{text}</table></div>\n'
        names = cycle(columns)  # on a phone each row stacks, and each cell says what it is
        cells = re.sub(r"<td\b", lambda _: f'<td data-label="{html.escape(next(names))}"', text)
        return f'<div class="scroll stack"><table>\n{cells}</table></div>\n'

    def codespan(self, text):
        stem = text.removeprefix("notebooks/").removesuffix(".py")
        page = stem if stem in self.site.notebooks else PLACES.get(text)
        code = super().codespan(text)
        return f'<a href="{page}.html">{code}</a>' if page else code

    def block_math(self, text):
        path = f"img/equation-{self.site.count('equation')}.png"
        medium.equation(text, self.site.out / path)
        return f'<figure class="equation"><img src="{path}" alt="{html.escape(" ".join(text.split()))}"></figure>\n'

    def inline_math(self, text):
        return html.escape(medium.unicode(text), False)

    def link(self, text, url, title=None):
        if cell := re.fullmatch(r"(?:.*/)?(\w+)\.ipynb#(.*)", url):  # a heading of a notebook, as Jupyter names it
            url = f"{cell[1]}.html#{anchor_of(unquote(cell[2]))}" if cell[1] in self.site.notebooks else ""
        return f'<a href="{html.escape(url)}">{text}</a>' if url.startswith(("http", "#")) or ".html#" in url else text  # else a path here


class Site:
    """The folder `out`, page by page, from the executed notebooks and the committed figures."""

    def __init__(self, out, figures, notebooks):
        self.out, self.notes, self.counts = Path(out), known(figures), {}
        self.notebooks = {p.stem: nbformat.read(p, as_version=4) for p in notebooks}
        self.csv = {p.stem for p in Path(figures).glob("*.csv")}
        code = {stem: [c.source for c in nb.cells if c.cell_type == "code"] for stem, nb in self.notebooks.items()}
        saved = {name: stem for stem, sources in code.items() for source in sources for name in saved_by(source)}
        self.drawn = {stem: [n for n, of in saved.items() if of == stem and n in self.notes] for stem in code}  # in the cells' order
        if lost := ", ".join(name for name, about in self.notes.items() if saved.get(name) != about["notebook"]):
            raise TrmError(f"no executed notebook has the cell that saves {lost}; run `make reproduce`, or remove what no notebook writes")
        (self.out / "img").mkdir(parents=True, exist_ok=True)
        shutil.copytree(figures, self.out / "figures", ignore=shutil.ignore_patterns("*.json", ".*"), dirs_exist_ok=True)
        for name in ("style.css", "site.js"):
            shutil.copyfile(REPOSITORY / "site" / name, self.out / name)

    def count(self, kind):
        """1, 2, 3 … of a kind of file."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]

    def write(self, name, title, body):
        menu = "\n".join(
            f'<a href="{page}.html"{" aria-current=page" if page == name else ""}>{label}</a>' for page, label in PAGES.items()
        )
        text = PAGE.format(title=html.escape(f"{title} · {TITLE}" if title != TITLE else title), menu=menu, body=body)
        write_atomically(self.out / f"{name}.html", text.encode())

    def markdown(self, text):
        """Markdown as HTML."""
        return markdown(Page(self))(text)

    def listed(self, text):
        """The same with links to its sections below the title."""
        renderer = Page(self)
        return under_title(markdown(renderer)(text), sections(renderer.headings))

    def figure(self, name):
        """A figure with caption and the ways to its cell and its files."""
        about = note(name, self.notes)
        files = [("SVG", "svg"), ("PNG", "png"), *([("CSV", "csv")] if name in self.csv else [])]
        ways = [
            f'<a href="{about["notebook"]}.html#{name}">the cell that made it</a>',
            *(f'<a href="figures/{name}.{end}">{kind}</a>' for kind, end in files),
        ]
        image = f'<img src="figures/{name}.png" alt="{html.escape(about["alt"])}" width="1400" loading="lazy">'
        return f'<figure id="{name}">{image}<figcaption>{html.escape(about["caption"])} <span class="small">{" · ".join(ways)}</span></figcaption></figure>\n'

    def notebook(self, stem):
        """An executed notebook: prose, code folded away, outputs. A cell that saves a figure bears its name as anchor."""
        renderer, parts = Page(self), []
        prose, said = markdown(renderer), markdown(Page(self, output=True))
        for cell in self.notebooks[stem].cells:
            if cell.cell_type == "markdown":
                parts.append(prose(cell.source))
            elif "injected-parameters" not in cell.metadata.get("tags", []):  # those say where this machine kept its figures
                names = saved_by(cell.source)
                outputs = "".join(self.output(o, stem, names, said) for o in cell.get("outputs", []))
                code = f"<details><summary>code</summary>{Highlight2HTML(pygments_lexer='python')(cell.source)}</details>"
                anchors = "".join(f'<section id="{name}">' for name in names) or "<section>"
                parts.append(f"{anchors}{outputs}{code}{'</section>' * max(1, len(names))}\n")
        title = next((medium.plain(text) for level, _, text in renderer.headings if level == 1), stem)
        self.write(stem, title, under_title("".join(parts), sections(renderer.headings)))
        return title

    def output(self, output, stem, names, said):
        """One output of a cell as HTML."""
        if output.output_type == "stream":
            return f"<pre>{html.escape(output.text, False)}</pre>"
        data = output.get("data", {})
        if WIDGET in data:
            return '<p class="small">The controls that stand here need JupyterLab: <code>make lab</code>.</p>'
        if "image/png" in data:
            path = f"img/{stem}-{self.count(stem)}.png"
            write_atomically(self.out / path, base64.b64decode(data["image/png"]))
            alt = self.notes[names[0]]["alt"] if names and names[0] in self.notes else "picture that the cell shows"
            return f'<img src="{path}" alt="{html.escape(alt)}" loading="lazy">'
        if "text/markdown" in data:
            return said(data["text/markdown"])
        if "text/html" in data:
            inner = re.sub(r'<(style|script)\b.*?</\1>| border="1"', "", data["text/html"], flags=re.DOTALL)
            return f'<div class="scroll">{inner}</div>'
        return f"<pre>{html.escape(data.get('text/plain', ''), False)}</pre>"


def markdown(renderer):
    """A function Markdown → HTML."""
    return mistune.create_markdown(renderer=renderer, plugins=["table", "math"])


def under_title(body, more):
    """A page with something right below its title."""
    return body.replace("</h1>\n", "</h1>\n" + more, 1)


def sections(headings):
    """Links to the second-level headings, folded."""
    rows = "".join(f'<li><a href="#{quote(anchor)}">{text}</a></li>' for level, anchor, text in headings if level == 2)
    return f"<details open><summary>on this page</summary><ul>{rows}</ul></details>\n" if rows else ""


def frame(df):
    """A frame of strings as HTML."""
    return f'<div class="scroll">{df.to_html(index=False, border=0)}</div>\n'


def firsts(store, profile="full"):
    """For every report that fixed comparisons beforehand: (experiment, what its records are, `compare.primary`)."""
    for experiment in EXPERIMENTS:
        try:
            report = import_module(f"trmlib.experiments.{experiment}_report")
        except ModuleNotFoundError:
            continue
        if hasattr(report, "PRIMARY"):
            df, of = shown(store, experiment, profile)
            unlearnt = compare.unlearnt(df, compare.references(store, df))
            yield experiment, compare.label(df, of), compare.primary(df, report.PRIMARY, getattr(report, "METRIC", "nll_b"), unlearnt)


def primaries(store, profile="full"):
    """The same with `compare.comparison_table`."""
    for experiment, about, first in firsts(store, profile):
        yield experiment, about, compare.comparison_table(first)


def together(store, profile="full"):
    """What the primary comparisons of all chapters, chapter 06 among them, come to when they are corrected together; those that are then no longer
    told apart are named."""
    every = [first for *_, first in firsts(store, profile)]
    every.append(when_report.primary(*(shown(store, name, profile)[0] for name in ("hops", "dial"))))
    df = pd.concat(every, ignore_index=True)
    df["all"] = stats.holm([e.p if e else 1.0 for e in df.effect])
    apart = df[(df.p_holm < 0.05) & ~df.unlearnt.astype(bool)]
    lost = [f"*{r.arm}* against *{r.rival}*" for r in apart[apart["all"] >= 0.05].itertuples()]
    return (
        f"The protocol planned at most ten primary comparisons for the whole report. Its chapters have {len(df)} ({int(df.effect.isna().sum())} pending), each chapter's corrected among themselves. "
        f"Corrected all together, {len(apart) - len(lost)} of the {len(apart)} that a chapter tells apart stay so"
        + (f"; not so: {', '.join(lost)}." if lost else ".")
    )


def verdicts(store):
    """The tables that follow the rules: primary comparisons and what each could have shown."""
    parts = ["<h2>The comparisons that were fixed beforehand</h2>\n", mistune.html(together(store))]
    for experiment, about, table in primaries(store):
        parts += [f"<h3>{experiment}</h3>\n<p class=small>{html.escape(about)}</p>\n", frame(table)]
    return "".join(parts)


def make(store, article, figures, build, notebooks, out):
    """`make site`: the folder `out` anew, from the executed copies of the sources `notebooks` in `build`."""
    executed = [build / f"{py.stem}.ipynb" for py in notebooks]
    if lost := [p for p in (*executed, article) if not p.exists()]:
        raise TrmError(f"no {', '.join(p.name for p in lost)}: run `make reproduce`")
    shutil.rmtree(out, ignore_errors=True)
    plots.style()
    site, titles = Site(out, figures, executed), {}
    for stem in site.notebooks:
        titles[stem] = site.notebook(stem)
    site.write("article", "Article", site.markdown(article.read_text()))
    site.write("figures", "Figures", gallery(site, titles))
    site.write("verdicts", "How verdicts are made", site.markdown((REPOSITORY / "site" / "verdicts.md").read_text()) + verdicts(store))
    rows, _ = claims.judged(store)
    parts = [f"## {title}\n\n{claims.linked([(c, f) for c, f in rows if c.chapter in of])}" for title, of in claims.GROUPS.values()]
    ledger = "\n\n".join(["# The ledger of claims", f"{claims.tally(rows).capitalize()}.", *parts])
    site.write("claims", "The ledger of claims", site.listed(ledger))
    columns = results.write(store, out / "data")
    files = "".join(f'<li><a href="data/{name}">{name}</a></li>' for name in (*results.FILES, "columns.md"))
    site.write("data", "Data", f"<h1>All results</h1>\n<ul>{files}</ul>\n" + site.markdown(columns.replace("# The", "## The", 1)))
    for page, source in (("corrections", "CORRECTIONS.md"), ("notices", "NOTICE.md")):
        site.write(page, PAGES[page], site.markdown((REPOSITORY / source).read_text()))
    site.write("index", TITLE, first(site, titles, rows))
    print(f"{out / 'index.html'}: {len(titles)} notebooks, {len(site.notes)} figures")


def gallery(site, titles):
    """All figures by chapter, in the order in which its notebook draws them, below a list of them."""
    chapters = {stem: names for stem, names in site.drawn.items() if names}

    def way(name):
        text = name.partition("_")[2].replace("_", " ") or name
        return f'<a href="#{name}">{text}</a>' + " (waits for its runs)" * waiting(site.notes[name])

    rows = "".join(
        f'<li><a href="#{stem}">{html.escape(titles[stem])}</a><br><span class="small">{" · ".join(map(way, names))}</span></li>\n'
        for stem, names in chapters.items()
    )
    parts = [f'<h2 id="{stem}">{html.escape(titles[stem])}</h2>\n' + "".join(map(site.figure, names)) for stem, names in chapters.items()]
    return f"<h1>Figures</h1>\n<ul>\n{rows}</ul>\n" + "".join(parts)


def first(site, titles, rows):
    """The first page: what README.md opens with, down to the table of verdicts (of the judged claims `rows`), and the ways to all the rest."""
    readme = claims.fill_readme((REPOSITORY / "README.md").read_text(), rows).replace(claims.START, "")
    ways = {"article": "The article", "08_explorers": "Explorers to play with", "claims": f"All {len(rows)} claims", "verdicts": "How verdicts are made",
            "figures": f"All {len(site.notes)} figures", "corrections": "Corrections", "data": "Data"}  # fmt: skip
    links = " · ".join(f'<a href="{page}.html">{what}</a>' for page, what in ways.items() if page in PAGES or page in titles)
    chapters = "".join(f'<li><a href="{stem}.html">{html.escape(title)}</a></li>\n' for stem, title in titles.items())
    opening = site.markdown(readme.split(claims.END)[0]).replace("</p>\n", f"</p>\n<p>{links}</p>\n", 1)
    return f'{opening}<h2 id="chapters">Chapters</h2>\n<p class="small">Each is a notebook, executed from the records.</p>\n<ul>\n{chapters}</ul>\n'
