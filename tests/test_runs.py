"""Names of runs, records that are whole or refused, atomic writes and locks."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import smoke_run

from trmlib.errors import TrmError, check
from trmlib.experiments.masked import grid
from trmlib.runs import (
    Run,
    Spec,
    Store,
    TrainConfig,
    canonical,
    device_info,
    digest,
    group_key,
    host,
    key_of,
    rounded,
    write_atomically,
)

REPOSITORY = Path(__file__).resolve().parents[1]


def a_record(**changes):
    """A record as `train` and the queue leave it, of the joint smoke run."""
    run = smoke_run("joint")
    record = {
        "schema": 1, "hash": run.spec.hash, "status": "recorded", "reason": "", "experiment": "masked", "arm": run.arm, "profile": "smoke",
        "seed": 0, "spec": run.spec.as_dict(), "steps": 60, "metrics": {"nll_b": 2.5, "accuracy_b": 0.25},
        "curve": {"step": [20, 40], "nll": [3.5, 2.75]}, "detail": {}, "parameters": 1000, "train_flops": 10, "inference_flops": 5,
        "serial_depth": 8, "seconds": 1.5, "device": {"kind": "cpu", "name": "some cpu", "threads": 1}, "precision": "fp32",
        "mode": {"seeds_at_once": 1}, "data": {"name": "toy-language"}, **host(),
    }  # fmt: skip
    return record | changes


def error(function, *args, **fields):
    """The one line of a TrmError."""
    with pytest.raises(TrmError) as e:
        function(*args, **fields)
    assert "\n" not in str(e.value)
    return str(e.value)


@pytest.fixture
def written(store):
    """Path of a stored record."""
    assert store.add(a_record())
    return store.path("masked", f"{smoke_run('joint').spec.hash}.cpu.fp32")


def rewrite(path, seal=True, **changes):
    """Change fields of a stored record (None removes), with a fitting digest or the old one."""
    record = {k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not None}
    if seal:
        record["digest"] = digest(record)
    path.write_text(json.dumps(record))


# Names


@pytest.mark.parametrize(
    "profile, arm, expected",
    [("full", "baseline", "ed1e79832dce5180"), ("full", "joint", "f6f169532a0b0f55"), ("smoke", "joint", "08af01cfc9b9b240")],
)
def test_hashes_stay_what_the_records_are_called(profile, arm, expected):
    assert next(r for r in grid(profile) if r.arm == arm and r.spec.seed == 0).spec.hash == expected


def test_hash_is_that_of_the_canonical_json_of_what_differs_from_the_defaults():
    text = '{"data":{},"experiment":"masked","model":{"passes":0},"seed":0,"train":{}}'
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "ed1e79832dce5180"
    spec = next(r for r in grid("full") if r.arm == "baseline").spec
    assert canonical(spec.as_dict()) == text
    assert replace(spec, train=replace(spec.train, steps=20_000)).hash == spec.hash
    changed = [replace(spec, seed=1), replace(spec, train=TrainConfig(steps=1)), replace(spec, experiment="other")]
    assert len({s.hash for s in (spec, *changed)}) == 4


def test_a_field_added_later_changes_no_hash():
    before = make_dataclass("Config", [("d", int, field(default=4))], frozen=True)
    after = make_dataclass("Config", [("d", int, field(default=4)), ("new", bool, field(default=False))], frozen=True)
    hashes = [Spec("e", config(d=8), before(), TrainConfig(), 0).hash for config in (before, after)]
    assert hashes[0] == hashes[1]
    assert Spec("e", after(d=8, new=True), before(), TrainConfig(), 0).hash != hashes[0]


def test_a_field_without_default_is_always_named():
    @dataclass(frozen=True)
    class Config:
        needed: int
        wished: int = 3

    assert Spec("e", Config(1), Config(2, 4), TrainConfig(), 0).as_dict()["model"] == {"needed": 1}
    assert Spec("e", Config(1), Config(2, 4), TrainConfig(), 0).as_dict()["data"] == {"needed": 2, "wished": 4}


@pytest.mark.parametrize(
    "fields, wrong",
    [
        ({"steps": 0}, "steps=0 must be a whole number ≥ 1"),
        ({"steps": 1e3}, "steps=1000.0 must be a whole number ≥ 1"),
        ({"lr": 0}, "lr=0 must be a number > 0"),
        ({"lr": float("nan")}, "lr=nan must be a number > 0"),
        ({"lr": "fast"}, "lr='fast' must be a number > 0"),
        ({"warmup": -1}, "warmup=-1 must be a whole number ≥ 0"),
        ({"clip": -1}, "clip=-1 must be a number ≥ 0"),
        ({"ema": 2}, "ema=2 must be a number from 0 to below 1"),
        ({"decay_to": -1}, "decay_to=-1 must be a number from 0 to 1"),
        ({"eval_every": 0}, "eval_every=0 must be a whole number ≥ 1"),
        ({"weights": "fp8"}, "weights='fp8' is unknown; choose one of fp32, bf16, fp16"),
        ({"optimizer": None}, "optimizer=None is unknown; choose one of adamw, muon"),
    ],
)
def test_a_training_that_cannot_be_is_one_line(fields, wrong):
    assert error(TrainConfig, **fields) == f"TrainConfig: {wrong}"


def test_postponed_annotations_are_checked_as_others_are():
    """Under `from __future__ import annotations` the type of a field is its name."""
    Config = make_dataclass("Config", [("n", "int"), ("lr", float), ("sizes", "tuple")])
    check(Config(1, 1, ()), n="≥ 1")
    for values, wrong in (((1.5, 1, ()), "n=1.5 must be a whole number ≥ 1"), ((0, 1, ()), "n=0 must be a whole number ≥ 1"),
                          ((1, True, ()), "lr=True must be a number"), ((1, 1, []), r"sizes=\[\] must be a tuple")):  # fmt: skip
        with pytest.raises(TrmError, match=f"^Config: {wrong}$"):
            check(Config(*values), n="≥ 1")


def test_a_seed_is_a_whole_number():
    for seed in (-1, 0.5, None):
        assert error(replace, smoke_run("joint").spec, seed=seed) == f"Spec: seed={seed} must be a whole number ≥ 0"


def test_arm_profile_and_priority_are_no_part_of_the_hash():
    run = smoke_run("joint")
    again = Run(run.spec, "another name", "cpu", 7)
    assert again.spec.hash == run.spec.hash
    assert not {"arm", "profile", "priority"} & set(run.spec.as_dict())


def test_group_key_of_one_run_is_its_records_key():
    a, b = smoke_run("joint").spec, smoke_run("joint", seed=1).spec
    assert group_key([a], "cpu", "bf16") == f"{a.hash}.cpu.bf16" == key_of(a_record(precision="bf16"))
    both = group_key([a, b], "cpu", "fp32")
    assert both == f"{hashlib.sha256(canonical([a.hash, b.hash]).encode()).hexdigest()[:16]}.cpu.fp32"
    assert both != group_key([b, a], "cpu", "fp32")


def test_canonical_json():
    assert canonical({"b": 1, "a": [True, None, 0.5, "é"]}) == '{"a":[true,null,0.5,"\\u00e9"],"b":1}'
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_rounded_makes_numbers_ready_for_json():
    value = {"f": 1 / 3, "list": (1e-10 / 3, 123456789.123), "array": np.array([[1, 2], [3, 4]]), "i": np.int64(7), "b": np.bool_(True)}
    value |= {"f32": np.float32(0.1), "bad": [float("nan"), float("inf"), np.float32("nan")], "s": "x", "none": None, "int": 123456789}
    got = rounded(value)
    expected = {"f": 0.3333333, "list": [3.333333e-11, 123456800.0], "array": [[1, 2], [3, 4]], "i": 7, "b": True}
    expected |= {"f32": 0.1, "bad": [None, None, None], "s": "x", "none": None, "int": 123456789}
    assert got == expected
    assert json.loads(canonical(got)) == expected
    assert rounded(2 / 3, digits=3) == 0.667
    assert rounded(got) == got


def test_device_info_names_the_kind():
    info = device_info(torch.device("cpu"))
    assert (info["kind"], info["threads"]) == ("cpu", 1)
    assert info["name"]


# Records


def test_a_record_comes_back_as_it_was_added(store, written):
    text = written.read_text()
    loaded = store.load(written)
    assert {k: v for k, v in loaded.items() if k != "digest"} == a_record()
    assert loaded["digest"] == digest(a_record())
    assert text == json.dumps(loaded, sort_keys=True, indent=1) + "\n"
    assert store.records() == store.records("masked") == {key_of(loaded): loaded}
    assert store.records("other") == {}


def test_numbers_are_rounded_on_the_way_in(store):
    assert store.add(a_record(metrics={"nll_b": np.float32(1 / 3), "gone": float("nan")}))
    (record,) = store.records().values()
    assert record["metrics"] == {"nll_b": 0.3333333, "gone": None}


def test_another_device_or_precision_is_a_replicate(store, written):
    assert store.add(a_record(precision="bf16"))
    assert store.add(a_record(device={"kind": "nvidia-t4", "name": "T4", "threads": 2}))
    name = smoke_run("joint").spec.hash
    assert set(store.records()) == {f"{name}.cpu.fp32", f"{name}.cpu.bf16", f"{name}.nvidia-t4.fp32"}


def test_the_same_numbers_may_be_added_again(store, written):
    before = written.read_bytes()
    assert store.add(a_record(seconds=99.0, commit="0123456789ab", versions={"torch": "9"})) is False
    assert written.read_bytes() == before


@pytest.mark.parametrize("other", [{"metrics": {"nll_b": 2.6}}, {"curve": {}}, {"status": "failed"}, {"steps": 40}, {"parameters": 7}])
def test_other_numbers_are_refused_and_nothing_is_overwritten(store, written, other):
    before = written.read_bytes()
    line = error(store.add, a_record(**other))
    assert line == f"{written} already holds other numbers for run {written.stem}; nothing was overwritten"
    assert written.read_bytes() == before


def test_an_edited_record_is_refused(store, written):
    rewrite(written, seal=False, metrics={"nll_b": 2.4, "accuracy_b": 0.25})
    expected = f"record {written} was edited or damaged (its digest does not match); restore it (git checkout) or move it away"
    assert error(store.load, written) == expected
    assert error(store.records) == expected


def test_an_edit_that_is_no_number_is_refused(store, written):
    written.write_text(written.read_text().replace("2.5", "NaN"))
    assert error(store.load, written).startswith(f"record {written} ")


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_truncated_record_is_refused(store, written, keep):
    written.write_text(written.read_text()[:keep])
    line = error(store.load, written)
    assert line.startswith(f"record {written} is truncated or not JSON (")
    assert line.endswith("); restore it (git checkout) or move it away")


def test_a_record_nested_too_deep_is_refused(store, written):
    written.write_text(written.read_text()[:-2] + ', "x": ' + "[" * 50_000 + "]" * 50_000 + "}")
    assert error(store.load, written).startswith(f"record {written} is truncated or not JSON (maximum recursion depth")


def test_bytes_that_are_no_text_are_refused(store, written):
    written.write_bytes(b"\xff\xfe" + written.read_bytes()[:50])
    assert error(store.load, written).startswith(f"record {written} is truncated or not JSON (")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"schema": "1"}'])
def test_json_without_schema_is_refused(store, written, text):
    written.write_text(text)
    assert error(store.load, written) == f"record {written} has no schema number; restore it (git checkout) or move it away"


def test_a_newer_schema_asks_for_an_update(store, written):
    rewrite(written, schema=2)
    assert error(store.load, written) == f"record {written} has schema 2, this version reads up to 1; update trmlib"


@pytest.mark.parametrize("name", sorted(set(a_record()) - {"schema"}))
def test_a_missing_field_is_named(store, written, name):
    rewrite(written, **{name: None})
    assert error(store.load, written).startswith(f"record {written}: field {name!r} is missing or not ")


def test_a_field_of_another_kind_is_named(store, written):
    rewrite(written, steps="60")
    assert error(store.load, written) == f"record {written}: field 'steps' is missing or not int; restore it or move it away"


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"hash": "0" * 16}, "its hash 0000000000000000 is not that of its spec"),
        ({"spec": {"experiment": "masked"}}, "is not that of its spec"),
        ({"status": "fine"}, "status, hash or device is not of the known form"),
        ({"precision": "FP 32"}, "status, hash or device is not of the known form"),
        ({"device": {"kind": "../../x"}}, "status, hash or device is not of the known form"),
        ({"device": {"name": "no kind"}}, "device"),
        ({"experiment": "../masked"}, "experiment '../masked' is not of the known form"),
    ],
)
def test_a_sealed_record_of_unknown_form_is_refused(store, written, changes, problem):
    rewrite(written, **changes)
    line = error(store.load, written)
    assert line.startswith(f"record {written}: ") and problem in line


def test_corrected_fields_are_read_in_place_of_the_records_own(store, written):
    path, before = store.root / "corrections.json", written.read_bytes()
    path.write_text(json.dumps({written.stem: {"train_flops": 99}}))
    assert Store(store.root).load(written)["train_flops"] == 99 and written.read_bytes() == before
    for damage in ("{", json.dumps({written.stem: {"flops": 99}}), "[]"):
        path.write_text(damage)
        assert error(Store(store.root).load, written).startswith(f"{path} is damaged (")


def test_a_renamed_record_is_refused(store, written):
    other = written.rename(written.with_name(f"{'0' * 16}.cpu.fp32.json"))
    assert error(store.load, other) == f"record {other} holds run {written.stem}; its name and content disagree"


def test_nothing_unreadable_is_ever_added(store):
    assert "field 'steps' is missing or not int" in error(store.add, a_record(steps=None))
    assert "experiment '../x' is not of the known form" in error(store.add, a_record(experiment="../x"))
    assert not store.root.exists()


def test_where_a_store_lies(tmp_path, monkeypatch):
    assert (Store().root, Store().cache) == (REPOSITORY / "data" / "results", REPOSITORY / "data" / "cache")
    monkeypatch.setenv("TRM_RESULTS", str(tmp_path / "a" / "results"))
    assert (Store().root, Store().cache) == (tmp_path / "a" / "results", tmp_path / "a" / "cache")
    monkeypatch.setenv("TRM_CACHE", str(tmp_path / "b"))
    assert (Store().cache, Store(tmp_path / "c").root) == (tmp_path / "b", tmp_path / "c")


# Writing


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_atomically_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_must_be_new_never_replaces_what_another_process_wrote(tmp_path):
    path = tmp_path / "file"
    assert write_atomically(path, b"first", new=True) and not write_atomically(path, b"second", new=True)
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_a_record_written_between_check_and_write_is_kept(tmp_path, monkeypatch):
    store, record = Store(tmp_path), a_record()
    Store(tmp_path).add(record)
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda p: p.suffix != ".json" and real(p))  # as if it came a moment later
    assert store.add(record) is False
    with pytest.raises(TrmError, match="already holds other numbers"):
        store.add(record | {"steps": record["steps"] + 1})


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(TrmError) as e:
        write_atomically(path, b"new")
    assert e.value.code == 74
    assert str(e.value) == f"cannot write {path}: No space left on device; free some space and run again, nothing recorded was lost"
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"


def test_a_full_disk_leaves_no_record(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(TrmError) as e:
        store.add(a_record())
    assert e.value.code == 74
    assert [p for p in store.root.rglob("*") if p.is_file()] == []
    monkeypatch.undo()
    assert store.add(a_record())


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(TrmError) as e:
        write_atomically(tmp_path / "results" / "record.json", b"")
    assert e.value.code == 74 and str(e.value).startswith(f"cannot write {tmp_path / 'results' / 'record.json'}: ")


# Locks

HOLDER = """
import sys, time
from trmlib.runs import Store
store = Store(sys.argv[1])
with store.lock("ours") as ours, store.lock("theirs") as theirs:
    print(ours, theirs, flush=True)
    time.sleep(600)
"""


def test_a_lock_keeps_other_processes_out_until_its_holder_dies(store):
    with store.lock("ours") as ours:
        assert ours is True
        process = subprocess.Popen([sys.executable, "-c", HOLDER, store.root], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        try:
            assert process.stdout.readline() == "False True\n"
            with store.lock("theirs") as theirs:
                assert theirs is False
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
            with store.lock("theirs") as theirs:
                assert theirs is True
        finally:
            process.kill()
            process.communicate()


def test_a_lock_is_free_again_after_its_block(store):
    with store.lock("key") as first, store.lock("key") as second, store.lock("other") as third:
        assert (first, second, third) == (True, False, True)
    with store.lock("key") as again:
        assert again is True
    with pytest.raises(RuntimeError), store.lock("key"):
        raise RuntimeError("a run that breaks")
    with store.lock("key") as again:
        assert again is True
