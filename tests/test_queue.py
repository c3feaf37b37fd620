"""The queue: kill -9, shared work, budgets, packs, hostile archives, divergence, full disks and Ctrl-C."""

import errno
import io
import json
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from conftest import smoke_run
from safetensors.torch import load_file, save

from trmlib import cli, queue, runs, train
from trmlib.errors import TrmError
from trmlib.experiments import masked
from trmlib.runs import Store, canonical, digest, key_of

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
FAST = {"passes": 1, "refine_blocks": 1, "context_blocks": 1}
NUMBERS = ("status", "reason", "metrics", "detail", "curve", "steps", "parameters")


def small(seed=0, steps=20, **train):
    """Settings of a run of well under a second."""
    return {
        "arm": "joint",
        "model": FAST,
        "data": {"noisy_batches": 1},
        "seed": seed,
        **{"steps": steps, "eval_every": 5, "batch": 8, **train},
    }


def job_of(runs, store, **changes):
    job = {"profile": "smoke", "hashes": [r.spec.hash for r in runs], "device": "cpu", "precision": "fp32", "at_once": 1, "budget": None, "compiled": "no",
           "root": str(store.root), "cache": str(store.cache)}  # fmt: skip
    return {**job, **changes}


def begin(job, settings, said):
    """In a process of its own: a worker that leaves a checkpoint after every block and writes its events to a file."""
    runs = [smoke_run(**s) for s in settings]
    masked.grid = lambda profile: runs
    queue.train = partial(train.train, checkpoint_seconds=0)
    with open(said, "w", buffering=1) as sys.stdout:
        sys.exit(queue.worker_main(job))


@contextmanager
def worker(store, settings, said):
    job = job_of([smoke_run(**s) for s in settings], store)
    process = get_context("fork").Process(target=begin, args=(job, settings, said))  # a fork need not import torch anew
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def until(true, running, seconds=300):
    """Wait until something is true; fails when it does not come or the process ends first."""
    end = time.monotonic() + seconds
    while not true():
        assert running(), "the process ended first"
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.002)


def key(run):
    return f"{run.spec.hash}.cpu.fp32"


def numbers(store):
    return {k: {n: r[n] for n in NUMBERS} for k, r in store.records().items()}


def files(folder):
    """Everything below a folder, links as links, but for locks: what it is and what it holds."""
    paths = [p for p in Path(folder).rglob("*") if "locks" not in p.parts]
    return {p: p.readlink() if p.is_symlink() else p.read_bytes() if p.is_file() else None for p in paths}


def written(folder):
    """The files below a folder, but for locks."""
    return [p for p, content in files(folder).items() if content is not None]


def unfinished(store, run, blocks=1):
    """Train the first blocks of a run and leave its checkpoint."""
    for _ in range(blocks):
        assert train.train(masked.Task(run.spec), [run.spec], store, deadline=-math.inf) is None
    return store.checkpoint(key(run))


@pytest.fixture
def second(tmp_path):
    return Store(tmp_path / "second" / "results", tmp_path / "second" / "cache")


