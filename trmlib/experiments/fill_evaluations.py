"""New measures of models that were trained on a language of `data.synthetic`."""

from trmlib.experiments.fill import TEST_PASSES, FillTask
from trmlib.probe import alignment


def alignments(task, model):
    """Asymptotic alignment after 16 passes for each group (k): {"same", "between", "alignment"}, each (groups,)."""
    found = []
    for batch, _ in task.tests:

        def solve(start, batch=batch):
            return model(batch["tokens"], batch["at"], passes=TEST_PASSES, carry=start, hand_on=True)[1]

        found.append(alignment(solve)[0])
    return {name: [f[name] for f in found] for name in found[0]}


SINGLE = {"alignment": alignments}
GROUPED = {}
GROUP_SEEDS = ()


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    return ["alignment"] if spec.experiment == "hops" and spec.model.passes and spec.model.tied else []


def load_model(task, tensors):
    """The model with saved weights."""
    model = FillTask.model(task)
    model.load_state_dict(tensors)
    return model.to(task.device).eval()
