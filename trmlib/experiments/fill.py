"""Filling blanks in any language: the loss, and the task for languages that are drawn on the fly (`data.synthetic.Language`)."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from trmlib.data.text import show_some
from trmlib.evaluate import mix, score_blanks, score_joint, window_flops
from trmlib.models.masked import MaskedLM

CURVE_WINDOWS = 512  # fixed windows scored during training
TEST_PASSES = 16  # tied models are scored after 0 … max(this, trained) passes


def fill_loss(config, net, batch, carry, again=False):
    """(mean NLL a blank, carry for the next supervision step if there is one `again`).

    With K samples: the joint log-mean-exp over K random starts, -log 1/K Σ_k Π_i q_k(target i), divided by the blanks."""
    options = {"every_pass": config.loss_passes == "every", "carry": carry, "hand_on": again}
    out = net(batch["tokens"], batch["at"], batch.get("partners"), passes=batch.get("passes"), **options)
    logits, carry = out if again else (out, None)
    logits = logits[1:] if options["every_pass"] else logits
    targets = batch["targets"].expand(logits.shape[:-1])
    if config.samples == 1:
        return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten()), carry
    logp = -F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)
    return -mix(logp.sum(-1), -2).mean() / targets.shape[-1], carry  # (…, K, b, m) → (…, K, b) → (…, b)


def some_blanks(batches, config, seed, block, rows):
    """Each batch with min_blanks … blanks of its blanks hidden; how many is the same for all seeds."""
    counts = np.random.default_rng((block, 1)).integers(config.min_blanks, config.blanks + 1, len(batches))
    order = torch.from_numpy(np.random.default_rng((seed, block, 1)).random((len(batches), rows, config.blanks)).argsort(2))
    return [show_some(b, int(n), o) for b, n, o in zip(batches, counts, order, strict=True)]


class FillTask:
    """Training and scoring of one spec whose `data` is a language (`train.Task`)."""

    def __init__(self, spec, device="cpu"):
        self.spec, self.language, self.device = spec, spec.data, device
        self.data = {"name": type(spec.data).__name__.lower(), "train": "generated", "validation": "generated"}
        self.curve_batch = self.tensors(self.language.draw(np.random.default_rng(2025), CURVE_WINDOWS))
        tests = [self.language.test(g) for g in range(len(self.language.groups))]
        self.tests = [(self.tensors(batch), weights) for batch, weights in tests]

    def tensors(self, batch):
        return {k: torch.from_numpy(v).to(self.device) for k, v in batch.items()}

    @property
    def work(self):
        """A random number of passes costs what its mean does."""
        c = self.spec.model
        return [(1, {"passes": c.passes} if c.random_passes else {})]

    def model(self):
        return MaskedLM(self.spec.model, self.language.vocab, self.language.context)

    def batches(self, seed, block, steps):
        rows, c = self.spec.train.batch, self.language
        stage = c.stage(block * self.spec.train.eval_every / self.spec.train.steps)
        drawn = stage.draw(np.random.default_rng((seed, block)), steps * rows)
        drawn = {k: torch.from_numpy(v).view(steps, rows, -1) for k, v in drawn.items()}
        batches = [{k: v[i] for k, v in drawn.items()} for i in range(steps)]
        if c.min_blanks < c.blanks:
            batches = some_blanks(batches, c, seed, block, rows)
        if self.spec.model.random_passes:  # the same for all seeds
            passes = np.random.default_rng((block, 2)).integers(1, 2 * self.spec.model.passes, steps)
            batches = [{**b, "passes": int(p)} for b, p in zip(batches, passes, strict=True)]
        return batches

    def loss(self, net, batch, carry):
        return fill_loss(self.spec.model, net, batch, carry, again=self.spec.train.n_sup > 1)

    def curve(self, model, spec, step):
        nll, hit = score_blanks(model, self.curve_batch)
        return {"nll": nll.mean(), "accuracy": hit.mean()}

    def final(self, model):
        """Per group: NLL and accuracy after each pass (passes + 1, groups), and for several blanks the joint scores. The metrics (and the curve) are
        those after the passes of one supervision step; what a supervised arm reads after all of them stands in `detail`."""
        c, language = self.spec.model, self.language
        passes = max(TEST_PASSES, c.passes) if c.tied and c.passes else c.passes
        scores = [[(s.mean(2) @ weights) for s in score_blanks(model, t, passes, every_pass=True)] for t, weights in self.tests]
        nll, accuracy = np.array(scores).transpose(1, 2, 0)  # each (passes + 1, groups)
        detail = {"groups": language.groups, "nll": nll, "accuracy": accuracy}
        if language.joint:
            joint = [{name: weights @ v for name, v in score_joint(model, t).items()} for t, weights in self.tests]
            detail["joint"] = {name: [j[name] for j in joint] for name in joint[0]} | {"flops": window_flops(model, self.tests[0][0])}
        metrics = {"nll_all": nll[c.passes].mean(), "accuracy_all": accuracy[c.passes].mean()}
        return {"metrics": metrics, "detail": detail}

    def diverged(self):
        return {"nll_all": math.log(self.language.vocab)}
