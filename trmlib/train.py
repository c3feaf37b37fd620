"""The one training loop: any task, one seed or several at once, deep supervision, EMA, checkpoints.

All weights of a model lie in one flat vector w (S, N), S seeds of N parameters, so that clipping, AdamW,
averaging and checkpoints are one operation each. With S = 1 the model's parameters are views of w; with
more, the model is called functionally under `vmap`.

Everything random in a block of steps follows from (seed, block): a run resumed from a checkpoint takes
the same steps as one that was never interrupted.

A task that `persists` hands its carry (a dict of tensors) from step to step, and so from block to block and into checkpoints.
"""

import copy
import json
import math
import time
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.func import functional_call, vmap
from torch.utils.flop_counter import FlopCounterMode

from trmlib.errors import TrmError
from trmlib.layers import Block, PostNormBlock
from trmlib.models.chunk import ChunkLM
from trmlib.models.masked import MaskedLM
from trmlib.optim import optimizer_of
from trmlib.runs import device_info, group_key, host, rounded, write_atomically

CHECKPOINT_SECONDS = 30
STATE = {"done": int, "adam_steps": float, "curves": list, "seconds": float, "failed": dict}  # what a checkpoint says beside its tensors
CLOCK = "curve_seconds"  # seconds of training by each point of the curve, counted like the record's `seconds`
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILED = ("no", "yes", "graphs")  # the training step on a GPU: as it is, compiled, compiled into CUDA graphs
ROUNDINGS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Task(Protocol):
    """What an experiment gives the loop. A batch is a dict of tensors with the examples first. Models that it is given to score are in evaluation
    mode; all that they learn and keep must be parameters, for buffers and frozen weights are refused."""

    data: dict  # name and fingerprint of the corpus

    def model(self):
        """A fresh nn.Module (initialised from the global torch generator)."""

    def batches(self, seed, block, steps):
        """The batches of one block: a list of `steps` dicts."""

    def loss(self, net, batch, carry):
        """(scalar loss, carry for the next supervision step), `net` being called like the model."""

    def curve(self, model, spec, step):
        """Numbers recorded every `eval_every` steps."""

    def final(self, model):
        """{"metrics": {...}, "detail": {...}} of the finished model."""

    def diverged(self):
        """The metrics of a run that diverged."""

    # and, if it likes:
    # persists = True: the carry goes on to the next batch
    # progress(carry, i): numbers of copy i for the curve; it may empty the carry's counters
    # inference_steps: supervision steps at inference, if not the training's
    # work: [(share of the training, entries of a batch)]: what costs a typical step, where batches differ in theirs


class Weights:
    """S copies of a model's parameters in one fp32 tensor w (S, N); with a lower `dtype` the training pass
    reads a rounded copy of w, while updates, averages and evaluation keep the full one."""

    def __init__(self, models, device, dtype=torch.float32):
        if unfit := [n for n, p in models[0].named_parameters() if not p.requires_grad] or [
            n for n, _ in models[0].named_buffers() if n in models[0].state_dict()
        ]:
            raise TrmError(
                f"{type(models[0]).__name__}.{unfit[0]} is frozen or a saved buffer; all that a run trains, scores and keeps are parameters with gradient"
            )
        self.model, self.shapes = models[0].to(device), {n: p.shape for n, p in models[0].named_parameters()}
        flat = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models]
        self.w = torch.nn.Parameter(torch.stack(flat).to(device))
        self.w.grad = torch.zeros_like(self.w)
        self.low = self.w.detach().to(dtype)  # w itself in fp32
        self.leaves = {n: v.requires_grad_() for n, v in self.views(self.low).items()}
        if len(models) == 1:
            self.point(self.model, self.low, 0)
            self.leaves = dict(self.model.named_parameters())
        self.scored = copy.deepcopy(self.model)  # training and evaluation never share views

    def views(self, w):
        """Name → view (S, *shape) of a flat tensor."""
        sizes = [s.numel() for s in self.shapes.values()]
        return {n: v.view(len(w), *s) for (n, s), v in zip(self.shapes.items(), w.split(sizes, 1), strict=True)}

    def point(self, model, w, i):
        """Let the parameters of `model` be views of copy i of the flat tensor w."""
        for n, v in self.views(w).items():
            model.get_parameter(n).data = v[i]
        return model

    def evaluated(self, i, ema):
        """The fp32 model of copy i, with averaged weights if there are any."""
        return self.point(self.scored.eval(), self.w.detach() if ema is None else ema, i)

    def update(self, optimizer, rounding="fp32"):
        optimizer.step()
        if rounding != "fp32":  # no full copy is kept, unlike in a run of low precision
            self.w.data.copy_(self.w.data.to(ROUNDINGS[rounding]))
        if self.low.dtype != self.w.dtype:
            self.low.copy_(self.w.detach())


