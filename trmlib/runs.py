"""A run is a frozen spec; its hash names its record; the records are the report's only source of numbers.

A record is one small JSON file under `data/results/<experiment>/`. It carries a digest of itself, so
that a truncated or edited file is noticed, and it is never overwritten. The same spec on another kind
of device or in another precision is a replicate: another file.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch

from trmlib.errors import TrmError, check

SCHEMA = 1
REPOSITORY = Path(__file__).resolve().parents[1]
STATUSES = ("recorded", "failed")
FIELDS = {
    "schema": int, "hash": str, "status": str, "reason": str, "experiment": str, "arm": str, "profile": str, "seed": int, "spec": dict,
    "steps": int, "metrics": dict, "curve": dict, "detail": dict, "parameters": int, "train_flops": int, "inference_flops": int,
    "serial_depth": int, "seconds": float, "device": dict, "precision": str, "mode": dict, "versions": dict, "commit": str,
    "data": dict, "digest": str,
}  # fmt: skip
EVALUATION_FIELDS = {
    "schema": int, "name": str, "experiment": str, "runs": list, "result": dict, "versions": dict, "commit": str, "digest": str,
}  # fmt: skip
KEY = re.compile(r"[0-9a-f]{16}\.[a-z0-9-]+\.[a-z0-9]+")
NAME = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int = 20_000  # optimiser steps
    batch: int = 32  # examples a step
    lr: float = 3e-4  # learning rate after warm-up
    warmup: int = 0  # steps of linear warm-up
    weight_decay: float = 0.01  # decoupled
    beta2: float = 0.999  # second-moment decay; the first is 0.9
    clip: float = 1.0  # largest gradient norm; 0 for none
    n_sup: int = 1  # supervision steps a batch (N_sup), each with its own loss and optimiser step
    ema: float = 0.0  # decay of the averaged weights that are evaluated; 0 for none
    eval_every: int = 250  # steps between points of the curve; also the block that is drawn at once
    decay_to: float = 1.0  # share of lr left at the last step, reached on half a cosine from the warm-up's end; 1: constant
    forget_every: int = 0  # steps after which AdamW's moments are dropped, as by a resume that does not restore them; 0 for never
    weights: str = "fp32"  # what the weights themselves are rounded to after each step: fp32 (not at all), bf16 or fp16
    optimizer: str = "adamw"  # or muon: hidden matrices by Muon, all else by AdamW

    def __post_init__(self):
        check(
            self, steps="≥ 1", batch="≥ 1", lr="> 0", warmup="≥ 0", weight_decay="≥ 0", beta2="from 0 to below 1", clip="≥ 0", n_sup="≥ 1",
            ema="from 0 to below 1", eval_every="≥ 1", decay_to="from 0 to 1", forget_every="≥ 0", weights=("fp32", "bf16", "fp16"),
            optimizer=("adamw", "muon"),
        )  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """All that a run's numbers depend on, the machine apart."""

    experiment: str
    model: object  # frozen dataclass of the experiment
    data: object  # frozen dataclass of the experiment
    train: TrainConfig
    seed: int

    def __post_init__(self):
        check(self, seed="≥ 0")

    @cached_property  # asked for again and again when records are looked up
    def hash(self):
        return spec_hash(self.as_dict())

    def as_dict(self):
        """Only what differs from the defaults, so that a field added later changes no hash."""
        parts = {k: changed(getattr(self, k)) for k in ("model", "data", "train")}
        return {"experiment": self.experiment, "seed": self.seed, **parts}


@dataclass(frozen=True)
class Run:
    """A spec and its place in an experiment's grid."""

    spec: Spec
    arm: str
    profile: str
    priority: int  # smaller first