@pytest.fixture
def commanded(store, monkeypatch):
    """The store that the command uses."""
    monkeypatch.setenv("TRM_RESULTS", str(store.root))
    monkeypatch.setenv("TRM_CACHE", str(store.cache))
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with an uninterrupted run of 40 steps."""
    store = Store(tmp_path_factory.mktemp("whole") / "results")
    queue.work([smoke_run(**small(steps=40))], store, CPU)
    return store


@pytest.fixture
def record(whole):
    return next(iter(whole.records().values()))


def signed(record, **changes):
    """A record with fields replaced and a digest that fits."""
    record = {**record, **changes}
    return json.dumps({**record, "digest": digest(record)})


# ---------------------------------------------------------------- killed, shared, out of time


def test_kill_9_loses_nothing_but_time(tmp_path, store):
    settings = small(steps=150)
    run = smoke_run(**settings)
    checkpoint = store.checkpoint(key(run))
    with worker(store, [settings], tmp_path / "said") as process:
        until(lambda: checkpoint.exists() and queue.steps_done(checkpoint) >= 40, process.is_alive)
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    done = queue.steps_done(checkpoint)
    assert 40 <= done < 150
    assert [p for p in written(store.root) + written(store.cache) if not p.name.startswith(".")] == [checkpoint]  # and that one is whole

    events = []
    queue.work([run], store, CPU, tell=lambda **e: events.append(e))
    assert events[0]["step"] == done
    assert events[-1]["event"] == "recorded"
    other = Store(tmp_path / "other" / "results")
    queue.work([run], other, CPU)
    assert numbers(store) == numbers(other)
    assert store.weights(key(run)).read_bytes() == other.weights(key(run)).read_bytes()
    assert not checkpoint.exists()


def test_two_workers_record_every_run_once(tmp_path, store):
    settings = [small(seed=s) for s in range(8)]
    with worker(store, settings, tmp_path / "a") as a, worker(store, settings, tmp_path / "b") as b:
        for process in (a, b):
            process.join(300)
            assert process.exitcode == 0
    said = [[json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in "ab"]
    keys = [[e["key"] for e in events if e["event"] == "recorded"] for events in said]
    assert sorted(keys[0] + keys[1]) == sorted(key(smoke_run(**s)) for s in settings) == sorted(store.records())
    assert keys[0] and keys[1]


def test_a_run_that_another_worker_holds_is_left_to_it(store):
    runs = [smoke_run(**small(seed=s)) for s in range(2)]
    with store.lock(key(runs[0])) as mine:
        assert mine
        queue.work(runs, store, CPU)
    assert list(store.records()) == [key(runs[1])]
    queue.work(runs, store, CPU)
    assert sorted(store.records()) == sorted(map(key, runs))


def test_arms_that_take_turns_in_the_queue_train_their_seeds_together(store, monkeypatch):
    runs = sorted(
        (replace(smoke_run(arm, seed=s), priority=s) for arm in ("joint", "baseline") for s in range(3)), key=lambda r: r.priority
    )
    taken = []
    monkeypatch.setattr(queue, "train_batch", lambda batch, *_: taken.append([(r.arm, r.spec.seed) for r in batch]) or True)
    queue.work(runs, store, CPU, at_once=2)
    assert taken == [[("joint", 0), ("joint", 1)], [("baseline", 0), ("baseline", 1)], [("joint", 2)], [("baseline", 2)]]
    taken.clear()
    queue.work(runs, store, CPU)
    assert taken == [[(r.arm, r.spec.seed)] for r in runs]  # one at a time: as the queue has them


def test_what_a_task_prints_is_no_event(store, monkeypatch, capfd):
    run = smoke_run(**small())
    monkeypatch.setattr(masked, "grid", lambda profile: [run])
    final = masked.Task.final
    monkeypatch.setattr(masked.Task, "final", lambda self, model: print("a task says this") or final(self, model))
    assert queue.worker_main(job_of([run], store)) == 0
    out, err = capfd.readouterr()
    assert {json.loads(line)["event"] for line in out.splitlines()} == {"step", "recorded"} and "a task says this" in err


def test_a_line_that_is_no_event_is_passed_on(commanded, record, tmp_path, monkeypatch, capfd):
    commanded.add(record)
    fake_worker(tmp_path, monkeypatch, f"""echo 'not JSON'; echo '{{"event": "recorded", "key": "{key_of(record)}"}}'""")
    assert queue.drain(["joint"], "smoke", "cpu", workers=1, quiet=True) == [key_of(record)]
    assert capfd.readouterr().err == "not JSON\n"


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_silences_the_bars_of_workers_too(commanded, record, tmp_path, monkeypatch, capfd, quiet):
    fake_worker(tmp_path, monkeypatch, 'echo "is ${TQDM_DISABLE-unset}"')
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    queue.drain(["joint"], "smoke", "cpu", workers=1, quiet=quiet)
    assert capfd.readouterr().err.endswith("is 1\n" if quiet else "is unset\n")


def test_seeds_trained_at_once_are_recorded_each_with_its_mode(store):
    runs = [smoke_run(**small(seed=s)) for s in range(3)]
    queue.work(runs, store, CPU, at_once=2)
    assert [store.records()[key(r)]["mode"]["seeds_at_once"] for r in runs] == [2, 2, 1]
    assert not list((store.cache / "checkpoints").glob("*"))


def test_a_budget_stops_the_drain_in_time_and_packs_what_there_is(commanded, second, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(queue, "RESERVE", 0)
    out = tmp_path / "out"
    assert cli.main(["run", "--profile", "smoke", "--device", "cpu", "--workers", "1", "--budget", "6s", "--out", str(out), "--quiet"]) == 0
    mine = commanded.records()
    assert f"{len(mine)} runs recorded" in capsys.readouterr().out
    times = [p.stat().st_mtime for p in tmp_path.rglob("*") if p.suffix == ".json" or "locks" in p.parts]
    assert max(times) - min(times) < 6 + 60  # the last run may end, however busy the machine
    with zipfile.ZipFile(out / "records.zip") as z:
        assert sorted(z.namelist()) == sorted(f"records/masked/{k}.json" for k in mine)
    left = list((commanded.cache / "checkpoints").glob("*"))
    assert 0 < len(mine) + len(left) < len(masked.grid("smoke"))
    assert len(left) <= 1 and all(0 < queue.steps_done(p) < 60 for p in left)

    assert cli.main(["add", "--json", *map(str, sorted(out.iterdir()))]) == 0  # nothing new at home
    again = json.loads(capsys.readouterr().out)
    assert len(again["known"]) == len(mine) + len(left) and not again["added"] and not again["refused"]
    assert len(queue.add(sorted(out.iterdir()), second)["added"]) == len(mine) + len(left)
    assert second.records() == mine
    assert [p.name for p in (second.cache / "checkpoints").glob("*")] == [p.name for p in left]


def test_a_budget_that_leaves_no_time_to_train_is_one_line(commanded, capsys):
    assert cli.main(["run", "--profile", "smoke", "--device", "cpu", "--budget", "20s"]) == 2
    assert (
        capsys.readouterr().err
        == "trm: a budget of 20 s trains nothing: 20 s are kept for the last evaluation and the packing; give more\n"
    )
    assert written(commanded.root.parent) == []


def test_no_budget_left_trains_nothing_and_exits_normally(store, monkeypatch, capsys):
    run = smoke_run(**small())
    monkeypatch.setattr(masked, "grid", lambda profile: [run])
    assert queue.worker_main(job_of([run], store, budget=0.0)) == 0
    assert capsys.readouterr().out == ""
    assert written(store.root.parent) == []


def test_a_deadline_in_the_middle_leaves_a_checkpoint_and_the_next_drain_goes_on(store, whole):
    run, events = smoke_run(**small(steps=40)), []
    queue.train_batch([run], store, CPU, "fp32", -math.inf, lambda **_: None)
    assert written(store.root.parent) == [store.checkpoint(key(run))]
    queue.work([run], store, CPU, tell=lambda **e: events.append(e))
    assert events[0]["step"] == 5
    assert numbers(store) == numbers(whole)


# ---------------------------------------------------------------- packs


def test_a_checkpoint_travels_in_parts_and_ends_in_the_same_numbers(store, second, whole, tmp_path, monkeypatch):
    run = smoke_run(**small(steps=40))
    checkpoint = unfinished(store, run, blocks=3)
    monkeypatch.setattr(queue, "PART", checkpoint.stat().st_size // 3)
    queue.pack(store, [], [], tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("checkpoints.zip.*"))
    assert [p.name for p in parts] == [f"checkpoints.zip.{i}of4" for i in range(1, 5)]
    assert all(p.stat().st_size <= queue.PART for p in parts)
    shuffled = random.Random(0).sample(parts, 4)
    assert queue.add(shuffled, second) == {"added": [f"checkpoints/{checkpoint.name}"], "known": [], "refused": []}
    assert second.checkpoint(key(run)).read_bytes() == checkpoint.read_bytes()
    events = []
    queue.work([run], second, CPU, tell=lambda **e: events.append(e))
    assert events[0]["step"] == 15
    assert numbers(second) == numbers(whole)


def test_a_missing_part_is_one_line(commanded, second, tmp_path, monkeypatch, capsys):
    unfinished(second, smoke_run(**small()))
    monkeypatch.setattr(queue, "PART", 20_000)
    queue.pack(second, [], [], tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("checkpoints.zip.*"))
    gone = parts.pop(1)
    assert cli.main(["add", *map(str, parts)]) == 2
    err = capsys.readouterr().err
    assert gone.name in err and parts[0].name not in err and err.count("\n") == 1
    assert written(commanded.root) == written(commanded.cache) == []


def test_parts_of_two_packs_are_told_apart_by_their_folders(store, tmp_path, monkeypatch):
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        brought = Store(folder / "store" / "results")
        size = unfinished(brought, smoke_run(**small(seed=seed))).stat().st_size
        monkeypatch.setattr(queue, "PART", size // 2 + 1000)
        queue.pack(brought, [], [], folder)
    parts = [p for folder in folders for p in sorted(folder.glob("checkpoints.zip.*"))]
    assert len(parts) == 4
    assert len(queue.add(parts, store)["added"]) == 2


def test_a_pack_holds_the_newest_checkpoints_up_to_its_limit(store, tmp_path, monkeypatch):
    paths = [unfinished(store, smoke_run(**small(seed=s))) for s in range(3)]
    for age, path in enumerate(paths):
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(queue, "PACKED_CHECKPOINTS", 2 * paths[0].stat().st_size + 100)
    queue.pack(store, [], [], tmp_path)
    with zipfile.ZipFile(tmp_path / "checkpoints.zip.1of1") as z:
        assert sorted(z.namelist()) == sorted(f"checkpoints/{p.name}" for p in paths[:2])


def test_only_a_more_advanced_checkpoint_is_taken(store, second, tmp_path):
    run = smoke_run(**small(steps=40))
    behind, ahead = unfinished(store, run, 1), unfinished(second, run, 2)
    for s, out in ((store, tmp_path / "behind"), (second, tmp_path / "ahead")):
        queue.pack(s, [], [], out)
    before = ahead.read_bytes()
    name = [f"checkpoints/{behind.name}"]
    assert queue.add([tmp_path / "behind" / "checkpoints.zip.1of1"], second) == {"added": [], "known": name, "refused": []}
    assert ahead.read_bytes() == before
    assert queue.add([tmp_path / "ahead" / "checkpoints.zip.1of1"], store) == {"added": name, "known": [], "refused": []}
    assert behind.read_bytes() == before
    assert [p.name for p in behind.parent.iterdir()] == [behind.name]


def test_a_checkpoint_of_a_recorded_run_is_not_taken(store, second, whole, tmp_path):
    checkpoint = unfinished(second, smoke_run(**small(steps=40)))
    queue.pack(second, [], [], tmp_path)
    queue.pack(whole, whole.records(), [], tmp_path)
    result = queue.add([tmp_path / "records-2.zip", tmp_path / "checkpoints.zip.1of1"], store)
    assert len(result["added"]) == 1 and result["known"] == [f"checkpoints/{checkpoint.name}"]
    assert list((store.cache / "checkpoints").iterdir()) == []


def test_a_contradicting_record_is_refused_and_the_others_are_added(commanded, record, tmp_path, capsys):
    commanded.add(record)
    path = commanded.path("masked", key_of(record))
    before = path.read_bytes()
    spec = {**record["spec"], "seed": 77}
    new = signed(record, spec=spec, seed=77, hash=runs.spec_hash(spec))
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as z:
        z.writestr("records/masked/a.json", signed(record, metrics={**record["metrics"], "nll_b": 0.5}))
        z.writestr("records/masked/b.json", new)
        z.writestr("records/masked/c.json", signed(record, seconds=1.5, commit="another"))  # the same numbers, from elsewhere
    assert cli.main(["add", str(tmp_path / "records.zip")]) == 2
    out, err = capsys.readouterr()
    assert out == "1 added, 1 known before, 1 refused\n"
    assert err.startswith("trm: refused: ") and err.count("\n") == 1 and key_of(record) in err
    assert path.read_bytes() == before
    assert len(commanded.records()) == 2


def test_a_single_record_file_is_added_under_its_own_key(store, record, tmp_path):
    (tmp_path / "whatever.json").write_text(signed(record))
    assert queue.add([tmp_path / "whatever.json"], store)["added"]
    assert written(store.root) == [store.path("masked", key_of(record))]


def evaluation(record, **changes):
    return {"experiment": "masked", "name": "leak_probe", "runs": [key_of(record)], "result": {"leak": 0.25}, **changes}


def test_a_single_evaluation_file_is_added(store, second, record):
    store.add(record)
    store.add_evaluation(evaluation(record))
    [path] = queue.evaluation_files(store)
    assert queue.add([path], second) == {"added": [f"evaluations/single/{path.name}"], "known": [], "refused": []}
    assert second.evaluations("masked", "leak_probe") == store.evaluations("masked", "leak_probe")


def test_a_pack_never_replaces_an_earlier_one(store, record, tmp_path):
    store.add(record)
    for _ in range(3):
        queue.pack(store, store.records(), [], tmp_path)
    assert sorted(p.name for p in tmp_path.glob("records*.zip")) == ["records-2.zip", "records-3.zip", "records.zip"]


def test_evaluations_travel_with_the_records(store, second, record, tmp_path):
    store.add(record)
    store.add_evaluation(evaluation(record))
    [path] = queue.evaluation_files(store)
    queue.pack(store, store.records(), [path], tmp_path)
    result = queue.add([tmp_path / "records.zip"], second)
    assert len(result["added"]) == 2 and not result["refused"]
    assert second.evaluations("masked", "leak_probe") == store.evaluations("masked", "leak_probe")
    assert len(queue.add([tmp_path / "records.zip"], second)["known"]) == 2
    path.unlink()
    store.add_evaluation(evaluation(record, result={"leak": 0.5}))
    before = path.read_bytes()
    result = queue.add([tmp_path / "records.zip"], store)
    assert len(result["known"]) == len(result["refused"]) == 1 and path.name in result["refused"][0]
    assert path.read_bytes() == before


# ---------------------------------------------------------------- hostile archives


def zipped(entries, path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, content in entries:
            z.writestr(name, content)
    return path


def refused(files, store):
    """The reasons for which `add` took nothing."""
    try:
        result = queue.add(files, store)
    except TrmError as e:
        return [str(e)]
    assert result["added"] == result["known"] == []
    return result["refused"]


def assert_refused(store, path, *words):
    """Refused in one line that has the words; not a file is written, in the store or elsewhere."""
    folder = path.parent
    before = files(folder)
    reasons = refused([path], store)
    assert len(reasons) == 1 and "\n" not in reasons[0]
    assert all(word in reasons[0] for word in words), reasons
    after = {p: content for p, content in files(folder).items() if content is not None}
    assert after == {p: content for p, content in before.items() if content is not None}


@pytest.mark.parametrize(
    "name",
    ["../../evil.json", "/tmp/trm-evil/x.json", "records/masked/../../x.json", "records/../x.json", "..\\..\\evil.json", "evil.json",
     "checkpoints/../../0123456789abcdef.cpu.fp32.safetensors", "checkpoints/x.safetensors", "records/masked/x.py", "records/masked/"],
)  # fmt: skip
def test_a_name_that_no_pack_has_is_refused(store, record, tmp_path, name):
    assert_refused(store, zipped([(zipfile.ZipInfo(name), signed(record))], tmp_path / "records.zip"), "not taken")
    assert not Path("/tmp/trm-evil").exists()


def test_the_store_alone_decides_where_a_record_lies(store, record, tmp_path):
    queue.add([zipped([("records/elsewhere/...json", signed(record))], tmp_path / "records.zip")], store)
    assert written(store.root) == [store.path("masked", key_of(record))]


def hostile(record):
    """(what, text of a record, words of the reason)"""
    return {
        "wrong digest": (json.dumps({**record, "digest": "0" * 64}), "digest"),
        "edited": (json.dumps({**record, "metrics": {}}), "digest"),
        "truncated": (signed(record)[:-20], "truncated"),
        "newer schema": (signed(record, schema=99), "schema 99"),
        "no schema": ("{}", "schema"),
        "not a dict": ("[]", "schema"),
        "field missing": (signed({k: v for k, v in record.items() if k != "metrics"}), "metrics"),
        "field of a wrong type": (signed(record, curve=[]), "curve"),
        "device without a kind": (signed(record, device={}), "device"),
        "device that climbs": (signed(record, device={**record["device"], "kind": "../../evil"}), "device"),
        "precision that climbs": (signed(record, precision="../../evil"), "known form"),
        "experiment that climbs": (signed(record, experiment="../../evil"), "experiment"),
        "unknown experiment": (signed(record, experiment="astrology"), "astrology"),
        "hash of another spec": (signed(record, hash="0" * 16), "hash"),
        "unknown status": (signed(record, status="perfect"), "status"),
        "no number": (json.dumps({**record, "metrics": {"nll": math.nan}}), ""),
        "infinity": (json.dumps({**record, "seconds": math.inf}), ""),
        "deep": ("[" * 100_000, ""),
        "deep inside": (signed(record)[:-1] + ', "x": ' + '{"a":' * 50_000 + "1" + "}" * 50_001, ""),
        "binary": (b"\xff\xfe\x00" * 100, "JSON"),
        "null bytes": ("\0" * 100, "JSON"),
        "endless number": (signed(record)[:-1] + ', "x": ' + "9" * 100_000 + "}", ""),
    }


WHAT = list(hostile(runs.rounded({"spec": {}, "device": {}, "metrics": {}, "seconds": 1.0})))


@pytest.mark.parametrize("what", WHAT)
def test_a_hostile_record_is_refused(store, record, tmp_path, what):
    text, word = hostile(record)[what]
    assert_refused(store, zipped([("records/masked/a.json", text)], tmp_path / "records.zip"), "records/masked/a.json", word)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"name": "../../evil"}, "known form"), ({"experiment": "../evil"}, "known form"), ({"experiment": "astrology"}, "astrology"),
     ({"runs": ["../../x"]}, "known form"), ({"runs": [1]}, "known form"), ({"result": []}, "result"), ({"schema": 99}, "schema 99")],
)  # fmt: skip
def test_a_hostile_evaluation_is_refused(store, second, record, tmp_path, changes, word):
    second.add_evaluation(evaluation(record))
    [whole] = second.evaluations("masked", "leak_probe")
    assert_refused(
        store, zipped([("evaluations/masked/a.json", signed(whole, **changes))], tmp_path / "a.zip"), "evaluations/masked/a.json", word
    )
    edited = json.dumps({**whole, "result": {"leak": 0.0}})
    assert_refused(store, zipped([("evaluations/masked/a.json", edited)], tmp_path / "b.zip"), "digest")


def test_a_link_in_an_archive_is_not_made(store, tmp_path):
    (tmp_path / "secret.json").write_text("secret")
    link = zipfile.ZipInfo("records/masked/link.json")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    path = zipped([(link, str(tmp_path / "secret.json"))], tmp_path / "records.zip")
    assert_refused(store, path, "JSON")
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


class Mine:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_no_code_in_a_checkpoint_is_run(store, tmp_path, how):
    evil, content = str(tmp_path / "evil"), io.BytesIO()
    (pickle.dump if how == "pickle" else torch.save)(Mine(evil), content)
    name = "checkpoints/0123456789abcdef.cpu.fp32.safetensors"
    assert_refused(store, zipped([(name, content.getvalue())], tmp_path / "checkpoints.zip"), "damaged")
    assert not Path(evil).exists()
    pickle.loads(pickle.dumps(Mine(evil)))
    assert Path(evil).exists()  # it would have


@pytest.mark.parametrize("meta", [None, "{}", '{"done": "much"}', '{"done": Infinity}', '{"done": NaN}', "[]", "[" * 100_000, "x"])
def test_a_checkpoint_that_does_not_say_how_far_it_is(store, tmp_path, meta):
    content = save({"w": torch.zeros(2)}, None if meta is None else {"trm": meta})
    name = "checkpoints/0123456789abcdef.cpu.fp32.safetensors"
    assert_refused(store, zipped([(name, content)], tmp_path / "checkpoints.zip"), "damaged")


def test_bombs_are_not_unpacked(store, record, tmp_path, monkeypatch):
    bomb = zipped([("records/masked/a.json", b" " * 10**7)], tmp_path / "a.zip")
    assert bomb.stat().st_size < 20_000
    assert_refused(store, bomb, "larger than")
    with monkeypatch.context() as m:
        m.setattr(queue, "LARGEST_RECORD", 1000)
        assert_refused(store, zipped([("records/masked/a.json", signed(record))], tmp_path / "b.zip"), "larger than 1000 bytes")
    many = zipped([(f"records/masked/{i}.json", "") for i in range(10_001)], tmp_path / "c.zip")
    assert_refused(store, many, "more than any pack")
    monkeypatch.setattr(queue, "LARGEST_CHECKPOINT", 10_000)
    assert_refused(
        store, zipped([(f"checkpoints/{i}.safetensors", b"\0" * 9_000) for i in range(3)], tmp_path / "d.zip"), "more than any pack"
    )
    (tmp_path / "e.zip").write_bytes(b"PK" + b"\0" * 20_000)
    assert_refused(store, tmp_path / "e.zip", "larger than any pack")


def broken_archives(good):
    central = good.rindex(b"PK\1\2")
    yield "not a zip", b"not a zip at all"
    yield "empty", b""
    yield "truncated", good[: len(good) // 2]
    yield "a byte flipped", good[:60] + bytes([good[60] ^ 255]) + good[61:]
    yield "encrypted", good[: central + 8] + b"\1" + good[central + 9 :]
    yield "unknown compression", good[: central + 10] + b"\x63\0" + good[central + 12 :]
    yield "lzma that is none", good[: central + 10] + b"\x0e\0" + good[central + 12 :]
    yield "bzip2 that is none", good[: central + 10] + b"\x0c\0" + good[central + 12 :]
    yield "name that is not utf-8", (good[: central + 9] + b"\x08" + good[central + 10 :]).replace(b"masked", b"\xff\xfe\xff\xfe\xff\xfe")


@pytest.mark.parametrize("what", [what for what, _ in broken_archives(b"PK\1\2" + b"\0" * 100)])
def test_a_broken_archive_is_refused(store, record, tmp_path, what):
    good = zipped([("records/masked/a.json", signed(record))], tmp_path / "good.zip").read_bytes()
    (tmp_path / "records.zip").write_bytes(dict(broken_archives(good))[what])
    assert_refused(store, tmp_path / "records.zip", "records.zip")


def test_a_part_that_claims_to_be_one_of_very_many_is_refused(store, tmp_path):
    (tmp_path / "checkpoints.zip.1of9999999").write_bytes(b"x")
    assert_refused(store, tmp_path / "checkpoints.zip.1of9999999", "checkpoints.zip.1of9999999")


# ---------------------------------------------------------------- divergence, full disk, dead workers, Ctrl-C


def test_a_diverged_run_is_recorded_as_failed_and_the_drain_goes_on(commanded, monkeypatch, capsys):
    bad, good = smoke_run(**small(lr=1e30, eval_every=1)), smoke_run(**small(seed=1))
    monkeypatch.setattr(masked, "grid", lambda profile: [bad, good])
    assert queue.worker_main(job_of([bad, good], commanded)) == 0
    events = [e for line in capsys.readouterr().out.splitlines() if (e := json.loads(line))["event"] != "step"]
    assert [(e["event"], e["key"]) for e in events] == [("failed", key(bad)), ("recorded", key(good))]
    failed = commanded.records()[key(bad)]
    assert failed["status"] == "failed" and "loss became" in failed["reason"]
    assert failed["curve"]["step"][0] == 1 and len(failed["curve"]["step"]) == failed["steps"] - 1 < bad.spec.train.steps
    assert all(math.isfinite(loss) for loss in failed["curve"]["train_loss"])
    assert not commanded.weights(key(bad)).exists()
    assert queue.pending([bad, good], commanded, "cpu", "fp32") == []
    cli.main(["list", "--json", "--profile", "smoke"])
    assert [r["status"] for r in json.loads(capsys.readouterr().out)] == ["failed", "recorded"]


def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(store, monkeypatch, capsys):
    run = smoke_run(**small())
    monkeypatch.setattr(masked, "grid", lambda profile: [run])
    with monkeypatch.context() as m:
        m.setattr(runs.os, "fsync", full)
        assert queue.worker_main(job_of([run], store)) == 74
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "error" and event["code"] == 74
    assert os.strerror(errno.ENOSPC) in event["message"] and "\n" not in event["message"]
    assert written(store.root.parent) == []
    queue.work([run], store, CPU)  # with space again
    assert list(store.records()) == [key(run)]


def test_a_cache_that_cannot_be_used_is_one_line(store, tmp_path, monkeypatch, capsys):
    run = smoke_run(**small())
    monkeypatch.setattr(masked, "grid", lambda profile: [run])
    (tmp_path / "file").write_text("")
    assert queue.worker_main(job_of([run], Store(store.root, tmp_path / "file" / "cache"))) == 74
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        event["event"] == "error"
        and event["message"].startswith(f"cannot use {tmp_path / 'file'}")
        and event["message"].endswith("nothing recorded was lost")
    )


def test_a_full_disk_while_adding_or_packing_is_no_refusal(commanded, whole, record, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text(signed(record))
    monkeypatch.setattr(runs.os, "fsync", full)
    assert cli.main(["add", str(tmp_path / "a.json")]) == 74
    err = capsys.readouterr().err
    assert os.strerror(errno.ENOSPC) in err and err.count("\n") == 1
    with pytest.raises(TrmError) as e:
        queue.pack(whole, whole.records(), [], tmp_path / "out")
    assert e.value.code == 74
    assert written(commanded.root) == written(tmp_path / "out") == []


def fake_worker(tmp_path, monkeypatch, script):
    """Let the queue start this shell script in place of its workers."""
    path = tmp_path / "worker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(queue.sys, "executable", str(path))


def test_what_a_worker_reports_reaches_the_user(commanded, tmp_path, monkeypatch, capsys):
    fake_worker(tmp_path, monkeypatch, """echo '{"event": "error", "message": "cannot write x: full", "code": 74}'; exit 74""")
    assert cli.main(["run", "joint", "--profile", "smoke", "--device", "cpu", "--seeds", "0", "--workers", "1", "--quiet"]) == 74
    assert capsys.readouterr().err == "trm: cannot write x: full\n"


def test_a_worker_that_dies_is_said_and_the_others_records_are_packed(commanded, record, tmp_path, monkeypatch, capsys):
    commanded.add(record)
    fake_worker(tmp_path, monkeypatch, f"""echo '{{"event": "recorded", "key": "{key_of(record)}"}}'; kill -9 $$""")
    out = tmp_path / "out"
    assert cli.main(["run", "joint", "--profile", "smoke", "--device", "cpu", "--workers", "1", "--out", str(out), "--quiet"]) == 1
    assert capsys.readouterr().err == "trm: a worker died (exit status -9); `trm run` again goes on from its checkpoint\n"
    with zipfile.ZipFile(out / "records.zip") as z:
        assert z.namelist() == [f"records/masked/{key_of(record)}.json"]


def test_an_evaluation_that_fails_keeps_nothing_from_the_pack(commanded, record, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise TrmError("weights x are damaged")

    commanded.add(record)
    monkeypatch.setattr(queue, "evaluate", fail)
    fake_worker(tmp_path, monkeypatch, f"""echo '{{"event": "recorded", "key": "{key_of(record)}"}}'""")
    out = tmp_path / "out"
    assert cli.main(["run", "joint", "--profile", "smoke", "--device", "cpu", "--workers", "1", "--out", str(out), "--quiet"]) == 2
    assert capsys.readouterr().err == "trm: weights x are damaged\n"
    with zipfile.ZipFile(out / "records.zip") as z:
        assert z.namelist() == [f"records/masked/{key_of(record)}.json"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, ZeroDivisionError])
def test_whatever_ends_an_evaluation_the_pack_is_made(commanded, record, tmp_path, monkeypatch, trouble):
    def fail(*_):
        raise trouble

    commanded.add(record)
    monkeypatch.setattr(queue, "evaluate", fail)
    fake_worker(tmp_path, monkeypatch, f"""echo '{{"event": "recorded", "key": "{key_of(record)}"}}'""")
    with pytest.raises(trouble):
        queue.drain(["joint"], "smoke", "cpu", workers=1, out=tmp_path / "out", quiet=True)
    with zipfile.ZipFile(tmp_path / "out" / "records.zip") as z:
        assert z.namelist() == [f"records/masked/{key_of(record)}.json"]


def test_a_worker_that_fails_of_an_error_says_so(commanded, tmp_path, monkeypatch, capsys):
    fake_worker(tmp_path, monkeypatch, "exit 1")
    assert cli.main(["run", "joint", "--profile", "smoke", "--device", "cpu", "--workers", "1", "--quiet"]) == 1
    assert capsys.readouterr().err == "trm: a worker died (exit status 1); the error above says of what\n"


def test_workers_get_the_job_and_one_thread_each(commanded, tmp_path, monkeypatch):
    monkeypatch.setattr(queue.os, "cpu_count", lambda: 2)
    fake_worker(tmp_path, monkeypatch, f"""printf '%s\\n%s\\n' "$3" "$OMP_NUM_THREADS" > {tmp_path}/$$.said""")
    assert queue.drain(["joint"], "smoke", "cpu", budget=100, quiet=True) == []
    said = [p.read_text().splitlines() for p in tmp_path.glob("*.said")]
    wanted = [r for r in masked.grid("smoke") if r.arm == "joint"]
    assert len(said) == 2 and {threads for _, threads in said} == {"1"}
    for job, _ in said:
        assert json.loads(job) == job_of(wanted, commanded, budget=100.0 - queue.RESERVE)


def alive(word):
    """Processes whose command line holds the word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(int(path.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_worker_and_loses_nothing(commanded, stop):
    command = [sys.executable, "-m", "trmlib.cli", "run", "--profile", "smoke", "--device", "cpu", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, start_new_session=True,
                               preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    said = b""

    def progress():
        nonlocal said
        said += process.stdout.read1() or b""
        return b" seed " in said  # any run: which one the bar names when it is drawn is chance

    try:
        os.set_blocking(process.stdout.fileno(), False)
        until(progress, lambda: process.poll() is None)
        assert len(alive(str(commanded.root))) == 1
        process.send_signal(stop)
        assert process.wait(60) == 130
        err = process.stderr.read().decode()
    finally:
        process.kill()
    left = alive(str(commanded.root))
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    recorded = len(commanded.records())
    said = re.fullmatch(
        r"trm: interrupted; (\d+) runs were recorded; the others go on from their checkpoints with the next `trm run`\n", err
    )
    assert said and int(said[1]) <= recorded
    following = queue.pending(masked.grid("smoke"), commanded, "cpu", "fp32")[:1]
    queue.work(following, commanded, CPU)
    assert len(commanded.records()) == recorded + 1
    assert load_file(commanded.weights(key(following[0])))


def test_a_record_is_the_same_text_wherever_it_is_written(store, record):
    store.add(record)
    assert canonical(store.load(store.path("masked", key_of(record)))) == canonical(record)