def losses(task, weights, batch, carry):
    """Loss of every seed (S,) and their carries."""
    if len(weights.w) == 1:
        loss, carry = task.loss(weights.model, batch, carry)
        return loss.unsqueeze(0), carry
    model, static = weights.model, {k: v for k, v in batch.items() if not isinstance(v, torch.Tensor)}
    tensors = {k: v for k, v in batch.items() if k not in static}

    def one(params, tensors, carry):
        loss, carry = task.loss(lambda *a, **k: functional_call(model, params, a, k), tensors | static, carry)
        return loss, () if carry is None else carry

    loss, carry = vmap(one, in_dims=(0, 0, None if carry is None else 0), randomness="different")(weights.leaves, tensors, carry)
    return loss, None if isinstance(carry, tuple) and not carry else carry


def rate(t, done):
    """Learning rate of the step after `done` steps: linear warm-up, then constant or half a cosine (`TrainConfig.decay_to`)."""
    if done < t.warmup:
        return t.lr * min(1.0, (done + 1) / t.warmup)
    if t.decay_to == 1:
        return t.lr
    share = (done - t.warmup) / max(1, t.steps - 1 - t.warmup)
    return t.lr * (t.decay_to + (1 - t.decay_to) * (1 + math.cos(math.pi * share)) / 2)


def step(task, spec, weights, optimizer, batch, ema, carry=None):
    """All supervision steps on one batch; returns the losses (S,) of the last, and the carry."""
    t = spec.train
    for _ in range(t.n_sup):
        loss, carry = losses(task, weights, batch, carry)
        grads = torch.autograd.grad(loss.sum(), list(weights.leaves.values()), materialize_grads=True)
        g = torch.cat([g.reshape(len(weights.w), -1) for g in grads], 1, out=weights.w.grad)
        if t.clip:
            g.mul_((t.clip / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0))
        weights.update(optimizer, t.weights)
        if ema is not None:
            ema.lerp_(weights.w.detach(), 1 - t.ema)
    return loss.detach(), carry


