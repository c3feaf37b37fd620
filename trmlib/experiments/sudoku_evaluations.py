"""New measures of trained Sudoku models: evaluations of old weights, each a record of its own."""

SINGLE, GROUPED, GROUP_SEEDS = {}, {}, ()


def wanted(arm, spec):
    """Names of the evaluations that an arm wants."""
    return ()


def load_model(task, weights):
    """The task's model with these weights."""
    model = task.model().to(task.device)
    model.load_state_dict(weights, strict=True)
    return model.eval()
