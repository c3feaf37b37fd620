"""Training throughput: milliseconds a step, seeds·steps a second, and the share of the machine's measured matmul peak."""

import time
from dataclasses import replace

import torch
from tqdm import tqdm

from trmlib.experiments import affordable, module, select
from trmlib.optim import optimizer_of
from trmlib.runs import torch_device
from trmlib.train import PRECISIONS, Weights, costs, stacked, step


def matmul_peak(device, dtype, seconds=1.0, n=2048):
    """FLOP/s of a large square product: the ceiling a step is held against."""
    n = n if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    calls, elapsed = timed(lambda: a @ b, device, seconds)
    return 2 * n**3 * calls / elapsed


def timed(call, device, seconds):
    """(calls, elapsed seconds) of calling for about `seconds`, after a warm-up; a first call that takes longer than that is all there is."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    began = time.perf_counter()
    call(), wait()
    if (first := time.perf_counter() - began) > seconds:
        return 1, first
    call(), wait()
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        wait()
        calls += 1
    return calls, time.perf_counter() - began


def bench(profile="full", patterns=(), seconds=5.0, seeds_at_once=(1, 8)):
    """A row for each arm, number of seeds and precision; one thread on a CPU, as the queue runs them."""
    torch.set_num_threads(1)
    rows, runs, arms = [], select(profile, patterns), {}
    devices = [torch.device("cpu")] + ([torch_device("cuda")] if torch.cuda.is_available() else [])
    for device in devices:
        arms[device] = list({(r.spec.experiment, r.arm): r for r in reversed(runs if patterns else affordable(runs, device))}.items())[::-1]
    total = len(PRECISIONS) * len(seeds_at_once) * sum(map(len, arms.values()))
    with tqdm(total=total, unit="row", disable=None, delay=2, leave=False) as bar:
        for device in devices:
            peak = 0  # no slower than that of fp32, which comes first: where bf16 is emulated, as on many CPUs, its own products are no ceiling
            for precision, dtype in PRECISIONS.items():
                peak = max(peak, matmul_peak(device, dtype, min(seconds, 1.0)))
                for (experiment, arm), run in arms[device]:
                    for s in seeds_at_once:
                        bar.set_description(f"{experiment}/{arm}, {precision}, {s} seed{'s' * (s > 1)}")
                        rate, flops = throughput(run.spec, device, dtype, s, seconds)
                        rows.append({"experiment": experiment, "arm": arm, "device": device.type, "precision": precision, "seeds": s,
                                     "ms_per_step": 1e3 / rate, "seed_steps_per_s": s * rate, "share_of_peak": s * rate * flops / peak})  # fmt: skip
                        bar.update()
    return rows


def throughput(spec, device, dtype, seeds, seconds):
    """(steps a second with `seeds` trained together, FLOPs a seed and step)."""
    task = module(spec.experiment).Task(spec, device)
    weights = Weights([task.model() for _ in range(seeds)], device, dtype)
    optimizer = optimizer_of(replace(spec.train, lr=1e-5), weights)
    ema = weights.w.detach().clone() if spec.train.ema else None
    flops, _, _ = costs(task, spec, Weights([task.model()], device), device)
    batches = list(stacked([task.batches(seed, 0, 20) for seed in range(seeds)], device))
    i = 0

    def call():
        nonlocal i
        step(task, spec, weights, optimizer, batches[i % len(batches)], ema)
        i += 1

    calls, elapsed = timed(call, device, seconds)
    return calls / elapsed, flops
