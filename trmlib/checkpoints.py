"""Small trained models that are committed under data/checkpoints/, for those who want to use one without training it."""

import json
from textwrap import shorten

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trmlib.data.sequences import Characters, SequenceConfig, ids
from trmlib.errors import TrmError
from trmlib.experiments import PROFILES, grid, module
from trmlib.models.chunk import ChunkLM
from trmlib.reevaluate import loaded, weights
from trmlib.runs import NAME, REPOSITORY, Spec, write_atomically

FOLDER = REPOSITORY / "data" / "checkpoints"


def keep(store, key, name):
    """Copy a run's trained weights from the cache into data/checkpoints/`name`.safetensors, with what the run is; returns the path.
    The weights of another run are never overwritten."""
    if not NAME.fullmatch(name):
        raise TrmError(f"{name!r} cannot name a checkpoint; use a-z, 0-9, _ and -")
    path, target = store.weights(key), FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise TrmError(f"the weights of run {key} are not in the cache ({path}); train it here first (`trm run`)")
    record = next((r for k, r in store.records().items() if k == key), None)
    if record is None:
        raise TrmError(f"run {key} has no record; `trm list` names the runs")
    about = {k: record[k] for k in ("hash", "experiment", "arm", "profile", "seed", "metrics", "steps", "spec")}
    if target.exists() and any((held := load(name)[2])[k] != about[k] for k in ("hash", "metrics")):
        raise TrmError(f"{target} holds {held['experiment']}/{held['arm']}/{held['seed']} (run {held['hash']}); choose another name")
    m = module(record["experiment"])
    task = m.Task(run_of(record["hash"]).spec)
    loaded(m.evaluations, task, path)  # weights that do not fit are refused
    if words := getattr(task, "vocab", None):
        about["words"] = list(words)  # a model of words says nothing without them
    elif isinstance(text := getattr(task, "text", None), Characters):  # nor one of characters; and it reads something before a short prompt
        about |= {"words": list(text.table), "before": text.decode(text.validation[: task.config.context])}
    write_atomically(target, save(weights(path), {"trm": json.dumps(about)}))
    return target


def run_of(name):
    """The run of a hash, from whatever grid has it."""
    run = next((r for p in PROFILES for r in grid(p) if r.spec.hash == name), None)
    if run is None:
        raise TrmError(f"no grid knows the run {name}; keep a checkpoint of another one")
    return run


def spec_of(about):
    """The spec of a kept run, which no grid need have any more: the fields that were kept, in configs of the kinds that its experiment has."""
    if "spec" not in about:
        return run_of(about["hash"]).spec
    like, fields = next(r.spec for p in PROFILES for r in module(about["experiment"]).grid(p)), about["spec"]
    tuples = lambda values: {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}  # noqa: E731
    parts = {k: type(getattr(like, k))(**tuples(fields[k])) for k in ("model", "data", "train")}
    return Spec(about["experiment"], **parts, seed=about["seed"])


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
        spec = spec_of(about)
        torch.manual_seed(0)
        model = build(spec, about)
        model.load_state_dict(tensors)
    except (SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError, StopIteration) as e:
        raise TrmError(f"checkpoint {path} is damaged ({shorten(str(e), 200)}); restore it (git checkout)") from None
    except TrmError as e:
        raise TrmError(f"checkpoint {path}: {e}", e.code) from None
    return model.eval(), spec, about


def build(spec, about):
    """A fresh model of a spec; one of characters knows how many from what was kept with it, not from the corpus."""
    if isinstance(spec.data, SequenceConfig):
        return ChunkLM(spec.model, len(about["words"]), spec.data.context, spec.data.chunk)
    return module(spec.experiment).build(spec)


def characters(about):
    """What a kept model of characters needs of its corpus."""
    table, none = tuple(about["words"]), ids("", ())
    return Characters(table, (), none, ids(about["before"], table), none, {})
