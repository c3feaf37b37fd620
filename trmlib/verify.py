"""Do the recorded numbers come out again? Retrain the cheapest records and compare."""

import tempfile
from contextlib import contextmanager

import torch

from trmlib.errors import TrmError
from trmlib.experiments import grid, module
from trmlib.runs import Store, device_info, host, key_of, torch_device
from trmlib.train import train

SAME = 1e-5  # nats: same processor, same versions
ELSEWHERE = 0.05  # nats: another processor or version; rounding alone moves a run by about what a seed does


def verify(store, n=1, profile=None):
    """Retrain `n` records of this kind of device, cheapest first; a row each with one number of both and whether all agree: NLLs, or where a
    run has none, all that it has."""
    device = torch_device("auto")
    kind = device_info(device)["kind"]
    runs = {r.spec.hash: r for p in ("smoke", "cpu", "full") if profile in (None, p) for r in grid(p)}
    records = [r for r in store.records().values() if r["hash"] in runs and r["status"] == "recorded" and r["device"]["kind"] == kind]
    rows = []
    for record in sorted(records, key=lambda r: r["seconds"])[:n]:
        spec = runs[record["hash"]].spec
        with tempfile.TemporaryDirectory() as scratch, threads(record["device"]["threads"]):
            again = train(module(spec.experiment).Task(spec, device), [spec], Store(scratch, scratch), device, record["precision"])[0]
        same = again["device"] == record["device"] and host()["versions"] == record["versions"]
        tolerance = SAME if same and record["mode"] == again["mode"] else ELSEWHERE
        old, new = record["metrics"], again["metrics"]
        names = [k for k in old if k.startswith("nll")] or [k for k, v in old.items() if isinstance(v, (int, float))]
        if not names:
            raise TrmError(f"record {key_of(record)} ({record['experiment']}/{record['arm']}/{record['seed']}) has no numbers to compare")
        shown = "nll_all" if "nll_all" in names else names[0]
        pairs = [(old[k], new.get(k)) for k in names]
        gap = None if any(v is None or w is None for v, w in pairs) else max(abs(v - w) for v, w in pairs)
        rows.append({"run": f"{record['arm']}/{record['seed']}", "profile": record["profile"], "measure": shown, "recorded": old[shown],
                     "retrained": new.get(shown), "largest_gap": gap, "tolerance": tolerance, "agrees": gap is not None and gap <= tolerance})  # fmt: skip
    return rows


@contextmanager
def threads(n):
    """Train with as many threads as the record: the order of sums, and so the numbers, hang on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
