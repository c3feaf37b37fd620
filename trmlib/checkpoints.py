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
    if words := getattr(module(record["experiment"]).Task(run_of(record["hash"]).spec), "vocab", None):
        about["words"] = list(words)  # a model of words says nothing without them
    write_atomically(target, save(load_file(path), {"trm": json.dumps(about)}))
    return target


def run_of(name):
    """The run of a hash, from whatever grid has it."""
    run = next((r for p in PROFILES for r in grid(p) if r.spec.hash == name), None)
    if run is None:
        raise TrmError(f"no grid knows the run {name}; keep a checkpoint of another one")
    return run


def names():
    """Names of the kept checkpoints."""
    return sorted(p.stem for p in FOLDER.glob("*.safetensors"))


def load(name):
    """(model in evaluation mode, spec, what is known of the run) of a kept checkpoint."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise TrmError(f"no checkpoint {path}; `trm keep RUN {name}` makes it of a trained run")
    try:
        with safe_open(path, "pt") as f:
            about = json.loads(f.metadata()["trm"])
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        run = run_of(about["hash"])
        torch.manual_seed(0)
        model = module(run.spec.experiment).build(run.spec)
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise TrmError(f"checkpoint {path} is damaged ({str(e).splitlines()[0]}); restore it (git checkout)") from None
    return model.eval(), run.spec, about
