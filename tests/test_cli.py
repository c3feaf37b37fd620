"""The command `trm`: what it prints, where, and its exit status."""

import json
import lzma
import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trmlib import bench, checkpoints, cli, experiments, flops, queue, tables, verify
from trmlib.data import sources
from trmlib.errors import TrmError
from trmlib.experiments import masked, module
from trmlib.runs import FIELDS, Store, digest, key_of

README = Path(__file__).resolve().parents[1] / "README.md"
ROW = {"experiment", "arm", "seed", "profile", "status", "steps", "parameters", "train_flops", "device", "seconds", "metrics"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with one recorded smoke run: baseline, seed 0."""
    store = Store(tmp_path_factory.mktemp("trained") / "results")
    queue.work([r for r in masked.grid("smoke") if (r.arm, r.spec.seed) == ("baseline", 0)], store, torch.device("cpu"))
    return store


@pytest.fixture
def empty(store, monkeypatch):
    """The store of the command, without records."""
    monkeypatch.setenv("TRM_RESULTS", str(store.root))
    monkeypatch.setenv("TRM_CACHE", str(store.cache))
    return store


@pytest.fixture
def record(trained):
    return next(iter(trained.records().values()))


@pytest.fixture
def store_with_run(empty, record):
    """The store of the command, with the one record."""
    empty.add(record)
    return empty


@pytest.fixture
def trm(capsys):
    """Call the command; returns (exit status, standard output, standard error)."""

    def call(*words):
        try:
            status = cli.main(list(words))
        except SystemExit as e:
            status = e.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def document(trm):
    """Call the command with --json; returns (exit status, the one document that it printed)."""

    def call(*words):
        status, out, err = trm(*words, "--json")
        assert err == ""
        return status, json.loads(out)

    return call


@pytest.fixture
def complaint(trm):
    """Call the command, which must exit with `status` and print one line on standard error, which is returned."""

    def call(*words, status=2):
        got, out, err = trm(*words)
        assert (got, out) == (status, "")
        assert err.startswith("trm") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return call


# ---------------------------------------------------------------- list, show


def test_list_json_has_a_row_for_every_run(store_with_run, record, document):
    status, rows = document("list")
    assert status == 0
    assert len(rows) == sum(len(masked.grid(p)) for p in ("smoke", "cpu", "full"))
    assert all(set(r) >= ROW for r in rows)
    done = [r for r in rows if r["status"] == "recorded"]
    assert len(done) == 1 and {r["status"] for r in rows} == {"recorded", "pending"}
    copied = {k: record[k] for k in ROW - {"device"}} | {"device": "cpu"}
    assert {k: done[0][k] for k in ROW} == copied
    waiting = next(r for r in rows if r["status"] == "pending" and r["profile"] == "smoke")
    assert waiting["metrics"] is None and waiting["steps"] == 40
    assert waiting["estimated_seconds"] == pytest.approx(record["seconds"])


def test_list_json_keeps_to_the_pattern_and_the_profile(empty, document):
    assert {(r["arm"], r["profile"]) for r in document("list", "joint", "--profile", "cpu")[1]} == {("joint", "cpu")}
    assert {(r["arm"], r["profile"]) for r in document("list", "joint", "masked/1-*")[1]} == {
        (arm, profile) for arm in ("joint", "1-pass") for profile in ("smoke", "cpu", "full")
    }


def test_a_pattern_of_one_profile_is_enough_for_a_list_of_all(empty, document):
    arm = "joint (100 words)"  # at smoke scale only
    assert {(r["arm"], r["profile"]) for r in document("list", arm)[1]} == {(arm, "smoke")}
    rows = document("list", arm, "baseline")[1]
    assert {(r["arm"], r["profile"]) for r in rows} == {(arm, "smoke"), *(("baseline", p) for p in ("smoke", "cpu", "full"))}


def test_list_prints_a_row_an_arm(store_with_run, trm):
    status, out, _ = trm("list", "--profile", "smoke")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert lines[0] == ["profile", "experiment", "arm", "device", "recorded", "pending", "failed", "minutes", "priority"]
    assert [line[:7] for line in lines if line[2] == "baseline" and line[3] == "cpu"] == [
        ["smoke", "masked", "baseline", "cpu", "1", "0", "0"]
    ]
    assert [line[:6] for line in lines if line[2] == "4-blocks"] == [["smoke", "masked", "4-blocks", "0", "2", "0"]]


def test_the_cost_of_an_unknown_arm_follows_the_recorded_one_whose_steps_are_most_like_its_own():
    by_cost = {flops.forward(r.spec): r for r in masked.grid("smoke")}
    cheap, *_, wanted, dear = sorted(by_cost)
    recorded = [
        {"hash": by_cost[f].spec.hash, "experiment": "masked", "arm": "a", "profile": "smoke", "seconds": seconds, "steps": 60}
        for f, seconds in ((cheap, 600.0), (dear, 6.0))
    ]
    store = SimpleNamespace(records=lambda: {r["hash"]: r for r in recorded})
    row = {
        "hash": by_cost[wanted].spec.hash,
        "experiment": "masked",
        "arm": "b",
        "profile": "smoke",
        "status": "pending",
        "steps": 30,
        "seconds": None,
    }
    assert tables.estimated([row], store)[0]["estimated_seconds"] == pytest.approx(3.0 * wanted / dear)


def test_list_pending_ends_with_an_estimate(store_with_run, record, trm, document, monkeypatch):
    runs = {r.spec.hash: r for r in masked.grid("smoke")}
    own = runs.pop(record["hash"])
    work = {h: (1 if r.arm == own.arm else flops.forward(r.spec) / flops.forward(own.spec)) * r.spec.train.steps for h, r in runs.items()}
    expected = {h: record["seconds"] / record["steps"] * w for h, w in work.items()}
    waiting = [r for r in document("list", "--profile", "smoke")[1] if r["status"] == "pending"]
    assert {r["hash"]: r["estimated_seconds"] for r in waiting} == pytest.approx(expected)
    assert expected[next(r.spec.hash for r in masked.grid("smoke") if r.arm == "8-passes")] > 1.5 * record["seconds"]
    status, out, _ = trm("list", "--pending", "--profile", "smoke")
    assert out.splitlines()[0].split()[-1] == "priority" and {r["hash"]: r["priority"] for r in waiting} == {
        h: r.priority for h, r in runs.items()
    }
    hours = sum(expected.values()) / 3600
    assert status == 0 and out.splitlines()[-1] == (
        f"{len(runs)} runs pending, about {hours:.1f} core-hours at the speed of the recorded ones; `trm run` trains them"
    )
    monkeypatch.setattr(masked, "grid", lambda profile: [own])
    experiments.grid.cache_clear()
    assert trm("list", "--pending", "--profile", "smoke") == (0, "no run is pending\n", "")


def test_a_model_of_ones_own_has_no_estimate_and_stops_nobody_elses(store_with_run, document, monkeypatch):
    @dataclass(frozen=True)
    class Own:
        d: int = 1

    known, run = (next(r for r in masked.grid("smoke") if r.arm == arm) for arm in ("baseline", "joint"))
    own = replace(run, arm="own", spec=replace(run.spec, model=Own()))
    monkeypatch.setattr(masked, "grid", lambda profile: [known, run, own] if profile == "smoke" else [])
    experiments.grid.cache_clear()
    rows = {r["arm"]: r.get("estimated_seconds") for r in document("list", "masked", "--profile", "smoke")[1]}
    assert rows["own"] is None and rows["joint"] > 0


def test_a_list_without_records_has_no_estimate(empty, trm):
    n = len(masked.grid("smoke"))
    assert trm("list", "--pending", "--profile", "smoke")[1].splitlines()[-1] == (
        f"{n} runs pending (no record says how long); `trm run` trains them"
    )


def named(record):
    """The forms of RUN."""
    names = [("baseline/0", "--profile", "smoke"), ("masked/baseline/0", "--profile", "smoke")]
    return [(record["hash"],), (record["hash"][:6],), (key_of(record),), *names]


def test_show_finds_a_run_by_hash_and_by_name(store_with_run, record, document, trm):
    for words in named(record):
        assert document("show", *words) == (0, [record])
    status, out, _ = trm("show", record["hash"])
    assert status == 0 and out.startswith("masked / baseline / seed 0 (smoke), recorded\n") and str(record["metrics"]) in out


@pytest.mark.parametrize("run", ["baseline/0", "baseline/1", "nothing/0", "ffffffffffff", ""])
def test_show_of_an_unknown_run(store_with_run, complaint, run):
    assert repr(run) in complaint("show", run)


def test_keep_knows_a_run_by_the_same_names_as_show(trained, record, trm, complaint, monkeypatch, tmp_path):
    monkeypatch.setenv("TRM_RESULTS", str(trained.root))
    monkeypatch.setenv("TRM_CACHE", str(trained.cache))
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "kept")
    for i, (run, *options) in enumerate(named(record)):
        path = tmp_path / "kept" / f"mine-{i}.safetensors"
        assert trm("keep", run, f"mine-{i}", *options) == (0, f"kept {path}\n", "") and path.exists()
    for run in ("baseline/0", "masked/baseline/1", "ffffffffffff", ""):
        assert complaint("keep", run, "other") == (
            f"trm: no record of run {run!r} at profile full; `trm list` names the runs (a run has a record once it is trained)\n"
        )


def test_keep_wants_one_record_of_several(store_with_run, record, complaint):
    store_with_run.add({**record, "precision": "bf16"})
    line = complaint("keep", "baseline/0", "mine", "--profile", "smoke")
    both = f"{record['hash']}.cpu.bf16, {record['hash']}.cpu.fp32"
    assert line == f"trm: 2 records are of run 'baseline/0': {both}; name one by its key\n"


# ---------------------------------------------------------------- bad words


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("list", "jiont", "--profile", "smoke"), "'jiont'"),
        (("list", "jiont", "--json"), "'jiont'"),
        (("list", "joint", "nonsense*", "--json"), "'nonsense*'"),
        (("run", "jiont", "--profile", "smoke"), "'jiont'"),
        (("run", "nlp/joint", "--profile", "smoke"), "'nlp/joint'"),
        (("run", "joint", "--profile", "smoke", "--seeds", "0,99"), "99"),
        (("run", "joint", "--profile", "huge"), "'huge'"),
        (("list", "--profile", "huge"), "'huge'"),
        (("run", "joint", "--device", "abacus"), "'abacus'"),
        (("run", "joint", "--budget", "soon"), "'soon'"),
        (("run", "joint", "--workers", "0"), "'0'"),
        (("run", "joint", "--workers", "²"), "'²'"),
        (("run", "joint", "--seeds", "one"), "'one'"),
        (("run", "joint", "--precision", "fp8"), "'fp8'"),
        (("verify", "-n", "none"), "'none'"),
        (("bench", "jiont", "--profile", "smoke"), "'jiont'"),
        (("dance",), "'dance'"),
        ((), "command"),
        (("data", "burn"), "'burn'"),
        (("data", "check", "wikitext-3"), "'wikitext-3'"),
    ],
)
def test_a_wrong_word_is_one_line_that_names_it(empty, complaint, words, named):
    assert named in complaint(*words)
    assert not empty.root.parent.exists() or not [p for p in empty.root.parent.rglob("*") if p.is_file()]


def test_unknown_names_list_the_known(complaint, empty):
    assert "did you mean joint, " in complaint("run", "jiont", "--profile", "smoke")
    assert "smoke" in complaint("params", "--profile", "huge")
    with pytest.raises(Exception, match="masked"):
        module("astrology")


def test_two_arms_that_are_the_same_run_are_refused(empty, complaint, monkeypatch):
    models = masked.MODELS | {"8-heads": replace(masked.JOINT, heads=8)}  # the smoke profile has its own heads
    monkeypatch.setattr(masked, "MODELS", models)
    assert complaint("list", "--profile", "smoke") == (
        "trm: arms 'joint' and '8-heads' of masked are the same run at profile smoke, which may set widths and heads of its own; "
        "change another field of one, or drop it\n"
    )
    assert "8-heads" in {r.arm for r in experiments.grid("full")}


def test_the_arm_of_the_readme_is_a_run_of_its_own_at_every_profile(monkeypatch):
    [(name, model)] = re.findall(r'say `"(.*?)": (.*?)`', README.read_text())
    monkeypatch.setattr(masked, "MODELS", masked.MODELS | {name: eval(model, {"replace": replace, "JOINT": masked.JOINT})})
    for profile in experiments.PROFILES:
        assert name in {r.arm for r in experiments.grid(profile)}


def test_an_experiment_that_lacks_something_is_one_line(empty, complaint, monkeypatch):
    monkeypatch.delattr(masked.evaluations, "GROUP_SEEDS")
    line = "trm: experiment masked has no {}; trmlib/experiments/__init__.py says what one needs\n"
    assert complaint("list") == line.format("evaluations.GROUP_SEEDS")
    monkeypatch.delattr(masked, "evaluations")
    monkeypatch.delattr(masked, "build")
    assert complaint("run", "--profile", "smoke") == line.format("build, evaluations")


def test_a_bad_config_of_an_arm_is_one_line(empty, complaint, monkeypatch):
    def grid(profile):
        raise AssertionError(replace(masked.JOINT, n=1.5))

    monkeypatch.setattr(masked, "grid", grid)
    assert complaint("run", "--profile", "smoke") == "trm: MaskedConfig: n=1.5 must be a whole number ≥ 0\n"


@pytest.mark.parametrize(("text", "seconds"), [("9m", 540), ("1.5h", 5400), ("90s", 90), ("42", 42), ("0.5", 0.5)])
def test_durations(text, seconds):
    assert cli.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "0", "0m", "-3s", "9 parsecs", "nan", "nanm", "inf", "infh", "1e999", "9mm"])
def test_bad_durations(empty, complaint, text):
    assert f"{text!r} is not a duration" in complaint("run", f"--budget={text}")


@pytest.mark.parametrize(("text", "seeds"), [("0", [0]), ("0,1,4-6", [0, 1, 4, 5, 6]), ("3-3", [3]), ("100-102,7", [100, 101, 102, 7])])
def test_seed_lists(text, seeds):
    assert cli.seed_list(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "1-", "3-1", "1-2-9", "1.5", "0-9999999"])
def test_bad_seed_lists(empty, complaint, text):
    assert f"{text!r} is not a list of seeds" in complaint("run", f"--seeds={text}")


def test_help_names_every_command(trm):
    status, out, _ = trm("--help")
    assert status == 0
    for command in ("list", "run", "evaluate", "add", "show", "params", "data", "verify", "bench"):
        assert command in out
        assert trm(command, "--help")[0] == 0


def test_an_interruption_is_one_line(complaint, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "do_params", stop)
    assert complaint("params", status=130) == "trm: interrupted; nothing was lost\n"


def test_an_out_folder_that_cannot_be_is_one_line(empty, complaint, tmp_path):
    (tmp_path / "file").write_text("")
    run = ("run", "--profile", "smoke", "--device", "cpu", "--out")
    assert complaint(*run, str(tmp_path / "file")) == f"trm: --out {tmp_path / 'file'} is a file; name a folder\n"
    assert "file/folder" in complaint(*run, str(tmp_path / "file" / "folder"), status=74)


# ---------------------------------------------------------------- params, data, add, verify, bench


def test_params_counts_the_two_earlier_models(document, trm):
    status, rows = document("params")
    assert status == 0
    counts = {r["arm"]: r["parameters"] for r in rows}
    assert (counts["baseline"], counts["joint"]) == (1_678_848, 2_075_392)
    assert list(counts) == list(dict.fromkeys(r.arm for r in masked.grid("full")))
    assert "1,678,848" in trm("params")[1]


def test_params_goes_on_where_a_size_follows_from_a_missing_corpus(trm, monkeypatch):
    def build(spec):
        if spec.seed == 0 and spec.model == missing:
            raise TrmError("a text is not there")
        return torch.nn.Linear(2, 3)

    missing = masked.grid("full")[0].spec.model
    monkeypatch.setattr(masked, "build", build)
    status, out, err = trm("params")
    assert (status, err) == (2, "trm: not counted: a text is not there\n")
    lines = out.splitlines()
    assert lines[1].split()[-1] == "baseline" and lines[2].split()[-1] == "9"


def test_data_check_of_an_empty_root(tmp_path, monkeypatch, document, trm):
    monkeypatch.setenv("TRM_DATA", str(tmp_path))
    status, rows = document("data", "check")
    assert status == 2
    assert [(r["corpus"], r["split"], r["ok"]) for r in rows] == [(c.name, s, False) for c in sources.CORPORA.values() for s in c.splits]
    assert all("not below a data root" in r["state"] for r in rows)
    status, out, _ = trm("data")
    assert status == 2 and len(out.splitlines()) == 1 + len(rows)


def test_data_check_names_each_trouble(tmp_path, monkeypatch, document):
    monkeypatch.setenv("TRM_DATA", "/elsewhere")
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    (folder / "train.txt.xz").write_bytes(lzma.compress(b"a text " * 1000)[:-30])
    (folder / "validation.txt").write_text("another text")
    status, out = document("--data-root", str(tmp_path), "data", "check", "wikitext-2")
    rows = {r["split"]: r for r in out}
    assert status == 2 and len(out) == 3 and not any(r["ok"] for r in out)
    assert "truncated" in rows["train"]["state"] and "train.txt.xz" in rows["train"]["state"]
    assert "sha256" in rows["validation"]["state"] and "validation.txt" in rows["validation"]["state"]
    assert "not below a data root" in rows["test"]["state"]


def test_data_check_of_a_whole_corpus(tmp_path, monkeypatch, document):
    monkeypatch.setenv("TRM_DATA", str(tmp_path))
    known = sources.Corpus("tiny", "tiny", None, "1 kB", "none", {"train": "train"}, {})
    monkeypatch.setattr(sources, "CORPORA", {"tiny": known})
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "train.txt").write_text("a b c\n")
    status, rows = document("data")
    assert status == 0 and rows[0]["ok"]


def test_add_counts_and_repeats_harmlessly(empty, record, tmp_path, trm, document):
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert trm("add", str(tmp_path / "a.json")) == (0, "1 added, 0 known before, 0 refused\n", "")
    assert trm("add", str(tmp_path / "a.json")) == (0, "0 added, 1 known before, 0 refused\n", "")
    assert list(empty.records().values()) == [record]
    (tmp_path / "b.json").write_text(json.dumps({**record, "seconds": 1.0}))
    status, result = document("add", str(tmp_path / "b.json"))
    assert status == 2 and len(result["refused"]) == 1 and "digest" in result["refused"][0]


def test_add_takes_what_is_good_and_names_each_bad_file(empty, record, tmp_path, trm):
    (tmp_path / "good.json").write_text(json.dumps(record))
    (tmp_path / "cut.json").write_text(json.dumps(record)[:99])
    (tmp_path / "not.zip").write_text("no archive")
    bad = [tmp_path / "nowhere.zip", tmp_path / "cut.json", tmp_path, tmp_path / "not.zip"]
    status, out, err = trm("add", *map(str, bad), str(tmp_path / "good.json"))
    assert (status, out) == (2, "1 added, 0 known before, 4 refused\n") and list(empty.records().values()) == [record]
    lines = err.splitlines()
    assert [line.startswith("trm: refused: ") for line in lines] == [True] * 4
    assert all(name in line for name, line in zip(("nowhere.zip", "cut.json", str(tmp_path), "not.zip"), lines, strict=True))


def edited(store, record, **metrics):
    """Put a record with other metrics, and a digest that fits, in place of the store's."""
    path = store.path(record["experiment"], key_of(record))
    path.unlink(missing_ok=True)
    store.add({**record, "metrics": {**record["metrics"], **metrics}})
    return path


def test_verify_agrees_with_a_fresh_record_and_not_with_an_invented_one(store_with_run, record, document):
    assert record["metrics"]["nll_all"] < 0.9 * math.log(90)  # it learned something
    status, rows = document("verify", "-n", "1")
    assert status == 0 and len(rows) == 1
    assert rows[0]["run"] == "baseline/0" and rows[0]["agrees"] is True
    assert rows[0]["largest_gap"] <= rows[0]["tolerance"] == 1e-5
    invented = record["metrics"]["nll_b"] - 0.3
    edited(store_with_run, record, nll_b=invented)
    status, rows = document("verify", "--profile", "smoke")
    assert status == 1
    assert rows[0]["agrees"] is False and rows[0]["largest_gap"] == pytest.approx(0.3, abs=1e-4)


def test_verify_is_lenient_with_records_from_elsewhere_only(store_with_run, record, document, monkeypatch):
    monkeypatch.setattr(verify, "train", lambda *_: [record])
    shifted = {"metrics": {**record["metrics"], "nll_all": record["metrics"]["nll_all"] + 1e-3}}
    path = edited(store_with_run, record, **shifted["metrics"])
    assert document("verify")[0] == 1
    for elsewhere in ({"device": {**record["device"], "name": "abacus"}}, {"versions": {**record["versions"], "torch": "0.1"}}):
        path.unlink()
        store_with_run.add({**record, **shifted, **elsewhere})
        status, rows = document("verify")
        assert status == 0 and rows[0]["tolerance"] == 0.05, elsewhere


def test_verify_trains_with_the_records_threads_and_a_diverged_rerun_disagrees(store_with_run, record, document, monkeypatch):
    path = store_with_run.path("masked", key_of(record))
    path.unlink()
    store_with_run.add({**record, "device": {**record["device"], "threads": 3}})
    seen = []

    def diverging(*args):
        seen.append(torch.get_num_threads())
        return [{**record, "status": "failed", "metrics": {"nll_a": 4.5, "nll_b": None, "nll_all": 4.5}}]

    monkeypatch.setattr(verify, "train", diverging)
    before = torch.get_num_threads()
    status, rows = document("verify")
    assert status == 1 and rows[0]["agrees"] is False and rows[0]["largest_gap"] is None
    assert seen == [3] and torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("metrics", "again", "gap"), [({"mse": 0.5, "who": "me"}, {"mse": 0.5}, 0.0), ({"mse": 0.5, "hits": 3}, {"mse": 0.5, "hits": 4}, 1.0)]
)
def test_verify_compares_the_numbers_that_there_are(store_with_run, record, document, monkeypatch, metrics, again, gap):
    store_with_run.path("masked", key_of(record)).unlink()
    store_with_run.add({**record, "metrics": metrics})
    monkeypatch.setattr(verify, "train", lambda *_: [{**record, "metrics": again}])
    status, (row,) = document("verify")
    shown = {k: row[k] for k in ("measure", "recorded", "retrained", "largest_gap", "agrees")}
    first = next(iter(sorted(metrics)))
    assert shown == {"measure": first, "recorded": metrics[first], "retrained": again[first], "largest_gap": gap, "agrees": gap == 0}
    assert status == (gap > 0)


