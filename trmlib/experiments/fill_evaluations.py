"""New measures of models that were trained on a language of `data.synthetic`."""

import numpy as np
import torch

from trmlib.evaluate import score_blanks
from trmlib.experiments.fill import TEST_PASSES, FillTask
from trmlib.probe import alignment

MORE_PASSES = 32  # enough for a model that was trained with up to 15 of them
OPENED = ("8 passes", "4 passes, within reach", "4 passes")  # arms of hops that are asked which pass reads which pointer


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


@torch.inference_mode()
def pointers(task, model, rows=32):
    """Which pass reads which pointer of hops? Some passes are made, then the chains exchange their tails at a hop (`Hops.exchanged`), and the state goes
    on to the last pass. For the longest way of training with as many passes as there ("trained"), and for the longest of all with 32 ("longest"):
    of how many questions "asked" all passes in one window name its end, before the exchange ("right") and for each hop in both windows ("solved", (k,)); and
    how many of those solved then name the "old" and the "new" end, each (k + 1, k), passes before the exchange by hop."""
    lang, own, found = task.language, task.spec.model.passes, {}
    for name, k, passes in (("trained", max(lang.trained), own), ("longest", lang.length, max(MORE_PASSES, own))):
        window, _ = lang.test(lang.groups.index(k), rows)
        tokens, at, ends = task.tensors(window).values()
        states = [model(tokens, at, passes=j, hand_on=True)[1] for j in range(min(k, passes) + 1)]
        right = model(tokens, at, passes=passes).argmax(-1) == ends
        old, new = np.zeros((2, len(states), k), int)
        for hop in range(1, k + 1):
            others, _, other_ends = task.tensors(lang.exchanged(window, lang.groups.index(k), hop)).values()
            for j, state in enumerate(states):  # before the first pass there is no state but the start's own
                said = model(others, at, passes=passes - j, carry=state if j else None).argmax(-1)
                if j == 0:
                    solved = right & (said == other_ends)
                old[j, hop - 1], new[j, hop - 1] = (int((solved & (said == e)).sum()) for e in (ends, other_ends))
        found[name] = {"k": k, "passes": passes, "asked": ends.numel(), "right": int(right.sum()), "solved": new[0].copy(), "old": old, "new": new}
    return found


SINGLE = {"alignment": alignments, "longer": longer, "pointers": pointers}
GROUPED = {}
GROUP_SEEDS = ()


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    c = spec.model
    if spec.experiment != "hops" or not c.passes or not c.tied:
        return []
    # without its question a start from elsewhere means nothing
    return ["longer", *(["alignment"] if c.rereads else []), *(["pointers"] if arm in OPENED else [])]


def load_model(task, tensors):
    """The model with saved weights."""
    model = FillTask.model(task)
    model.load_state_dict(tensors)
    return model.to(task.device).eval()