def train(
    task,
    specs,
    store,
    device="cpu",
    precision="fp32",
    deadline=math.inf,
    progress=None,
    checkpoint_seconds=CHECKPOINT_SECONDS,
    compiled="no",
):
    """Train specs that differ only in their seed, together; returns their records (without arm and profile),
    or None when the deadline (time.monotonic) came first and a checkpoint was left. The caller removes the
    checkpoint once the records are stored."""
    spec, t, device = specs[0], specs[0].train, torch.device(device)
    if len({(s.experiment, s.model, s.data, s.train) for s in specs}) > 1:
        raise TrmError("runs trained together may differ only in their seed")
    models = []
    for s in specs:
        torch.manual_seed(s.seed)
        models.append(task.model())
    weights = Weights(models, device, PRECISIONS[precision])
    optimizer, loss_of = optimizer_of(t, weights), compiled_loss(task, device, compiled)
    ema = weights.w.detach().clone() if t.ema else None
    info = device_info(device)
    path = store.checkpoint(group_key(specs, info["kind"], precision))
    done, curves, seconds, failed, carry = restore(path, weights, optimizer, ema) or (0, [[] for _ in specs], 0.0, {}, None)
    persists = getattr(task, "persists", False)
    if done > t.steps:
        raise TrmError(f"checkpoint {path} holds {done} steps of a run of {t.steps}; delete it to train this run from the start")
    if persists and done and not carry:
        raise TrmError(f"checkpoint {path} is damaged (no state of the task); delete it to train this run from the start")
    started = saved = time.monotonic()

    if progress:
        progress(done)
    while done < t.steps and len(failed) < len(specs):
        began, n = time.monotonic(), min(t.eval_every, t.steps - done)
        block = done // t.eval_every
        torch.manual_seed(int(np.random.SeedSequence([spec.seed, block]).generate_state(1)[0]))
        total = torch.zeros(len(specs), device=device)
        for batch in stacked([task.batches(s.seed, block, n) for s in specs], device):
            optimizer.param_groups[0]["lr"] = rate(t, done)
            if t.forget_every and done and done % t.forget_every == 0:
                optimizer.state.clear()
            loss, left = step(loss_of, spec, weights, optimizer, batch, ema, carry)
            total, carry = total + loss, left if persists else None
            done += 1
            if progress:
                progress(done)
        for i, mean in enumerate((total / n).tolist()):
            if i not in failed and not math.isfinite(mean):
                failed[i] = f"training loss became {mean} by step {done}"
            elif i not in failed:
                halting = task.progress(carry, i) if persists else {}
                curve = task.curve(weights.evaluated(i, ema), specs[i], done)
                clock = seconds + time.monotonic() - started
                curves[i].append(rounded({"step": done, "train_loss": mean, **halting, **curve, CLOCK: clock / len(specs)}))
        now = time.monotonic()
        late = done < t.steps and now + 1.2 * (now - began) > deadline
        if late or now - saved > checkpoint_seconds:  # after the last step, too: scoring may fail, or the disk be full
            saved = now
            save_checkpoint(path, weights, optimizer, ema, done, curves, seconds + now - started, failed, carry)
            if late:
                return None

    seconds += time.monotonic() - started
    flops, depth, inference = costs(task, spec, weights, device)
    common = {
        "schema": 1, "experiment": spec.experiment, "steps": done, "parameters": weights.w.shape[1],
        "train_flops": flops * done, "inference_flops": inference, "serial_depth": depth, "seconds": seconds / len(specs),
        "device": info, "precision": precision, "mode": {"seeds_at_once": len(specs), "compiled": loss_of is not task}, "data": task.data, **host(),
    }  # fmt: skip
    records = []
    for i, s in enumerate(specs):
        if i not in failed and not weights.w[i].isfinite().all():
            failed[i] = f"weights are not finite after step {done}, the last"  # its loss was computed before the update
        model = weights.evaluated(i, ema)
        result = {"metrics": task.diverged(), "detail": {}} if i in failed else task.final(model)
        curve = {k: [point[k] for point in curves[i]] for k in curves[i][0] if k != CLOCK} if curves[i] else {}
        clock = {CLOCK: [point.get(CLOCK) for point in curves[i]]}  # beside the curve: no two trainings take the same time
        status = {"status": "failed" if i in failed else "recorded", "reason": failed.get(i, "")}
        records.append(
            rounded({**common, **clock, **status, **result, "hash": s.hash, "seed": s.seed, "spec": s.as_dict(), "curve": curve})
        )
        if i not in failed:
            params = {n: p.detach().contiguous().cpu() for n, p in model.named_parameters()}
            write_atomically(store.weights(f"{s.hash}.{info['kind']}.{precision}"), save(params))
    return records


def compiled_loss(task, device, how):
    """The task, or on a GPU one with the same loss compiled. Untried there, for no GPU was at hand; a test traces it on a CPU."""
    if how == "no" or device.type != "cuda":
        return task
    torch._dynamo.config.recompile_limit = 64  # n and T may be drawn anew at each step: a graph for each pair
    fast = torch.compile(task.loss, mode="reduce-overhead" if how == "graphs" else "default", dynamic=False)  # loops must know their length

    def loss(net, batch, carry):
        if how == "graphs":  # the next replay writes over what this one returns
            carry = carry and {k: v.clone() for k, v in carry.items()}
            torch.compiler.cudagraph_mark_step_begin()
        return fast(net, batch, carry)

    return SimpleNamespace(loss=loss)


def stacked(per_seed, device):
    """Batches of several seeds → batches whose tensors have the seeds first; a single seed as it is."""
    for batches in zip(*per_seed, strict=True):
        first = batches[0]
        if len(batches) == 1:
            yield {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in first.items()}
        else:
            yield {k: torch.stack([b[k] for b in batches]).to(device) if isinstance(v, torch.Tensor) else v for k, v in first.items()}


