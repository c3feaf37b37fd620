"""Do the recorded numbers come out again? Retrain the cheapest records and compare."""

import tempfile

from trmlib.experiments import grid, module
from trmlib.runs import Store, device_info, host, torch_device
from trmlib.train import train

SAME = 1e-5  # nats: same processor, same versions
ELSEWHERE = 0.05  # nats: another processor or version; rounding alone moves a run by about what a seed does


def verify(store, n=1, profile=None):
    """Retrain `n` records of this kind of device, cheapest first; a row each with both NLLs and whether they agree."""
    device = torch_device("auto")
    info = device_info(device)
    runs = {r.spec.hash: r for p in ("smoke", "cpu", "full") if profile in (None, p) for r in grid(p)}
    records = [
        r for r in store.records().values() if r["hash"] in runs and r["status"] == "recorded" and r["device"]["kind"] == info["kind"]
    ]
    rows = []
    for record in sorted(records, key=lambda r: r["seconds"])[:n]:
        spec = runs[record["hash"]].spec
        with tempfile.TemporaryDirectory() as scratch:
            again = train(module(spec.experiment).Task(spec, device), [spec], Store(scratch, scratch), device, record["precision"])[0]
        same = info["name"] == record["device"]["name"] and host()["versions"] == record["versions"]
        tolerance = SAME if same and record["mode"] == again["mode"] else ELSEWHERE
        gap = max(abs(again["metrics"][k] - v) for k, v in record["metrics"].items() if k.startswith("nll"))
        rows.append({"run": f"{record['arm']}/{record['seed']}", "profile": record["profile"], "recorded": record["metrics"]["nll_all"],
                     "retrained": float(again["metrics"]["nll_all"]), "largest_gap": float(gap), "tolerance": tolerance,
                     "agrees": bool(gap <= tolerance)})  # fmt: skip
    return rows
