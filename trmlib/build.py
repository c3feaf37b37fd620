"""The notebook pipeline: `python -m trmlib.build reproduce` executes the notebooks, `... pair` writes each .ipynb from its .py,
`... medium` and `... site` publish what came of them.

The percent .py is the source. It is converted, executed by papermill on this Python, and kept in `build/`; figures, article and the
README's verdicts go where they are committed, except for another profile than the default or with --check: those stay in `build/`.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import yaml
from tqdm import tqdm

from trmlib.errors import TrmError
from trmlib.experiments import PROFILES
from trmlib.pairs import choose, pair, parameter_names, read_source

ROOT = Path(__file__).resolve().parents[1]
LAST = ("00_overview", "07_article")  # in this order, after the chapters: they read what the others wrote
LEDGER = "00_overview"  # with it goes the table of verdicts in README.md
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",  # what is not at hand is said at once: no notebook needs a network
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no debugger, no warning about it
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # draws with agg, and shows the figure in the executed notebook
}


def parameters_for(sources, required, optional, chosen):
    """{notebook: parameters}. Each has the required ones; `chosen` (the user's) are names that some notebook has."""
    known = {py: parameter_names(read_source(py)) for py in sources}
    for name in chosen:
        if not any(name in names for names in known.values()):
            listing = "; ".join(f"{py.stem} has {', '.join(sorted(names)) or 'none'}" for py, names in known.items())
            raise TrmError(f"unknown notebook parameter {name!r}: {listing}")
    for py, names in known.items():
        if missing := sorted(required.keys() - names):
            raise TrmError(f"{py.name} has no parameter {missing[0]!r}: assign it in the cell tagged `parameters`")
    return {py: {k: v for k, v in (required | optional | chosen).items() if k in names} for py, names in known.items()}


def execute(source, target, parameters, runtime, environment):
    """Execute one notebook in this process, which runs nothing else. Returns None, or the line that says what failed."""
    import papermill
    from traitlets.config import Config

    spec = runtime / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    folders = dict.fromkeys(("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"), str(runtime))
    for name in ("MATPLOTLIBRC", "TRM_FIGURE_WIDTH", "TRM_FIGURE_FORMATS"):  # nobody's own style in the figures
        os.environ.pop(name, None)
    os.environ.update(KERNEL_ENV | folders | environment, MPLCONFIGDIR=str(target.parent / ".matplotlib"))
    # sockets in a folder of its own, no ports: two kernels cannot meet
    config = Config(KernelManager={"transport": "ipc", "connection_file": str(runtime / "kernel.json")})
    partial = target.with_name(f".{target.stem}.partial.ipynb")
    failed = target.with_suffix(".failed.ipynb")
    try:
        nb = read_source(source)
        quiet = {"progress_bar": False, "start_timeout": 300, "execution_timeout": 1800}  # seconds, on a busy machine; no cell trains
        papermill.execute_notebook(nb, partial, parameters, kernel_name="python3", cwd=source.parent, config=config, **quiet)
        partial.replace(target)
        failed.unlink(missing_ok=True)
        return None
    except papermill.PapermillExecutionError as e:
        what = f"the cell {e.source.strip().splitlines()[0]!r} raised {e.ename}: {e.evalue}"
    except Exception as e:
        what = f"{type(e).__name__}: {e}"
    where = f" (see {partial.replace(failed)})" if partial.exists() else ""
    target.unlink(missing_ok=True)  # an older success would pass for this one
    return f"{source.name} failed: {' '.join(what.split())}{where}"


def reproduce(sources, build, parameters, jobs=2, environment=None):
    """Execute notebooks, chapters side by side, then LAST one by one; `environment` is what their kernels see besides. Raises once
    all that could run did."""
    build.mkdir(parents=True, exist_ok=True)
    stages = [[py for py in sources if py.stem not in LAST], *([py for py in sources if py.stem == name] for name in LAST)]
    errors = []
    runtimes = tempfile.TemporaryDirectory(prefix="trm-", ignore_cleanup_errors=True)  # a short path, as a socket's must be
    with runtimes as runtime, tqdm(total=len(sources), unit="notebook", file=sys.stdout) as bar:
        for stage in filter(None, stages):
            if errors:
                errors += [f"{py.name} was not executed: it reads what the others write" for py in stage]
                continue
            pool = ProcessPoolExecutor(min(jobs, len(stage)), multiprocessing.get_context("spawn"))
            try:
                tasks = ((py, build / f"{py.stem}.ipynb", parameters[py], Path(runtime, py.stem), environment or {}) for py in stage)
                futures = {pool.submit(execute, *task): task[0] for task in tasks}
                for future in as_completed(futures):
                    crash = future.exception()
                    error = f"{futures[future].name} failed: its process ended ({crash})" if crash else future.result()
                    errors += [error] if error else []
                    bar.update()
            except KeyboardInterrupt:  # the kernels end when their parents do
                for worker in multiprocessing.active_children():
                    worker.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
    if errors:
        raise TrmError("\n".join(errors), code=1)


def differing(rebuilt, committed, whole=False):
    """Names of the files of a rebuild that are not, byte for byte, the committed ones; with `whole`, also of those not rebuilt."""
    new, old = ({p.relative_to(d).as_posix(): p.read_bytes() for p in d.rglob("*") if p.is_file()} for d in (rebuilt, committed))
    stale = [f"{committed.name}/{k} (no notebook writes it)" for k in old if k not in new and whole and not k.startswith((".", "README"))]
    return [f"{committed.name}/{k}" for k in new if old.get(k) != new[k]] + stale


def trm(*args):
    """The command `trm` in a process of its own."""
    print("trm", *args, flush=True)
    start = "import sys; from trmlib.cli import main; sys.exit(main(sys.argv[1:]))"
    if code := subprocess.run([sys.executable, "-c", start, *args]).returncode:
        raise TrmError(f"`trm {' '.join(args)}` failed with exit status {code}", code=code if code > 0 else 1)


def assignment(text):
    """ "name=value", the value as in YAML."""
    name, sign, value = text.partition("=")
    if not (sign and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as name=value")
    return name, yaml.safe_load(value)


def command(args):
    if args.command == "pair":
        return pair(args.notebooks, args.check)
    if args.command in ("medium", "site"):
        return publish(args)
    profile = args.profile or "full"
    committed = profile == "full" and not args.check
    base = args.build if committed else args.build / ("check" if args.check else profile)
    figures = args.figures or (ROOT if committed else base) / "figures"
    article = args.article or (ROOT if committed else base) / "article"
    readme = args.readme or (ROOT if committed else base) / "README.md"
    sources = choose(args.notebooks, args.chapter)
    required = {"profile": profile, "figures": str(figures.resolve())}
    parameters = parameters_for(sources, required, {"article": str(article.resolve())}, dict(args.set))
    for name in () if committed else ("results", "cache", "figures", "article"):  # of the last time
        shutil.rmtree(base / name, ignore_errors=True)
    if profile == "smoke":
        os.environ.update(TRM_RESULTS=str(base / "results"), TRM_CACHE=str(base / "cache"))
    for folder in (figures, article):
        folder.mkdir(parents=True, exist_ok=True)
    if profile == "smoke" or args.train:
        trm("run", "--profile", profile)
    reproduce(sources, base, parameters, args.jobs)
    verdicts = profile == "full" and any(py.stem == LEDGER for py in sources)
    if verdicts:
        from trmlib import claims  # imports torch, which only this step needs

        claims.write_readme(ROOT / "README.md", readme)
    if args.check:
        changed = differing(figures, ROOT / "figures", not args.chapter) + differing(article, ROOT / "article")
        if verdicts and readme.read_bytes() != (ROOT / "README.md").read_bytes():
            changed.append("README.md (its table of verdicts)")
        if changed:
            advice = "run `make reproduce`, and remove what no notebook writes"
            raise TrmError("\n".join(["a rebuild from the records differs in these files:", *changed, advice]), code=1)
        print(f"a rebuild from the records gives figures/{', article/ and the README' if verdicts else ' and article/'} byte for byte")
    elif profile != "smoke":
        from trmlib.runs import Store
        from trmlib.tables import cost, status

        print(cost(status(Store(), (profile,))))


def publish(args):
    """The Medium kit or the site, from figures and article as they are committed."""
    from trmlib import medium, site
    from trmlib.runs import Store

    store, figures, article, out = Store(), ROOT / "figures", ROOT / "article" / "article.md", args.out / args.command
    if args.command == "medium":
        medium.make(store, article, figures, out)
    else:
        site.make(store, article, figures, args.build, choose(args.notebooks), out)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m trmlib.build", description="Execute the notebooks, or write each .ipynb from its .py.")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of the sources")
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("reproduce", help="execute the notebooks; rebuild figures, article and the README's verdicts")
    group = p.add_mutually_exclusive_group()
    group.add_argument("--profile", choices=PROFILES, help="default: full; smoke trains from scratch first, in a store of its own")
    group.add_argument("--check", action="store_true", help="rebuild elsewhere and compare with figures/ and article/")
    p.add_argument("--train", action="store_true", help="train the pending runs first")
    p.add_argument("--chapter", help="one notebook, such as 02")
    p.add_argument("--jobs", type=int, default=2, help="notebooks at once")
    p.add_argument("--set", action="append", type=assignment, default=[], metavar="NAME=VALUE", help="for the notebooks that have NAME")
    p.add_argument("--figures", type=Path)
    p.add_argument("--article", type=Path)
    p.add_argument("--readme", type=Path, help="file whose table of verdicts is rebuilt")
    p.add_argument("--build", type=lambda p: Path(p).absolute(), default=ROOT / "build", help="where executed notebooks go")
    p = commands.add_parser("pair", help="write each .ipynb from its .py")
    p.add_argument("--check", action="store_true", help="only say which differ")
    for name, help in (
        ("medium", "the article as a folder to upload to Medium"),
        ("site", "article, figures and executed notebooks as a site"),
    ):
        p = commands.add_parser(name, help=help)
        p.add_argument("--out", type=Path, default=ROOT / "dist", help="its parent folder")
        p.add_argument("--build", type=Path, default=ROOT / "build", help="where executed notebooks are")
    args = parser.parse_args(argv)
    try:
        command(args)
    except TrmError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.code
    except KeyboardInterrupt:
        print("interrupted; run it again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
