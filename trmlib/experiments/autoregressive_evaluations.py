"""New measures of trained left-to-right models: evaluations of old weights, each a record of its own."""

from trmlib.evaluate import score_chunks
from trmlib.experiments.capacity_evaluations import GROUP_SEEDS, GROUPED, leak_probe, load_model  # noqa: F401, the same here

TEST_PASSES = 8


def passes(task, model):
    """NLL on part B after 0 … 8 passes, more than were trained: (9,)."""
    return {"nll_b": score_chunks(model, task.tokens, TEST_PASSES, every_pass=True)[0][:, task.in_b].mean((1, 2))}


SINGLE = {"leak_probe": leak_probe, "passes": passes}  # of one run


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    if " (" in arm:
        return ["leak_probe"] if spec.model.start == "target" else []
    return ["leak_probe"] + (["passes"] if spec.model.start == "shifted" and spec.model.T > 1 else [])
