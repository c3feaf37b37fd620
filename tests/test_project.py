"""The files around the code agree with each other."""

import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from jupytext.compare import compare_notebooks
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from trmlib.pairs import read_source

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(r) for r in [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]]
CONDA_NAMES = {"pytorch": "torch"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def test_environment_yml_agrees_with_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    found = [Requirement(r.replace("=3.11", "==3.11")) if r.startswith("python=") else Requirement(r) for r in listed if isinstance(r, str)]
    conda = {CONDA_NAMES.get(r.name, r.name): r.specifier for r in found}
    python = conda.pop("python")
    assert all(s.version in PROJECT["requires-python"] for s in python)
    conda.pop("pip")
    assert {name: str(s) for name, s in conda.items()} == {r.name: str(r.specifier) for r in DIRECT}
    assert [r for r in listed if isinstance(r, dict)] == [{"pip": ["--editable ."]}]


def test_lock_satisfies_pyproject():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), "only name==version: no paths, no addresses"
    locked = dict(line.split("==") for line in lines)
    assert len(locked) == len(lines) and "trmlib" not in locked
    for r in DIRECT:
        assert Version(locked[canonicalize_name(r.name)]) in r.specifier, r
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(Version(locked[Requirement(r).name]) in Requirement(r).specifier for r in needed)  # installed without build isolation


def test_versions_agree():
    import trmlib

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert trmlib.__version__ == PROJECT["version"] == cited["version"]
    assert cited["license"] == PROJECT["license"] == "MIT"


def test_there_are_notebooks():
    assert NOTEBOOKS and [p.stem for p in NOTEBOOKS] == [p.stem for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.mark.parametrize("py", NOTEBOOKS, ids=lambda p: p.stem)
def test_pair_is_in_sync_and_without_outputs(py):
    stored = nbformat.read(py.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(stored)
    compare_notebooks(stored, read_source(py), fmt="py:percent", compare_outputs=False)
    code = [c for c in stored.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)
    assert sum("parameters" in c.metadata.get("tags", []) for c in code) == 1


@pytest.mark.parametrize("name", [r.name for r in DIRECT])
def test_readme_says_why_each_dependency_is_there(name):
    mention = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if mention.search(line)]
    assert any(len(re.findall(r"[A-Za-z]{2,}", mention.sub("", line))) >= 3 for line in lines), f"README: what is {name} for?"


def test_make_help_lists_the_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets == set(re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split())
    printed = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in printed.splitlines()[1:]} == targets
    default = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert default == printed


def test_clean_keeps_records_and_weights():
    recipe = re.search(r"^clean:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert "data" not in recipe and "results" not in recipe and "cache" not in recipe.replace("_cache", "").replace("__pycache__", "")
