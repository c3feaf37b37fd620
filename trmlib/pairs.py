"""The notebooks as sources: the percent .py is what is written and read, its .ipynb is made from it and carries no outputs."""

import ast
import hashlib
from collections import Counter

import jupytext
import nbformat
from jupytext.compare import NotebookDifference, compare_notebooks

from trmlib.errors import TrmError


def read_source(py):
    """A notebook from its percent .py. A cell's id is a hash of its text: it stays as long as the text does."""
    nb = jupytext.read(py, fmt="py:percent")
    seen = Counter()
    for cell in nb.cells:
        text = f"{cell.cell_type}:{cell.source}"
        seen[text] += 1
        cell.id = hashlib.sha256(f"{text}:{seen[text]}".encode()).hexdigest()[:12]
    nb.metadata.pop("jupytext", None)  # the formats are in jupytext.toml, and a version number would change the file
    return nb


def parameter_names(nb):
    """Names assigned in the cell tagged `parameters`."""
    source = "\n".join(c.source for c in nb.cells if "parameters" in c.metadata.get("tags", []))
    return {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def choose(notebooks, chapter=None):
    """The sources, or the one of a chapter ("02", "2", "02_masked")."""
    sources = sorted(notebooks.glob("[0-9][0-9]_*.py"))
    names = [py.stem for py in sources]
    if chapter:
        sources = [py for py in sources if py.stem == chapter or py.stem.startswith(f"{chapter.zfill(2)}_")]
    if not sources:
        raise TrmError(f"no notebook {chapter or ''} in {notebooks}; there are: {', '.join(names) or 'none'}")
    return sources


def pair(notebooks, check=False):
    """Write each .ipynb whose content is not its .py's, or that carries outputs; with `check`, only name them."""
    sources = choose(notebooks)
    problems = {py: problem for py in sources if (problem := unpaired(py))}
    lonely = [nb.name for nb in sorted(notebooks.glob("*.ipynb")) if not nb.with_suffix(".py").exists()]
    if lonely:
        raise TrmError(f"no .py for {', '.join(lonely)}: the .py is the source; write it or remove the .ipynb", code=1)
    if check and problems:
        lines = [f"{py.with_suffix('.ipynb').name} {problem}" for py, problem in problems.items()]
        raise TrmError("\n".join([*lines, "write each .ipynb from its .py with `make pairs`"]), code=1)
    for py in problems:
        nbformat.write(read_source(py), py.with_suffix(".ipynb"))
        print(f"wrote {py.with_suffix('.ipynb').name}")
    if not problems:
        print(f"{len(sources)} pairs in sync")


def unpaired(py):
    """What is wrong with the .ipynb of a .py, or None."""
    path = py.with_suffix(".ipynb")
    if not path.exists():
        return "is missing"
    try:
        stored = nbformat.read(path, as_version=4)
        compare_notebooks(stored, read_source(py), fmt="py:percent", compare_outputs=False)
    except NotebookDifference:
        return f"differs from {py.name}"
    except Exception as e:
        return f"cannot be read ({type(e).__name__})"
    return "has outputs" if any(c.get("outputs") or c.get("execution_count") for c in stored.cells) else None
