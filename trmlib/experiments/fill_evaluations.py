"""New measures of models that were trained on a language of `data.synthetic`."""

import numpy as np

from trmlib.evaluate import score_blanks
from trmlib.experiments.fill import TEST_PASSES, FillTask
from trmlib.probe import alignment

MORE_PASSES = 32  # enough for a model that was trained with up to 15 of them


def alignments(task, model):
    """Asymptotic alignment after 16 passes for each group (k): {"same", "between", "alignment"}, each (groups,)."""
    found = []
    for batch, _ in task.tests:

        def solve(start, batch=batch):
            return model(batch["tokens"], batch["at"], passes=TEST_PASSES, carry=start, hand_on=True)[1]

        found.append(alignment(solve)[0])
    return {name: [f[name] for f in found] for name in found[0]}


def longer(task, model):
    """NLL and accuracy after 0 … 32 passes, each (passes + 1, groups), on the windows of the record."""
    scores = [[s.mean(2) @ weights for s in score_blanks(model, t, MORE_PASSES, every_pass=True)] for t, weights in task.tests]
    nll, accuracy = np.array(scores).transpose(1, 2, 0)
    return {"nll": nll, "accuracy": accuracy}


SINGLE = {"alignment": alignments, "longer": longer}
GROUPED = {}
GROUP_SEEDS = ()


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    c = spec.model
    if spec.experiment != "hops" or not c.passes or not c.tied:
        return []
    return ["longer", "alignment"] if c.rereads else ["longer"]  # without its question a start from elsewhere means nothing


def load_model(task, tensors):
    """The model with saved weights."""
    model = FillTask.model(task)
    model.load_state_dict(tensors)
    return model.to(task.device).eval()