def save_checkpoint(path, weights, optimizer, ema, done, curves, seconds, failed, carry=None):
    state = optimizer.state[weights.w]
    tensors = {"w": weights.w.detach(), "m": state["exp_avg"], "v": state["exp_avg_sq"]} | ({} if ema is None else {"ema": ema})
    tensors |= {f"carry.{k}": v.contiguous() for k, v in (carry or {}).items()}
    meta = {"done": done, "adam_steps": float(state["step"]), "curves": curves, "seconds": seconds, "failed": failed}
    write_atomically(path, save({k: v.cpu() for k, v in tensors.items()}, {"trm": json.dumps(meta)}))


def restore(path, weights, optimizer, ema):
    """Load a checkpoint into weights and optimiser; returns (step, curves, seconds, failed, carry), or None without one."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as f:
            meta = json.loads(f.metadata()["trm"])
            done, adam, curves, seconds, failed = (kind(meta[k]) for k, kind in STATE.items())
            failed = {int(k): v for k, v in failed.items()}
            tensors = {k: f.get_tensor(k).to(weights.w.device) for k in f.keys()}
        for name in ("w", "m", "v") if ema is None else ("w", "m", "v", "ema"):
            found, expected = ((str(t.dtype), tuple(t.shape)) for t in (tensors[name], weights.w))
            if found != expected:
                raise ValueError(f"{name} is {found}, expected {expected}")
        if done < 0 or len(curves) != len(weights.w) or not all(isinstance(point, dict) for curve in curves for point in curve):
            raise ValueError(f"{done} steps and {len(curves)} curves, expected {len(weights.w)}")
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise TrmError(f"checkpoint {path} is damaged ({e}); delete it to train this run from the start") from None
    with torch.no_grad():
        weights.low.copy_(tensors["w"])
        weights.w.copy_(tensors["w"])
        if ema is not None:
            ema.copy_(tensors["ema"])
    state = {"step": torch.tensor(adam), "exp_avg": tensors["m"], "exp_avg_sq": tensors["v"]}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: state}})
    carry = {k.removeprefix("carry."): v for k, v in tensors.items() if k.startswith("carry.")}
    return done, curves, seconds, failed, carry or None


def costs(task, spec, weights, device):
    """(training FLOPs a step, blocks applied in series at inference, inference FLOPs an example), all counted.

    Where the batches of the first block differ in shape: the mean of training, the most of inference. Where they differ in what is
    done with them, the task's `work` says what is typical; inference is as in the last of these."""
    batches = task.batches(spec.seed, 0, spec.train.eval_every)
    shapes = [tuple(v.shape for v in b.values() if isinstance(v, torch.Tensor)) for b in batches]
    first = {shape: next(stacked([[batches[shapes.index(shape)]]], device)) for shape in set(shapes)}
    training = 0
    for share, entries in getattr(task, "work", [(1, {})]):
        counted = {shape: count(task, spec, weights.model, batch | entries) for shape, batch in first.items()}
        training += share * sum(counted[shape][0] for shape in shapes) / len(shapes)
    return round(training), *(max(c[i] for c in counted.values()) for i in (1, 2))


def count(task, spec, model, batch):
    """`costs` of one batch."""
    calls = []

    def net(*args, **options):  # called as several seeds at once call it: PyTorch's counter passes over the fused read-out of a module
        return model(*args, **options)

    def supervise(steps, backward=False):
        carry = None
        for _ in range(steps):
            loss, carry = task.loss(net, batch, carry)
            if backward:
                loss.backward()

    with FlopCounterMode(display=False) as training:
        supervise(spec.train.n_sup, backward=True)
    model.zero_grad(set_to_none=True)
    hooks = [b.register_forward_hook(lambda *_: calls.append(1)) for b in model.modules() if isinstance(b, Block | PostNormBlock)]
    n_sup = spec.train.n_sup
    with torch.no_grad(), FlopCounterMode(display=False) as inference:  # what is scored is the chunk or the blanks, whatever is trained
        if isinstance(model, ChunkLM):
            model(batch["tokens"], passes=spec.model.T * n_sup)
        elif isinstance(model, MaskedLM):
            model(batch["tokens"], batch["at"], batch.get("partners"), passes=spec.model.passes * n_sup)
        else:
            supervise(getattr(task, "inference_steps", n_sup))
    for hook in hooks:
        hook.remove()
    return training.get_total_flops(), len(calls), inference.get_total_flops() // spec.train.batch
