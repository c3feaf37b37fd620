"""The command `trm`. Every call is also a function; the command only reads words and prints tables."""

import argparse
import json
import math
import os
import signal
import sys
from textwrap import shorten

import torch

from trmlib import bench, checkpoints, queue, reevaluate, solve, verify
from trmlib.data import sources, sudoku
from trmlib.errors import TrmError
from trmlib.experiments import PROFILES, grid, module
from trmlib.runs import Store, torch_device
from trmlib.tables import cost, estimated, show_record, status, summary
from trmlib.train import COMPILED


def duration(text):
    """ "9m", "90s", "1.5h" or plain seconds → seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 9m or 1.5h")
    return seconds


def seed_list(text):
    """ "0,1,4-6" → [0, 1, 4, 5, 6]."""
    try:
        ranges = [[int(n) for n in part.split("-")] for part in text.split(",")]
        if not all(len(r) < 3 and 0 <= r[-1] - r[0] < 1000 for r in ranges):
            raise ValueError
        return [n for r in ranges for n in range(r[0], r[-1] + 1)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of seeds; write 0,1,4-6") from None


def positive(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def formats(text):
    """ "png,pdf" → ["png", "pdf"]."""
    if unknown := set(text.split(",")) - {"png", "svg", "pdf"}:
        raise argparse.ArgumentTypeError(f"{', '.join(map(repr, sorted(unknown)))} is no format; known: png, svg, pdf")
    return text.split(",")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser():
    p = Parser(prog="trm", description="Runs, records and benchmarks of the report 'when does thinking time help?'.")
    p.add_argument("--data-root", help="folder that holds the corpora (also: TRM_DATA)")
    sub = p.add_subparsers(dest="command", required=True)

    def command(name, help, json=False):
        c = sub.add_parser(name, help=help, description=help)
        if json:
            c.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else")
        return c

    c = command("list", "runs and their state: recorded, pending, failed", json=True)
    c.add_argument("patterns", nargs="*", metavar="PATTERN", help="experiment, arm, experiment/arm or hash; shell wildcards")
    c.add_argument("--profile", choices=PROFILES, help="default: full; with --json: all")
    c.add_argument("--pending", action="store_true", help="only what is pending, with an estimate of its cost")

    c = command("run", "train pending runs, the most wanted first")
    c.add_argument("patterns", nargs="*", metavar="PATTERN", help="experiment, arm, experiment/arm or hash; shell wildcards")
    c.add_argument("--profile", default="full", choices=PROFILES)
    c.add_argument("--device", default="auto", help="auto, cpu or cuda")
    c.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    c.add_argument("--seeds", type=seed_list, help="0,1,4-6; default: all of the arm")
    c.add_argument("--workers", type=positive, help="processes; default: one a CPU core, one for a GPU")
    c.add_argument("--at-once", type=positive, help="seeds trained together in a process; default: 1 on CPU, 8 on a GPU")
    c.add_argument("--budget", type=duration, help="stop in time: 90s, 9m, 1.5h")
    c.add_argument("--out", help="folder for a pack of the new records and of the checkpoints under way")
    c.add_argument("--quiet", action="store_true", help="no progress bar")
    c.add_argument(
        "--compile", default="no", choices=COMPILED, help="compile the training step on a GPU, with CUDA graphs or without (untried)"
    )

    c = command("evaluate", "measure trained weights anew, where they lie in the cache")
    c.add_argument("patterns", nargs="*", metavar="PATTERN", help="experiment, arm, experiment/arm or hash; shell wildcards")
    c.add_argument("--profile", default="full", choices=PROFILES)
    c.add_argument("--device", default="auto", help="auto, cpu or cuda")
    c.add_argument("--workers", type=positive, help="processes; default: one a CPU core, one for a GPU")
    c.add_argument("--quiet", action="store_true", help="no progress bar")

    c = command("add", "merge records and checkpoints that another machine brought", json=True)
    c.add_argument("files", nargs="+", metavar="FILE")

    run = "hash, key of a record (hash.device.precision), the beginning of either, arm/seed or experiment/arm/seed"
    c = command("show", "one run: its spec, numbers and costs", json=True)
    c.add_argument("run", metavar="RUN", help=run)
    c.add_argument("--profile", default="full", choices=PROFILES)

    c = command("keep", "keep a trained run's weights in data/checkpoints/")
    c.add_argument("run", metavar="RUN", help=run)
    c.add_argument("name", metavar="NAME", help="name of the checkpoint")
    c.add_argument("--profile", default="full", choices=PROFILES)

    c = command("solve", "let a small trained model solve a Sudoku, pass by pass", json=True)
    c.add_argument("puzzle", metavar="PUZZLE", help="81 characters (digits; . or 0 for a blank), or a file of puzzles, one a line")
    c.add_argument("--steps", type=positive, help="supervision steps (default: as trained)")
    c.add_argument("--checkpoint", default=solve.CHECKPOINT, help="name in data/checkpoints/ (default: %(default)s)")

    c = command("export", "figures as files, in other widths and formats where asked for")
    c.add_argument("figures", nargs="+", metavar="FIGURE", help="name of a figure, as in figures/")
    c.add_argument("--format", type=formats, default="png", help="png, svg, pdf, or several: png,pdf (default: png)")
    c.add_argument("--width", type=int, default=1400, choices=(1400, 2040, 2500), help="pixels of a PNG (default: %(default)s)")
    c.add_argument("--out", default=".", help="folder (default: this one)")

    c = command("claims", "the ledger: each claim of the earlier write-ups and its verdict", json=True)
    c.add_argument("patterns", nargs="*", metavar="PATTERN", help="id, chapter or source of a claim; shell wildcards")
    c.add_argument("--profile", default="full", choices=PROFILES)

    c = command("params", "parameters of every arm, counted", json=True)
    c.add_argument("--profile", default="full", choices=PROFILES)

    c = command("data", "is the data at hand and whole?", json=True)
    c.add_argument("action", nargs="?", default="check", choices=("check", "fetch"))
    c.add_argument("corpora", nargs="*", metavar="CORPUS")

    c = command("verify", "retrain recorded runs, the cheapest first, and compare", json=True)
    c.add_argument("-n", type=positive, default=1, help="how many (default 1)")
    c.add_argument("--profile", choices=PROFILES)

    c = command("bench", "training throughput of the arms on this machine", json=True)
    c.add_argument("patterns", nargs="*", metavar="ARM")
    c.add_argument("--profile", default="full", choices=PROFILES)
    c.add_argument("--seconds", type=duration, default=5.0, help="time for each measurement (default 5s)")
    return p


def table(rows, columns=None):
    """Rows of dicts as aligned text."""
    if not rows:
        return "nothing"
    columns = columns or list(rows[0])
    text = [[("" if r.get(c) is None else f"{r[c]:,}" if isinstance(r[c], int) else f"{r[c]:.4g}" if isinstance(r[c], float) else str(r[c]))
             for c in columns] for r in rows]  # fmt: skip
    width = [max(map(len, col)) for col in zip(columns, *text, strict=True)]
    right = [all(isinstance(r.get(c), (int, float, type(None))) for r in rows) for c in columns]
    lines = [columns, *text]
    return "\n".join(
        "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(line, width, right, strict=True)).rstrip() for line in lines
    )


def emit(args, value, text):
    """The JSON document, or the text for people."""
    print(json.dumps(value, allow_nan=False) if args.json else text)


def do_list(args):
    store, patterns = Store(), tuple(args.patterns)
    profiles = (args.profile,) if args.profile else PROFILES if args.json else ("full",)
    rows = estimated(status(store, profiles, patterns), store)
    if args.pending:
        rows = [r for r in rows if r["status"] == "pending"]
    if args.json:
        return emit(args, rows, "")
    print(table(summary(rows)) if rows else "no run is pending")
    if args.pending and rows:
        print(cost(rows))


def do_run(args):
    keys = queue.drain(tuple(args.patterns), args.profile, args.device, args.precision, args.seeds, args.workers, args.budget, args.out,
                       args.at_once, args.quiet, args.compile)  # fmt: skip
    print(f"{len(keys)} runs recorded")


def do_evaluate(args):
    device = torch_device(args.device)
    workers = args.workers or queue.processes(device)
    added, missing = reevaluate.evaluate(Store(), tuple(args.patterns), args.profile, device, quiet=args.quiet, workers=workers)
    print(f"{added} evaluations added" + (f"; weights of {len(missing)} are not here" if missing else ""))


def do_add(args):
    result = queue.add(args.files, Store())
    emit(args, result, f"{len(result['added'])} added, {len(result['known'])} known before, {len(result['refused'])} refused")
    for reason in [] if args.json else result["refused"]:
        print(f"trm: refused: {reason}", file=sys.stderr)
    return 2 if result["refused"] else 0


def recorded(name, profile):
    """The records {key: record} of a run named as RUN says."""
    named = lambda r: (f"{r.arm}/{r.spec.seed}", f"{r.spec.experiment}/{r.arm}/{r.spec.seed}")  # noqa: E731
    hashes = {r.spec.hash for r in grid(profile) if name in named(r)}
    found = {k: r for k, r in Store().records().items() if r["hash"] in hashes or (name and k.startswith(name))}
    if not found:
        raise TrmError(f"no record of run {name!r} at profile {profile}; `trm list` names the runs (a run has a record once it is trained)")
    return found


def do_show(args):
    found = list(recorded(args.run, args.profile).values())
    emit(args, found, "\n\n".join(map(show_record, found)))


def do_keep(args):
    found = recorded(args.run, args.profile)
    if len(found) > 1:
        raise TrmError(f"{len(found)} records are of run {args.run!r}: {shorten(', '.join(found), 200)}; name one by its key")
    print(f"kept {checkpoints.keep(Store(), *found, args.name)}")


def do_solve(args):
    results = []
    for name, puzzle, target in solve.boards_of(args.puzzle):
        found = solve.solve(puzzle, args.steps, args.checkpoint)
        results.append({"puzzle": name, "steps": found, "solved": found[-1]["digits"] == target.tolist()})
        if not args.json:
            print(f"{name}:\n{sudoku.show(puzzle)}\n")
            print(*solve.lines(puzzle, found), sep="\n")
            print("solved" if results[-1]["solved"] else f"not solved; the solution is\n{sudoku.show(target, puzzle)}")
    if args.json:
        emit(args, results, "")
    return 0 if all(r["solved"] for r in results) else 1


def do_export(args):
    from trmlib.figures import export  # needs what draws and executes notebooks; the rest of the command does without

    for path in export(args.figures, args.format, args.width, args.out):
        print(f"wrote {path}")


def do_claims(args):
    from trmlib import claims  # reads YAML, which what trains does without

    rows, _ = claims.judged(Store(), args.profile, tuple(args.patterns))
    text = "" if args.json else f"{table(claims.everything(rows).to_dict('records'))}\n{len(rows)} claims: {claims.tally(rows)}"
    emit(args, claims.documents(rows), text)


def do_params(args):
    """A model's size may follow from its corpus (the characters of Shakespeare): arms without theirs are named, the others counted."""
    rows, seen, missing = [], set(), {}
    for run in grid(args.profile):
        if (run.spec.experiment, run.arm) not in seen:
            seen.add((run.spec.experiment, run.arm))
            try:
                with torch.device("meta"):
                    count = sum(p.numel() for p in module(run.spec.experiment).build(run.spec).parameters())
            except TrmError as e:
                count, missing[str(e)] = None, e.code
            rows.append({"experiment": run.spec.experiment, "arm": run.arm, "parameters": count})
    emit(args, rows, table(rows))
    for e in missing:
        print(f"trm: not counted: {e}", file=sys.stderr)
    return max(missing.values(), default=0)


def do_data(args):
    names = args.corpora or list(sources.CORPORA)
    look = sources.fetch if args.action == "fetch" else sources.check
    rows = [row for name in names for row in look(name)]
    emit(args, rows, table(rows))
    return 0 if all(r["ok"] for r in rows) else 2


def do_verify(args):
    rows = verify.verify(Store(), args.n, args.profile)
    emit(args, rows, table(rows) if rows else "no record to verify")
    return 0 if all(r["agrees"] for r in rows) else 1


def do_bench(args):
    rows = bench.bench(args.profile, tuple(args.patterns), args.seconds)
    emit(args, rows, table(rows))


def main(argv=None):
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill`, a shutdown, a batch system's limit: as Ctrl-C
    if args.data_root:
        os.environ["TRM_DATA"] = args.data_root
    try:
        return globals()[f"do_{args.command}"](args) or 0
    except TrmError as e:
        print(f"trm: {e}", file=sys.stderr)
        return e.code
    except KeyboardInterrupt as e:
        print(f"trm: interrupted; {str(e) or 'nothing was lost'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as e:
        print(f"trm: {e}", file=sys.stderr)
        return 74


if __name__ == "__main__":
    sys.exit(main())