def spec_hash(spec):
    """The name of a run: a digest of `Spec.as_dict()`."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:16]


def group_key(specs, device_kind, precision):
    """Key of runs trained together; of a single run, the key of its record."""
    name = specs[0].hash if len(specs) == 1 else spec_hash([s.hash for s in specs])
    return f"{name}.{device_kind}.{precision}"


def canonical(value):
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def changed(config):
    """The fields of a dataclass that differ from their defaults."""
    return {f.name: v for f in dataclasses.fields(config) if (v := getattr(config, f.name)) != f.default}


def rounded(value, digits=7):
    """Numbers rounded to significant digits, arrays as lists, non-finite numbers as None: ready for JSON."""
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(v, digits) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def digest(record):
    """Digest of everything in a record but the digest itself."""
    return hashlib.sha256(canonical({k: v for k, v in record.items() if k != "digest"}).encode()).hexdigest()


def key_of(record):
    return f"{record['hash']}.{record['device'].get('kind', '?')}.{record['precision']}"


def write_atomically(path, data, new=False):
    """Write bytes so that the file is there whole or not at all; a full disk leaves nothing behind. Where it must be `new`, another process may
    have been first: returns False then, and touches nothing."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        if not new:
            os.replace(temporary, path)
            return True
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True
    except OSError as e:
        with suppress(OSError):
            temporary.unlink()
        remedy = "free some space and run again" if e.errno == errno.ENOSPC else "make that place writable and run again"
        raise TrmError(f"cannot write {path}: {e.strerror}; {remedy}, nothing recorded was lost", code=74) from None


def no_number(name):
    raise ValueError(f"{name} is no JSON number")


def parse(text, where, fields):
    """A record or evaluation from its text, or an error naming the file and what is wrong with it."""
    try:
        record = json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as e:
        raise TrmError(f"record {where} is truncated or not JSON ({e}); restore it (git checkout) or move it away") from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise TrmError(f"record {where} has no schema number; restore it (git checkout) or move it away")
    if record["schema"] > SCHEMA:
        raise TrmError(f"record {where} has schema {record['schema']}, this version reads up to {SCHEMA}; update trmlib")
    for name, kind in fields.items():
        if not isinstance(record.get(name), kind):
            raise TrmError(f"record {where}: field {name!r} is missing or not {kind.__name__}; restore it or move it away")
    if record["digest"] != digest(record):
        raise TrmError(f"record {where} was edited or damaged (its digest does not match); restore it (git checkout) or move it away")
    if not NAME.fullmatch(record["experiment"]):
        raise TrmError(f"record {where}: experiment {record['experiment']!r} is not of the known form")
    return record


@cache  # by the whole text: a report asks for the same records a hundred times. What it gives is read, never changed
def parse_record(text, where):
    """The record of a run, checked."""
    record = parse(text, where, FIELDS)
    if spec_hash(record["spec"]) != record["hash"]:
        raise TrmError(f"record {where}: its hash {record['hash']} is not that of its spec; restore it or move it away")
    if record["status"] not in STATUSES or not KEY.fullmatch(key_of(record)):
        raise TrmError(f"record {where}: status, hash or device is not of the known form")
    return record


@cache
def parse_evaluation(text, where):
    """An evaluation of trained weights, checked."""
    record = parse(text, where, EVALUATION_FIELDS)
    if not NAME.fullmatch(record["name"]) or not all(isinstance(k, str) and KEY.fullmatch(k) for k in record["runs"]):
        raise TrmError(f"record {where}: name or runs are not of the known form")
    return record


