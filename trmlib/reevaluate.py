"""Measure trained weights anew: every evaluation that an experiment wants and whose weights, if it asks any, lie in the cache."""

import math
import multiprocessing
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import partial
from textwrap import shorten
from traceback import extract_tb

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm

from trmlib.errors import TrmError
from trmlib.experiments import module, select
from trmlib.runs import device_info, torch_device


def evaluate(store, patterns=(), profile="full", device="auto", precision="fp32", deadline=math.inf, quiet=False, workers=1):
    """Add the missing evaluation records; returns (number added, names of those whose weights are not here).
    None is begun after the deadline (time.monotonic). Several `workers` are processes of one thread each."""
    device, groups = torch_device(str(device)), {}
    kind = device_info(device)["kind"]
    for run in select(profile, patterns):
        groups.setdefault((run.spec.experiment, run.arm), []).append(run)
    jobs, missing = [], []
    for (experiment, arm), runs in groups.items():
        m = module(experiment).evaluations
        of_data = getattr(m, "OF_DATA", ())
        key = {r.spec: f"{r.spec.hash}.{kind}.{precision}" for r in runs}
        with told(f"evaluations.wanted of {experiment}/{arm}"):
            names = m.wanted(arm, runs[0].spec)
            if unknown := set(names) - {*m.SINGLE, *m.GROUPED}:
                raise TrmError(
                    f"evaluations.wanted of {experiment}/{arm} names {', '.join(sorted(unknown))}, in neither SINGLE nor GROUPED"
                )
        for name in names:
            for members in [[r] for r in runs] if name in m.SINGLE else [[r for r in runs if r.spec.seed in m.GROUP_SEEDS]]:
                keys = [key[r.spec] for r in members]
                if not keys or store.evaluated(experiment, name, keys):
                    continue
                if name in of_data:  # no weights are asked: one record says that the numbers are of use
                    here = any(store.path(experiment, k).exists() for k in keys)
                else:
                    here = all(store.weights(k).exists() for k in keys)
                (jobs if here else missing).append((experiment, name, members, keys))
    added, workers = 0, min(workers, len(jobs))
    bar = tqdm(total=len(jobs), desc="evaluations", disable=quiet or not jobs, file=sys.stdout)
    with bar, several(workers) if workers > 1 else nullcontext(map) as apply:
        for done in apply(partial(measure, store, device, deadline), jobs):
            added += done
            bar.update()
    return added, [f"{experiment}/{members[0].arm}: {name}" for experiment, name, members, _ in missing]


def measure(store, device, deadline, job):
    """Record one evaluation; False if the deadline has come."""
    if time.monotonic() > deadline:
        return False
    experiment, name, members, keys = job
    with told(f"evaluation {name} of {experiment}/{members[0].arm}"):
        m, task = module(experiment).evaluations, module(experiment).Task(members[0].spec, device)
        models = [] if name in getattr(m, "OF_DATA", ()) else [loaded(m, task, store.weights(k)) for k in keys]
        result = m.SINGLE[name](task, models[0]) if name in m.SINGLE else m.GROUPED[name](task, models)
        store.add_evaluation({"experiment": experiment, "name": name, "runs": keys, "result": result})
    return True


@contextmanager
def several(workers):
    """A `map` over processes, whose results come as they are ready. What ends it early ends the processes."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), alone)

    def apply(function, jobs):
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()

    try:
        yield apply
    except BaseException as e:
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(e, BrokenProcessPool):
            raise TrmError("a process that evaluated died (out of memory?); `trm evaluate --workers 1` goes on", 1) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def alone():
    """Start of a process of `several`: one thread, and an interrupt is its parent's to handle."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own, between processes, would be left behind by one that is ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def weights(path):
    try:
        return load_file(path)
    except (SafetensorError, OSError) as e:
        raise TrmError(f"weights {path} are damaged ({e}); delete the file (the run must be trained again to be evaluated)") from None


def loaded(evaluations, task, path):
    """The task's model with the weights of a file."""
    tensors = weights(path)
    try:
        return evaluations.load_model(task, tensors)
    except (RuntimeError, KeyError) as e:
        raise TrmError(f"weights {path} do not fit the model of their run ({shorten(str(e), 200)}); delete the file") from None


@contextmanager
def told(what):
    """What goes wrong in an experiment's own code, in one line that says where."""
    try:
        yield
    except (TrmError, OSError):
        raise
    except Exception as e:
        frames = extract_tb(e.__traceback__)
        at = next((f for f in frames if f.filename != __file__), frames[-1])
        raise TrmError(
            f"{what} failed ({shorten(f'{type(e).__name__}: {e}', 200)}; {at.filename}, line {at.lineno}); mend it, then `trm evaluate`", 1
        ) from e
