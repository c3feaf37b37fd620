"""New measures of trained left-to-right models: evaluations of old weights, each a record of its own."""

import numpy as np

from trmlib.data.tokens import WORDS
from trmlib.evaluate import score_chunks
from trmlib.experiments.capacity_evaluations import GROUP_SEEDS, GROUPED, leak_probe, load_model, passes  # noqa: F401, the same here


def known(task, model):
    """NLL on part B of the targets that are words: neither the vocabulary's <UNK> nor the corpus's own <unk> nor a line's <EOS>; and the share
    of each of these among the targets."""
    targets, names = task.fixed.tokens[task.in_b][:, task.config.context :], task.tokeniser.names
    special = [w for w in (*WORDS[1:], "<unk>") if w in names]
    share = {w: float((targets == names.index(w)).mean()) for w in special}
    words = ~np.isin(targets, [names.index(w) for w in special])
    return {"share": share, "nll_b": score_chunks(model, task.tokens[task.in_b])[0][0][words].mean()}


SINGLE = {"leak_probe": leak_probe, "passes": passes, "known": known}  # of one run


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    if " (" in arm:
        return ["leak_probe"] if spec.model.start == "target" else []
    honest = spec.model.start == "shifted"
    return ["leak_probe"] + (["passes"] if honest and spec.model.T > 1 else []) + (["known"] if honest else [])
