"""Small trained models that are committed under data/checkpoints/, for those who want to use one without training it."""

import json

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from trmlib.errors import TrmError
from trmlib.experiments import PROFILES, grid, module
from trmlib.runs import REPOSITORY, write_atomically

FOLDER = REPOSITORY / "data" / "checkpoints"


def keep(store, key, name):
    """Copy a run's trained weights from the cache into data/checkpoints/`name`.safetensors, with what the run is; returns the path."""
    path, target = store.weights(key), FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise TrmError(f"the weights of run {key} are not in the cache ({path}); train it here first (`trm run`)")
    record = next((r for k, r in store.records().items() if k == key), None)
    if record is None:
        raise TrmError(f"run {key} has no record; `trm list` names the runs")
    about = {k: record[k] for k in ("hash", "experiment", "arm", "profile", "seed", "metrics", "steps")}
    write_atomically(target, save(load_file(path), {"trm": json.dumps(about)}))
    return target


def load(name):
    """(model in evaluation mode, spec, what is known of the run) of a kept checkpoint."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise TrmError(f"no checkpoint {path}; `trm keep RUN {name}` makes it of a trained run")
    try:
        with safe_open(path, "pt") as f:
            about = json.loads(f.metadata()["trm"])
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        run = next((r for p in PROFILES for r in grid(p) if r.spec.hash == about["hash"]), None)
        if run is None:
            raise TrmError(f"checkpoint {path} is of run {about['hash']}, which no grid knows; keep another one")
        torch.manual_seed(0)
        model = module(run.spec.experiment).build(run.spec)
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise TrmError(f"checkpoint {path} is damaged ({str(e).splitlines()[0]}); restore it (git checkout)") from None
    return model.eval(), run.spec, about
