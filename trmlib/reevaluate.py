"""Measure trained weights anew: every evaluation that an experiment wants and whose weights lie in the cache."""

import math
import sys
import time

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
        for name in m.wanted(arm, runs[0].spec):
            for members in [[r] for r in runs] if name in m.SINGLE else [[r for r in runs if r.spec.seed in m.GROUP_SEEDS]]:
                keys = [key[r.spec] for r in members]
                if store.evaluation_path(experiment, name, keys).exists():
                    continue
                here = all(store.weights(k).exists() for k in keys)
                (jobs if here else missing).append((experiment, name, members, keys))
    for experiment, name, members, keys in tqdm(jobs, desc="evaluations", disable=quiet or not jobs, file=sys.stdout):
        if time.monotonic() > deadline:
            break
        m, task = module(experiment).evaluations, module(experiment).Task(members[0].spec, device)
        models = [m.load_model(task, weights(store.weights(k))) for k in keys]
        result = m.SINGLE[name](task, models[0]) if name in m.SINGLE else m.GROUPED[name](task, models)
        store.add_evaluation({"experiment": experiment, "name": name, "runs": keys, "result": result})
        added += 1
    return added, [f"{experiment}/{members[0].arm}: {name}" for experiment, name, members, _ in missing]


def weights(path):
    try:
        return load_file(path)
    except (SafetensorError, OSError) as e:
        raise TrmError(f"weights {path} are damaged ({e}); delete the file (the run must be trained again to be evaluated)") from None