class Store:
    """Records and evaluations below `root`, caches (weights, checkpoints, locks) below `root/../cache`."""

    def __init__(self, root=None, cache=None):
        self.root = Path(root or os.environ.get("TRM_RESULTS") or REPOSITORY / "data" / "results")
        self.cache = Path(cache or os.environ.get("TRM_CACHE") or self.root.parent / "cache")

    def path(self, experiment, key):
        return self.root / experiment / f"{key}.json"

    def weights(self, key):
        return self.cache / "weights" / f"{key}.safetensors"

    def checkpoint(self, key):
        return self.cache / "checkpoints" / f"{key}.safetensors"

    def load(self, path):
        path = Path(path)
        record = parse_record(path.read_text(errors="replace"), path)
        if path.stem != key_of(record):
            raise TrmError(f"record {path} holds run {key_of(record)}; its name and content disagree")
        return record | self.corrections.get(path.stem, {})

    @cached_property
    def corrections(self):
        """{key of a record: the fields that are read in place of its own}. The record stays as it was written; CORRECTIONS.md says why."""
        path = self.root / "corrections.json"
        try:
            found = json.loads(path.read_text()) if path.exists() else {}
            if any(fields.keys() - FIELDS.keys() for fields in found.values()):
                raise ValueError("a field that records do not have")
        except (ValueError, AttributeError) as e:
            raise TrmError(f"{path} is damaged ({e}); restore it (git checkout)") from None
        return found

    def records(self, experiment="*"):
        """All records as {key: record}, every one checked."""
        return {key_of(r): r for r in map(self.load, sorted(self.root.glob(f"{experiment}/*.json")))}

    def add(self, record):
        """Write a new record; refuses to touch an existing one. Returns True if it was new."""
        record = rounded(record)
        record["digest"] = digest(record)
        path = self.path(record["experiment"], key_of(record))
        parse_record(canonical(record), path)
        if path.exists() or not write_atomically(path, (json.dumps(record, sort_keys=True, indent=1) + "\n").encode(), new=True):
            if same_result(self.load(path), record):
                return False
            raise TrmError(f"{path} already holds other numbers for run {key_of(record)}; nothing was overwritten")
        return True

    def evaluation_path(self, experiment, name, keys):
        return self.root / experiment / "evaluations" / f"{name}.{spec_hash(sorted(keys))}.json"

    def add_evaluation(self, record):
        """Write an evaluation {experiment, name, runs (keys), result}; as `add`, it never overwrites."""
        record = rounded({"schema": SCHEMA, **host(), **record}, digits=5)
        record["digest"] = digest(record)
        path = self.evaluation_path(record["experiment"], record["name"], record["runs"])
        parse_evaluation(canonical(record), path)
        if path.exists() or not write_atomically(path, (json.dumps(record, sort_keys=True) + "\n").encode(), new=True):
            if parse_evaluation(path.read_text(errors="replace"), path)["result"] == record["result"]:
                return False
            raise TrmError(f"{path} already holds other numbers; nothing was overwritten")
        return True

    def evaluated(self, experiment, name, keys):
        """Is there such an evaluation? A damaged one is an error, not an answer."""
        path = self.evaluation_path(experiment, name, keys)
        return path.exists() and bool(parse_evaluation(path.read_text(errors="replace"), path))

    def evaluations(self, experiment, name):
        """All evaluations of this name, every one checked."""
        paths = sorted(self.root.glob(f"{experiment}/evaluations/{name}.*.json"))
        return [parse_evaluation(p.read_text(errors="replace"), p) for p in paths]

    @contextmanager
    def lock(self, key):
        """Yields True while this process holds the run, False if another one does; a dead process holds nothing."""
        path = self.cache / "locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def same_result(a, b):
    """Do two records of one run hold the same numbers? (Time, host and versions may differ.)"""
    return all(a[k] == b[k] for k in ("status", "metrics", "curve", "detail", "steps", "spec", "parameters"))


@cache
def host():
    """Versions and commit, for the record."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        commit = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY).stdout.strip()
    except OSError:  # no git here
        commit = ""
    from trmlib import __version__

    versions = {"trmlib": __version__, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"versions": versions, "commit": commit or "unknown"}


def torch_device(name):
    """ "auto", "cpu", "cuda" … → torch.device, or a clear error."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as e:
        raise TrmError(f"device {name!r} cannot be used here ({str(e).splitlines()[0]}); try cpu or auto") from None
    return device


def device_info(device):
    """Kind (part of a record's key), name and threads of a torch device."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return {"kind": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), "name": name, "threads": torch.get_num_threads()}
    return {"kind": device.type, "name": cpu_name(), "threads": torch.get_num_threads()}


@cache
def cpu_name():
    try:
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
