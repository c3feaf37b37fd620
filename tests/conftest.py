"""What every test shares: one thread, no network, no settings of the machine."""

from dataclasses import replace

import pytest
import torch

from trmlib import experiments
from trmlib.experiments import masked
from trmlib.runs import Store

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("TRM_DATA", "TRM_RESULTS", "TRM_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(autouse=True)
def one_experiment(request, monkeypatch):
    """The machinery is tested on one experiment; a module that says `EXPERIMENTS = (...)` names its own."""
    monkeypatch.setattr(experiments, "EXPERIMENTS", getattr(request.module, "EXPERIMENTS", ("masked",)))
    experiments.grid.cache_clear()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def smoke_run(arm, model=None, data=None, seed=None, **train):
    """The first smoke run of an arm, with fields of its configs and its seed replaced."""
    run = next(r for r in masked.grid("smoke") if r.arm == arm)
    s = run.spec
    spec = replace(
        s,
        model=replace(s.model, **model or {}),
        data=replace(s.data, **data or {}),
        train=replace(s.train, **train),
        seed=s.seed if seed is None else seed,
    )
    return replace(run, spec=spec)
