"""The experiments of the report. To add one: a module with NAME, grid(profile) and Task, named below."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module

from trmlib.errors import TrmError

EXPERIMENTS = ("shakespeare", "masked", "autoregressive", "capacity", "dial", "hops", "sudoku")
PROFILES = ("smoke", "cpu", "full")


def module(experiment):
    """The module of an experiment by its name."""
    if experiment not in EXPERIMENTS:
        raise TrmError(f"unknown experiment {experiment!r}; known: {', '.join(EXPERIMENTS)}")
    return import_module(f"trmlib.experiments.{experiment}")


@cache  # reports ask often
def grid(profile):
    """Every run of every experiment at a profile, the most wanted first."""
    if profile not in PROFILES:
        raise TrmError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    runs = [r for name in EXPERIMENTS for r in module(name).grid(profile)]
    return tuple(sorted(runs, key=lambda r: r.priority))


def select(profile, patterns=(), seeds=None):
    """Runs of a profile whose experiment, arm, "experiment/arm" or hash matches one of the patterns
    (shell wildcards; none: all), and whose seed is among `seeds` (None: all)."""
    from fnmatch import fnmatchcase

    runs = grid(profile)
    for pattern in patterns:
        if not any(matches(r, pattern, fnmatchcase) for r in runs):
            like = get_close_matches(pattern, {n for r in runs for n in (r.arm, f"{r.spec.experiment}/{r.arm}")}, 3, 0.4)
            meant = f"did you mean {', '.join(like)}? " if like else ""
            raise TrmError(f"no run of profile {profile} matches {pattern!r}; {meant}`trm list --profile {profile}` names all")
    runs = [r for r in runs if not patterns or any(matches(r, p, fnmatchcase) for p in patterns)]
    missing = set(seeds or ()) - {r.spec.seed for r in runs}
    if missing:
        raise TrmError(f"no matching run has seed {', '.join(map(str, sorted(missing)))}")
    return [r for r in runs if seeds is None or r.spec.seed in seeds]


def affordable(runs, device):
    """The runs without those that only a GPU can train in reasonable time, unless there is one."""
    return [r for r in runs if device.type != "cpu" or r.profile not in getattr(module(r.spec.experiment), "NEEDS_GPU", ())]


def matches(run, pattern, fnmatch):
    names = (run.spec.experiment, run.arm, f"{run.spec.experiment}/{run.arm}", run.spec.hash)
    return any(fnmatch(name, pattern) for name in names)