def test_verify_of_a_record_without_numbers(store_with_run, record, complaint, monkeypatch):
    store_with_run.path("masked", key_of(record)).unlink()
    store_with_run.add({**record, "metrics": {"who": "me"}})
    monkeypatch.setattr(verify, "train", lambda *_: [record])
    assert complaint("verify") == f"trm: record {key_of(record)} (masked/baseline/0) has no numbers to compare\n"


def test_verify_without_records(empty, document, trm):
    assert document("verify") == (0, [])
    assert trm("verify")[1] == "no record to verify\n"


def test_bench_gives_positive_numbers_for_one_seed_and_eight(document, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, rows = document("bench", "baseline", "--profile", "smoke", "--seconds", "0.05")
    assert status == 0
    assert {(r["experiment"], r["arm"], r["seeds"]) for r in rows} == {("masked", "baseline", 1), ("masked", "baseline", 8)}
    for r in rows:
        assert all(r[k] > 0 for k in ("ms_per_step", "seed_steps_per_s", "share_of_peak"))
        assert r["seed_steps_per_s"] == pytest.approx(r["seeds"] * 1e3 / r["ms_per_step"])


@pytest.mark.parametrize("bf16, ceiling", [(3e9, 1e12), (4e12, 4e12)])
def test_the_ceiling_is_no_slower_than_that_of_fp32(monkeypatch, bf16, ceiling):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "matmul_peak", lambda device, dtype, seconds: 1e12 if dtype == torch.float32 else bf16)
    monkeypatch.setattr(bench, "throughput", lambda *_: (2.0, 1e9))
    rows = bench.bench("smoke", ("masked/baseline",), seeds_at_once=(3,))
    assert {r["precision"]: r["share_of_peak"] for r in rows} == {"fp32": 6e9 / 1e12, "bf16": 6e9 / ceiling}


