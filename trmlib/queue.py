"""The queue: pending runs, drained by worker processes within a time budget, and carried between machines.

A worker takes the first pending run that nobody holds (a lock per run), trains it and records it. One that
is killed loses what came after its last checkpoint; the next drain goes on from there, here or, with the
pack that a drain leaves, on another machine.
"""

import io
import json
import lzma
import math
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import ExitStack, redirect_stdout
from itertools import chain, count
from pathlib import Path

from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from trmlib.errors import TrmError
from trmlib.experiments import EXPERIMENTS, affordable, module, select
from trmlib.reevaluate import evaluate
from trmlib.runs import KEY, Store, device_info, group_key, key_of, parse_evaluation, parse_record, torch_device, write_atomically
from trmlib.train import train

RESERVE = 20  # seconds of a budget kept for the last evaluation and the packing
PART = 15 * 2**20  # bytes: largest file of a pack
PACKED_CHECKPOINTS = 50 * 2**20  # bytes of checkpoints a pack may hold
LARGEST_RECORD = 2**20  # bytes a record may have in a pack
LARGEST_CHECKPOINT = 512 * 2**20
ALLOCATOR = {  # keep freed memory: mapping it anew each step costs up to a tenth of a CPU run
    "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "67108864",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}  # fmt: skip


def pending(runs, store, kind, precision):
    """The runs without a record on this kind of device in this precision."""
    return [r for r in runs if not store.path(r.spec.experiment, f"{r.spec.hash}.{kind}.{precision}").exists()]


def work(runs, store, device, precision="fp32", at_once=1, deadline=math.inf, tell=lambda **_: None, compiled="no"):
    """One worker: train pending runs until none is free or the deadline comes. `tell` hears of progress."""
    kind = device_info(device)["kind"]
    alike = {}  # arms of one priority take turns, seed by seed
    for r in pending(runs, store, kind, precision):
        alike.setdefault((r.spec.experiment, r.arm), []).append(r)
    batches = [g[i : i + at_once] for g in alike.values() for i in range(0, len(g), at_once)]
    for batch in sorted(batches, key=lambda b: b[0].priority):
        with ExitStack() as held:
            keys = [f"{r.spec.hash}.{kind}.{precision}" for r in batch]
            mine = [held.enter_context(store.lock(k)) for k in keys]
            if not all(mine) or len(pending(batch, store, kind, precision)) < len(batch):
                continue
            if time.monotonic() > deadline:
                return
            if not train_batch(batch, store, device, precision, deadline, tell, compiled):
                return


def train_batch(batch, store, device, precision, deadline, tell, compiled="no"):
    """Train runs that differ only in their seed, and record them; False if the deadline left only a checkpoint."""
    specs, last = [r.spec for r in batch], 0.0

    def progress(step):
        nonlocal last
        if time.monotonic() - last > 0.5 or step == specs[0].train.steps:
            last = time.monotonic()
            tell(event="step", arm=batch[0].arm, seeds=[s.seed for s in specs], hash=specs[0].hash, step=step)

    task = module(specs[0].experiment).Task(specs[0], device)
    records = train(task, specs, store, device, precision, deadline, progress, compiled=compiled)
    if records is None:
        return False
    for run, record in zip(batch, records, strict=True):
        store.add({**record, "arm": run.arm, "profile": run.profile})
        tell(event=record["status"], arm=run.arm, seed=run.spec.seed, key=key_of(record), reason=record["reason"], nll=record["metrics"])
    store.checkpoint(group_key(specs, device_info(device)["kind"], precision)).unlink(missing_ok=True)
    return True


def drain(
    patterns=(),
    profile="full",
    device="auto",
    precision="fp32",
    seeds=None,
    workers=None,
    budget=None,
    out=None,
    at_once=None,
    quiet=False,
    compiled="no",
):
    """Drain the queue with worker processes; returns the keys recorded. Packs them into `out`, if given."""
    if budget is not None and budget <= RESERVE:
        raise TrmError(f"a budget of {budget:g} s trains nothing: {RESERVE} s are kept for the last evaluation and the packing; give more")
    store, device = Store(), torch_device(device)
    kind = device_info(device)["kind"]
    runs = select(profile, patterns, seeds)
    todo = pending(runs if patterns else affordable(runs, device), store, kind, precision)
    for r in runs:
        if (path := store.path(r.spec.experiment, f"{r.spec.hash}.{kind}.{precision}")).exists():
            store.load(path)  # a damaged record is no record
    workers = workers or processes(device)
    at_once = at_once or (8 if device.type == "cuda" else 1)
    if out is not None:
        if Path(out).exists() and not Path(out).is_dir():
            raise TrmError(f"--out {out} is a file; name a folder")
        Path(out).mkdir(parents=True, exist_ok=True)
    job = {"profile": profile, "hashes": [r.spec.hash for r in todo], "device": str(device), "precision": precision, "at_once": at_once,
           "budget": None if budget is None else max(0.0, budget - RESERVE), "compiled": compiled, "root": str(store.root), "cache": str(store.cache)}  # fmt: skip
    deadline, before = math.inf if budget is None else time.monotonic() + job["budget"], evaluation_files(store)
    keys, problems = ([], []) if not todo else supervise(job, min(workers, math.ceil(len(todo) / at_once)), todo, quiet)
    try:
        evaluate(store, patterns, profile, device, precision, deadline, quiet, workers)
    except TrmError as e:
        problems.append(e)
    finally:  # what is recorded is packed all the same
        if out is not None:
            pack(store, keys, evaluation_files(store) - before, out)
    if problems:
        raise problems[0]
    return keys


def processes(device):
    """How many are best: one a CPU core, one for a GPU."""
    return 1 if device.type == "cuda" else os.cpu_count()


def evaluation_files(store):
    return set(store.root.glob("*/evaluations/*.json"))


def supervise(job, workers, todo, quiet):
    """Start the workers, show their progress, collect the keys they recorded and the errors they met."""
    threads = 1 if job["device"] == "cpu" else max(1, os.cpu_count() // workers)  # two are no faster, and far slower on a busy CPU
    env = {**ALLOCATOR, **os.environ, "OMP_NUM_THREADS": str(threads), **({"TQDM_DISABLE": "1"} if quiet else {})}
    command = [sys.executable, "-m", "trmlib.queue"]
    total = sum(r.spec.train.steps for r in todo)
    steps, keys, problems, lock = {}, [], [], threading.Lock()
    bar = tqdm(total=total, unit="step", unit_scale=True, disable=quiet, file=sys.stdout, mininterval=1, smoothing=0.1)

    def listen(process):
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # something that is not Python printed it
                sys.stderr.write(line)
                continue
            with lock:
                if event["event"] == "step":
                    before = steps.get(event["hash"])
                    steps[event["hash"]] = event["step"]
                    seeds = len(event["seeds"])
                    if before is None:  # what a checkpoint brought is not this drain's work
                        bar.total -= event["step"] * seeds
                    else:
                        bar.update((event["step"] - before) * seeds)
                    bar.set_postfix_str(f"{event['arm']} seed {','.join(map(str, event['seeds']))}", refresh=False)
                elif event["event"] == "error":
                    problems.append(TrmError(event["message"], event["code"]))
                else:
                    keys.append(event["key"])
                    if event["event"] == "failed":
                        bar.write(f"{event['arm']} seed {event['seed']} failed: {event['reason']} (recorded)", file=sys.stdout)

    processes = [
        subprocess.Popen([*command, json.dumps(job)], stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
        for _ in range(workers)
    ]
    listeners = [threading.Thread(target=listen, args=(p,), daemon=True) for p in processes]
    try:
        for t in listeners:
            t.start()
        for p, t in zip(processes, listeners, strict=True):
            p.wait()
            t.join()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{len(keys)} runs were recorded; the others go on from their checkpoints with the next `trm run`"
        ) from None
    finally:
        for p in processes:
            p.kill()
            p.wait()
        bar.close()
    crashed = [p.returncode for p in processes if p.returncode not in (0, 2, 74)]
    if crashed and not problems:
        remedy = "`trm run` again goes on from its checkpoint" if crashed[0] < 0 else "the error above says of what"
        problems.append(TrmError(f"a worker died (exit status {crashed[0]}); {remedy}", 1))
    return keys, problems


def worker_main(job):
    """Entry of a worker process: one JSON event a line on standard output. What a task prints goes to the standard error."""
    events = sys.stdout

    def tell(**event):
        print(json.dumps(event), file=events, flush=True)

    store, device = Store(job["root"], job["cache"]), torch_device(job["device"])
    deadline = math.inf if job["budget"] is None else time.monotonic() + job["budget"]
    wanted = set(job["hashes"])
    try:
        runs = [r for r in select(job["profile"]) if r.spec.hash in wanted]
        with redirect_stdout(sys.stderr):
            work(runs, store, device, job["precision"], job["at_once"], deadline, tell, job.get("compiled", "no"))
    except TrmError as e:
        tell(event="error", message=str(e), code=e.code)
        return e.code
    except OSError as e:
        tell(event="error", message=f"cannot use {e.filename or store.cache}: {e.strerror}; nothing recorded was lost", code=74)
        return 74
    return 0


# ---------------------------------------------------------------- between machines


def pack(store, keys, evaluations, out):
    """Write records.zip (the given keys and evaluation files) and checkpoints.zip.1of3 … (what is under way) into the folder `out`.

    Records packed there before are kept: the next pack is records-2.zip."""
    out, records = Path(out), io.BytesIO()
    with zipfile.ZipFile(records, "w", zipfile.ZIP_DEFLATED) as z:
        for path in sorted(store.root.glob("*/*.json")):
            if path.stem in set(keys):
                z.write(path, f"records/{path.parent.name}/{path.name}")
        for path in sorted(evaluations):
            z.write(path, f"evaluations/{path.parents[1].name}/{path.name}")
    names = (out / f"records{number}.zip" for number in chain([""], (f"-{i}" for i in count(2))))
    write_atomically(next(n for n in names if not n.exists()), records.getvalue())
    chosen, size = [], 0
    for path in sorted((store.cache / "checkpoints").glob("*.safetensors"), key=os.path.getmtime, reverse=True):
        if size + path.stat().st_size <= PACKED_CHECKPOINTS:
            chosen, size = [*chosen, path], size + path.stat().st_size
    if chosen:
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as z:
            for path in chosen:
                z.write(path, f"checkpoints/{path.name}")
        whole = whole.getvalue()
        n = math.ceil(len(whole) / PART)
        for i in range(n):
            write_atomically(out / f"checkpoints.zip.{i + 1}of{n}", whole[i * PART : (i + 1) * PART])


def add(files, store):
    """Merge what another machine brought: records.zip, single records and evaluations, all parts of a checkpoints.zip.
    Returns {"added": [...], "known": [...], "refused": [reasons]}. Nothing in a file is trusted: names are
    matched, sizes bounded, contents checked, and the store alone decides where a thing is written."""
    result = {"added": [], "known": [], "refused": []}
    for name, data in contents(files, result["refused"]):
        try:
            record = re.fullmatch(r"records/([a-z0-9_-]+)/[^/]+\.json", name)
            evaluation = re.fullmatch(r"evaluations/[a-z0-9_-]+/[^/]+\.json", name)
            checkpoint = re.fullmatch(rf"checkpoints/({KEY.pattern})\.safetensors", name)
            if record:
                new = store.add(checked(parse_record, data, name))
            elif evaluation:
                new = store.add_evaluation(checked(parse_evaluation, data, name))
            elif checkpoint:
                new = add_checkpoint(store, checkpoint[1], data)
            else:
                raise TrmError(f"{name}: neither a record nor a checkpoint of a pack; not taken")
            result["added" if new else "known"].append(name)
        except TrmError as e:
            if e.code == 74:  # a full disk is no fault of the file
                raise
            result["refused"].append(str(e))
    return result


def contents(files, refused):
    """(name, bytes) of everything in the given files, sizes bounded; why a file is not read is added to `refused`."""
    parts = {}
    for file in map(Path, files):
        part = re.fullmatch(r"checkpoints\.zip\.(\d{1,3})of(\d{1,3})", file.name)
        try:
            if file.stat().st_size > LARGEST_CHECKPOINT:
                raise TrmError(f"{file} is larger than any pack; not read")
            data = file.read_bytes()
            if part:
                parts.setdefault((file.parent, int(part[2])), {})[int(part[1])] = data
            elif file.suffix == ".json":
                kind = "evaluations" if b'"runs":' in data else "records"
                yield f"{kind}/single/{file.name}", data
            else:
                yield from unzip(file.name, data)
        except TrmError as e:
            refused.append(str(e))
        except OSError as e:
            refused.append(f"cannot read {file}: {e.strerror}")
    for (folder, n), found in parts.items():
        missing = [f"checkpoints.zip.{i}of{n}" for i in range(1, n + 1) if i not in found]
        try:
            if missing:
                raise TrmError(f"parts of a pack in {folder} are missing: {', '.join(missing)}; give all of them at once")
            yield from unzip("checkpoints.zip", b"".join(found[i] for i in range(1, n + 1)))
        except TrmError as e:
            refused.append(str(e))


def unzip(name, data):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            entries = z.infolist()
            if len(entries) > 10_000 or sum(e.file_size for e in entries) > 2 * LARGEST_CHECKPOINT:
                raise TrmError(f"{name} unpacks to more than any pack holds; not read")
            for entry in entries:
                limit = LARGEST_RECORD if entry.filename.endswith(".json") else LARGEST_CHECKPOINT
                with z.open(entry) as f:  # read no more than allowed, whatever the header says
                    content = f.read(limit + 1)
                if len(content) > limit:
                    raise TrmError(f"{name}: {entry.filename} is larger than {limit} bytes; not read")
                yield entry.filename, content
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, zipfile.zlib.error, lzma.LZMAError) as e:
        raise TrmError(f"{name} is not a whole zip archive ({e}); copy it again") from None


def checked(parse, data, name):
    """The record or evaluation in the bytes, if it is whole and its experiment is one of ours."""
    try:
        record = parse(data.decode("utf-8", "replace"), name)
    except (KeyError, ValueError, RecursionError) as e:
        raise TrmError(f"record {name} is not of the known form ({type(e).__name__}: {e}); not taken") from None
    if record["experiment"] not in EXPERIMENTS:
        raise TrmError(f"{name}: unknown experiment {record['experiment']!r}; update trmlib or drop it")
    return record


def add_checkpoint(store, key, data):
    """Take a checkpoint unless the run is recorded or a more advanced checkpoint lies here."""
    path = store.checkpoint(key)
    arrived = path.with_name(f".{path.name}.arrived")
    write_atomically(arrived, data)
    try:
        here = steps_done(path) if path.exists() else -1
        if any(store.root.glob(f"*/{key}.json")) or steps_done(arrived) <= here:
            return False
        os.replace(arrived, path)
        return True
    finally:
        arrived.unlink(missing_ok=True)


def steps_done(path):
    try:
        with safe_open(path, "pt") as f:
            return int(json.loads(f.metadata()["trm"])["done"])
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as e:
        raise TrmError(f"checkpoint {path.name} is damaged ({e}); not taken") from None


if __name__ == "__main__":
    sys.exit(worker_main(json.loads(sys.argv[1])))
