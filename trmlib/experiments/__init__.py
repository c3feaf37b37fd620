"""The experiments of the report. To add one: a module, named below, with

NAME                its name
SEEDS               those of an arm at full length: an arm is complete, and compared, with as many
grid(profile)       its runs (`runs.Run`) at a profile, which may be none; no two of them with equal specs
build(spec)         a fresh model of a spec
Task                its data, loss and scores (`train.Task`); comparisons are of the metric `nll_b` unless another is named. A recorded run, failed or not, is
                    not trained again, for its code is not part of its spec: remove its record, or change the spec
evaluations         new measures of trained weights, a module or any object with
    wanted(arm, spec)           names of the measures that an arm takes part in; [] for none
    SINGLE, GROUPED             {name: function(task, model)} of one run, {name: function(task, models)} of several seeds of an arm; what
                                they return is recorded: a dict of numbers, arrays, lists, texts and dicts of these
    GROUP_SEEDS                 the seeds that GROUPED takes
    OF_DATA                     names of those of GROUPED that ask no model, if there are any: they get [] for models and need a record, not weights
    load_model(task, tensors)   the task's model with saved parameters {name: tensor}, in evaluation mode
"""

from difflib import get_close_matches
from functools import cache
from importlib import import_module

from trmlib.errors import TrmError

EXPERIMENTS = ("shakespeare", "masked", "autoregressive", "capacity", "dial", "hops", "sudoku")
PROFILES = ("smoke", "cpu", "full")
NEEDED = ("NAME", "SEEDS", "grid", "build", "Task", "evaluations")
MEASURES = ("wanted", "SINGLE", "GROUPED", "GROUP_SEEDS", "load_model")  # of its evaluations


def module(experiment):
    """The module of an experiment by its name."""
    if experiment not in EXPERIMENTS:
        raise TrmError(f"unknown experiment {experiment!r}; known: {', '.join(EXPERIMENTS)}")
    found = import_module(f"trmlib.experiments.{experiment}")
    lacks = [n for n in NEEDED if not hasattr(found, n)] or [f"evaluations.{n}" for n in MEASURES if not hasattr(found.evaluations, n)]
    if lacks:
        raise TrmError(f"experiment {experiment} has no {', '.join(lacks)}; trmlib/experiments/__init__.py says what one needs")
    return found


@cache  # reports ask often
def grid(profile):
    """Every run of every experiment at a profile, the most wanted first."""
    if profile not in PROFILES:
        raise TrmError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    runs, named = [r for name in EXPERIMENTS for r in module(name).grid(profile)], {}
    for r in runs:
        first = named.setdefault(r.spec.hash, r)
        if first is not r:
            raise TrmError(
                f"arms {first.arm!r} and {r.arm!r} of {r.spec.experiment} are the same run at profile {profile}, which may set widths and heads of its own; "
                "change another field of one, or drop it"
            )
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