def test_bench_knows_arms_of_one_name_apart(monkeypatch):
    named = ("shakespeare", "masked", "autoregressive")
    monkeypatch.setattr(experiments, "EXPERIMENTS", named)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = bench.bench("smoke", ("baseline",), seconds=0.02, seeds_at_once=(1,))
    assert {r["experiment"] for r in rows} == set(named) and {r["arm"] for r in rows} == {"baseline"}


def test_a_matmul_peak_is_a_rate():
    calls, elapsed = bench.timed(lambda: None, torch.device("cpu"), 0.01)
    assert calls > 1 and 0.01 <= elapsed < 1
    slow = []
    calls, elapsed = bench.timed(lambda: slow.append(time.sleep(0.02)), torch.device("cpu"), 0.01)
    assert calls == len(slow) == 1 and 0.02 <= elapsed < 1  # minutes a step: no warm-up of as long again, twice


def test_an_unknown_run_is_one_short_line_with_names_like_it(trm):
    status, _, line = trm("list", "masked/self-onyl")
    assert status and "no run of profile full matches 'masked/self-onyl'; did you mean masked/self-only" in line and len(line) < 200


# ---------------------------------------------------------------- a damaged store


@pytest.mark.parametrize("damage", ["truncated", "edited", "newer"])
def test_a_damaged_record_is_named_and_left_as_it_is(store_with_run, record, complaint, trm, damage):
    path = store_with_run.path("masked", key_of(record))
    text = path.read_text()
    if damage == "truncated":
        path.write_text(text[: len(text) // 2])
    elif damage == "edited":
        path.write_text(text.replace('"nll_b": ', '"nll_b": 1'))
    else:
        newer = {**record, "schema": 2}
        path.write_text(json.dumps({**newer, "digest": digest(newer)}))
    before = path.read_bytes()
    assert before != text.encode()
    for words in (("list", "--profile", "smoke"), ("list", "--json"), ("show", record["hash"]), ("verify",)):
        assert str(path) in complaint(*words)
    assert str(path) in complaint("run", "baseline", "--profile", "smoke", "--device", "cpu", "--quiet")
    assert len(list(path.parent.glob("*.json"))) == 1  # nothing was trained
    queue.work([r for r in masked.grid("smoke") if r.spec.hash == record["hash"]], store_with_run, torch.device("cpu"))
    assert path.read_bytes() == before
    assert not store_with_run.weights(key_of(record)).exists()


def test_a_record_under_another_name_is_named(store_with_run, record, complaint):
    path = store_with_run.path("masked", key_of(record))
    path.rename(path.with_name("0123456789abcdef.cpu.fp32.json"))
    assert "0123456789abcdef.cpu.fp32.json" in complaint("list")


def test_records_have_the_fields_that_the_rows_need(record):
    assert set(FIELDS) >= ROW
