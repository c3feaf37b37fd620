"""Measure trained weights anew: every evaluation that an experiment wants and whose weights lie in the cache."""

import math
import sys
import time
from contextlib import contextmanager
from textwrap import shorten
from traceback import extract_tb

from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm

from trmlib.errors import TrmError
from trmlib.experiments import module, select
from trmlib.runs import device_info, torch_device


def evaluate(store, patterns=(), profile="full", device="auto", precision="fp32", deadline=math.inf, quiet=False):
    """Add the missing evaluation records; returns (number added, names of those whose weights are not here).
    None is begun after the deadline (time.monotonic)."""
    device, groups = torch_device(str(device)), {}
    kind = device_info(device)["kind"]
    for run in select(profile, patterns):
        groups.setdefault((run.spec.experiment, run.arm), []).append(run)
    jobs, missing, added = [], [], 0
    for (experiment, arm), runs in groups.items():
        m = module(experiment).evaluations
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
                here = all(store.weights(k).exists() for k in keys)
                (jobs if here else missing).append((experiment, name, members, keys))
    for experiment, name, members, keys in tqdm(jobs, desc="evaluations", disable=quiet or not jobs, file=sys.stdout):
        if time.monotonic() > deadline:
            break
        with told(f"evaluation {name} of {experiment}/{members[0].arm}"):
            m, task = module(experiment).evaluations, module(experiment).Task(members[0].spec, device)
            models = [loaded(m, task, store.weights(k)) for k in keys]
            result = m.SINGLE[name](task, models[0]) if name in m.SINGLE else m.GROUPED[name](task, models)
            store.add_evaluation({"experiment": experiment, "name": name, "runs": keys, "result": result})
        added += 1
    return added, [f"{experiment}/{members[0].arm}: {name}" for experiment, name, members, _ in missing]


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
