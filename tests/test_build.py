"""The pipeline on a tiny folder of notebooks."""

import json
import os

import nbformat
import pytest

from trmlib import build, claims, pairs
from trmlib.errors import TrmError

HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A notebook

# %% tags=["parameters"]
profile = "full"
figures = "../figures"
n: int = 1
"""
MEET = """
# %%
import os
import time
from pathlib import Path

Path(figures, "@me").write_text(str(n))
for _ in range(3000):  # passes only if the other notebook runs at the same time
    if Path(figures, "@other").exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("@other did not come")

# %%
print(n, profile, os.environ["OMP_NUM_THREADS"], os.environ["JUPYTER_RUNTIME_DIR"])
"""
BAD = """
# %%
x = 1

# %%
y = [
    x / 0]
"""


@pytest.fixture
def folder(tmp_path):
    def write(**notebooks):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        for name, cells in notebooks.items():
            (tmp_path / "notebooks" / f"{name[1:]}.py").write_text(HEADER + cells)
        return tmp_path / "notebooks"

    return write


def printed(nb):
    return "".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", []))


def test_two_notebooks_at_once_and_one_that_fails(folder, tmp_path):
    folder(
        _01_one=MEET.replace("@me", "one").replace("@other", "two"),
        _02_two=MEET.replace("@me", "two").replace("@other", "one"),
        _03_bad=BAD,
        _00_overview="\n# %%\nraise SystemError('must not run')\n",
    )
    out = tmp_path / "build"
    out.mkdir()
    (out / "03_bad.ipynb").write_text("of an earlier success")
    sources = pairs.choose(tmp_path / "notebooks")
    parameters = build.parameters_for(sources, {"figures": str(tmp_path)}, {"article": "x"}, {"n": 7})
    assert all(p == {"figures": str(tmp_path), "n": 7} for p in parameters.values())  # no notebook has `article`

    with pytest.raises(TrmError) as e:
        build.reproduce(sources, out, parameters, jobs=2)
    assert e.value.code == 1
    assert str(e.value).splitlines() == [
        f"03_bad.py failed: the cell 'y = [' raised ZeroDivisionError: division by zero (see {out / '03_bad.failed.ipynb'})",
        "00_overview.py was not executed: it reads what the others write",
    ]
    assert sorted(p.name for p in out.glob("*.ipynb")) == ["01_one.ipynb", "02_two.ipynb", "03_bad.failed.ipynb"]
    assert not list(out.glob(".*.ipynb"))
    texts = [printed(nbformat.read(out / name, as_version=4)).split() for name in ("01_one.ipynb", "02_two.ipynb")]
    assert [t[:3] for t in texts] == [["7", "full", "1"]] * 2
    assert texts[0][3] != texts[1][3]  # a runtime folder each


def test_overview_reads_what_the_chapter_wrote(folder, tmp_path, monkeypatch, capsys):
    notebooks = folder(
        _00_overview="\n# %%\nprint(open(f'{figures}/made').read())\n",
        _01_one="\n# %%\nopen(f'{figures}/made', 'w').write(f'made with {n}, {profile}')\n",
    )
    called = []
    monkeypatch.setattr(build, "trm", lambda *args: called.append(args))
    monkeypatch.setattr(claims, "write_readme", lambda source, target: called.append((source.name, target)))
    folders = [f"--{name}={tmp_path / name}" for name in ("build", "figures", "article", "readme")]
    assert build.main(["--notebooks", str(notebooks), "reproduce", "--set", "n=[1, 2]", *folders]) == 0
    assert "made with [1, 2], full" in printed(nbformat.read(tmp_path / "build" / "00_overview.ipynb", as_version=4))
    assert called == [("README.md", tmp_path / "readme")]
    out = capsys.readouterr().out
    assert "2/2" in out and "runs pending; `trm list --pending` says which" in out  # the bar, and what is left


def test_smoke_stays_in_the_build_folder(folder, tmp_path, monkeypatch):
    notebooks = folder(_01_one="")
    calls = []
    for name in ("TRM_RESULTS", "TRM_CACHE"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setattr(build, "trm", lambda *args: calls.append((args, os.environ["TRM_RESULTS"], os.environ["TRM_CACHE"])))
    monkeypatch.setattr(build, "reproduce", lambda sources, out, parameters, jobs: calls.append((out, parameters)))
    base = tmp_path / "build" / "smoke"
    (base / "results").mkdir(parents=True)
    (base / "results" / "old.json").touch()
    assert build.main(["--notebooks", str(notebooks), "reproduce", "--profile", "smoke", "--build", str(tmp_path / "build")]) == 0
    assert calls == [
        (("run", "--profile", "smoke"), str(base / "results"), str(base / "cache")),
        (base, {notebooks / "01_one.py": {"profile": "smoke", "figures": str(base / "figures")}}),
    ]
    assert not (base / "results").exists()  # trained from scratch


@pytest.mark.parametrize(
    "options, line",
    [
        (["--set", "nope=1"], "error: unknown notebook parameter 'nope': 01_one has figures, n, profile"),
        (["--chapter", "09"], "error: no notebook 09 in {notebooks}; there are: 01_one"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, capsys, options, line):
    notebooks = folder(_01_one="")
    assert build.main(["--notebooks", str(notebooks), "reproduce", "--build", str(tmp_path / "build"), *options]) == 2
    assert capsys.readouterr().err == line.format(notebooks=notebooks) + "\n"
    assert not (tmp_path / "build").exists()


def test_missing_required_parameter_is_named(folder):
    notebooks = folder(_01_one="")
    with pytest.raises(TrmError, match="01_one.py has no parameter 'article'"):
        build.parameters_for(pairs.choose(notebooks), {"article": "x"}, {}, {})


def test_pair_check_notices_what_is_out_of_sync(folder, capsys):
    notebooks = folder(_01_one="\n# %%\nx = 1\n")
    py, ipynb = notebooks / "01_one.py", notebooks / "01_one.ipynb"
    pair = ["--notebooks", str(notebooks), "pair"]

    def problem():
        code = build.main([*pair, "--check"])
        return code, capsys.readouterr().err.partition("\n")[0]

    assert problem() == (1, "error: 01_one.ipynb is missing")
    assert build.main(pair) == 0
    assert problem() == (0, "")
    before = nbformat.read(ipynb, as_version=4)

    py.write_text(py.read_text().replace("x = 1", "x = 2"))
    assert problem() == (1, "error: 01_one.ipynb differs from 01_one.py")
    assert build.main(pair) == 0 and problem() == (0, "")
    after = nbformat.read(ipynb, as_version=4)
    assert [a.id == b.id for a, b in zip(after.cells, before.cells, strict=True)] == [True, True, False]

    with_outputs = json.loads(ipynb.read_text())
    with_outputs["cells"][2]["execution_count"] = 3
    ipynb.write_text(json.dumps(with_outputs))
    assert problem() == (1, "error: 01_one.ipynb has outputs")

    ipynb.write_text("{")
    assert problem()[1].startswith("error: 01_one.ipynb cannot be read")
    (notebooks / "09_alone.ipynb").write_text("{}")
    assert problem() == (1, "error: no .py for 09_alone.ipynb: the .py is the source; write it or remove the .ipynb")


def test_a_rebuild_is_compared_byte_for_byte(tmp_path):
    old, new = tmp_path / "figures", tmp_path / "new"
    for folder in (old, new):
        (folder / "02").mkdir(parents=True)
        (folder / "02" / "same.png").write_bytes(b"1")
    assert build.differing(new, old, whole=True) == []
    (old / "README.md").touch()
    (old / "left.png").touch()
    (new / "02" / "same.png").write_bytes(b"2")
    (new / "extra.svg").touch()
    assert sorted(build.differing(new, old)) == ["figures/02/same.png", "figures/extra.svg"]
    assert "figures/left.png (no notebook writes it)" in build.differing(new, old, whole=True)
    assert len(build.differing(new, old, whole=True)) == 3
