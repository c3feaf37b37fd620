"""New measures of trained capacity models: evaluations of old weights, each a record of its own."""

import numpy as np
import torch

from trmlib.probe import dependency


def leak_probe(task, model, windows=256):
    """The dependency matrix of the chunk: how the prediction of slot i moves when the target of slot j is another token."""
    rows = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))][:windows]
    context, targets = rows[:, : task.config.context], rows[:, task.config.context :]
    model.eval()
    predict = lambda targets: model(torch.cat([context, targets], 1))[0]  # noqa: E731
    return {"as trained": dependency(predict, targets, task.config.vocab)}


SINGLE = {"leak_probe": leak_probe}  # of one run
GROUPED = {}  # of all seeds of an arm
GROUP_SEEDS = (0, 1, 2, 3, 4)


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    return ["leak_probe"] if " (" not in arm and arm.split()[0] in ("TRM", "leaking", "causal") and "=" not in arm else []


def load_model(task, tensors):
    """The model with saved weights."""
    model = task.model()
    model.load_state_dict(tensors)
    return model.to(task.device).eval()
