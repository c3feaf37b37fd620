"""Evaluations of trained weights: values on small models, and the whole way from a trained run to its record."""

import os
import time

import numpy as np
import pytest
import torch
from conftest import smoke_run
from safetensors.torch import save

from trmlib.errors import TrmError
from trmlib.evaluate import score_blanks, summarise
from trmlib.experiments import masked
from trmlib.experiments import masked_evaluations as evaluations
from trmlib.queue import work
from trmlib.reevaluate import evaluate, several
from trmlib.runs import Store, torch_device


@pytest.fixture
def joint():
    torch.manual_seed(0)
    task = masked.Task(smoke_run("joint").spec)
    return task, task.model().eval()


def test_scores_are_the_written_out_cross_entropy(joint):
    task, model = joint
    batch = {k: v[:10] for k, v in task.fixed_batch.items()}
    nll, hit = score_blanks(model.eval(), batch, chunk=3)
    assert not model.training  # left as it was
    with torch.no_grad():
        p = model.eval()(batch["tokens"], batch["at"], batch["partners"]).softmax(-1)
    for i in range(10):
        for j in range(2):
            assert nll[0, i, j] == pytest.approx(-np.log(p[i, j, batch["targets"][i, j]].item()), abs=1e-5)
            assert hit[0, i, j] == (p[i, j].argmax() == batch["targets"][i, j]).item()


def test_summarise_by_hand_with_and_without_unknown_words():
    nll = np.array([[[1.0, 2.0], [3.0, 6.0]]])
    hit = np.array([[[True, False], [False, True]]])
    s = summarise(nll, hit, {"targets": torch.tensor([[5, 2], [6, 7]])}, unknown=(2,))
    assert (s["nll"][0], s["accuracy"][0]) == (3.0, 0.5)
    assert s["nll_known"][0] == pytest.approx(10 / 3) and s["accuracy_known"][0] == pytest.approx(2 / 3)


def test_word_classes():
    words = ["<PAD>", "<MASK>", "<UNK>", "the", "lobster", "1992", "@-@", ",", "<unk>"]
    kinds = evaluations.word_classes({w: i for i, w in enumerate(words)}, unknown=[2, 8])
    assert list(kinds[2:]) == ["unknown", "function", "content", "number", "punctuation", "punctuation", "unknown"]


def test_refinement_shares_by_hand(joint):
    task, model = joint
    out = evaluations.refinement(task, model)
    rows = torch.from_numpy(task.fixed.part_b[task.fixed.article])
    batch = {k: v[rows] for k, v in task.fixed_batch.items()}
    words = [model(batch["tokens"], batch["at"], batch["partners"], passes=k).argmax(-1) for k in (1, 2)]
    assert out["all"]["blanks"] == batch["targets"].numel()
    assert out["all"]["changed"][1] == pytest.approx((words[0] != words[1]).float().mean().item(), abs=1e-6)
    right = [w == batch["targets"] for w in words]
    assert out["all"]["mended"][1] == pytest.approx((right[1] & ~right[0]).float().mean().item(), abs=1e-6)
    bands = sum(v["blanks"] for k, v in out.items() if k.startswith("rank"))
    classes = sum(out[k]["blanks"] for k in ("function", "content", "number", "punctuation", "unknown") if k in out)
    unknown = int((batch["targets"] == 2).sum())
    assert classes == out["all"]["blanks"] == bands + unknown


def test_adaptive_depth_ends_agree_and_the_ceiling_is_highest(joint):
    task, _ = joint
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(task.model().eval())
    out = evaluations.adaptive(task, models)
    nll = {k: np.array(v) for k, v in out["nll_b"].items()}
    for policy in nll.values():  # nobody goes on, or everybody: the choice does not matter
        assert np.allclose(policy[:, [0, -1]], nll["fixed"][:, [0, -1]], atol=1e-6)
    assert (nll["true gain"] <= np.minimum.reduce([nll["entropy"], nll["head"], nll["fixed"]]) + 1e-6).all()
    scored = score_blanks(models[0], task.fixed_batch, passes=1)[0][0]
    assert nll["fixed"][0, 0] == pytest.approx(scored[task.fixed.part_b[task.fixed.article]].mean(), abs=1e-5)
    assert (out["flops"]["entropy"][1:] > out["flops"]["fixed"][1:]).all() and (out["flops"]["head"] > out["flops"]["fixed"]).all()


def test_window_flops_by_hand():
    task = masked.Task(smoke_run("joint").spec)
    _, one_pass, head = evaluations.window_flops(task.model(), task)
    d, m, vocab = 32, 2, task.config.vocab
    assert head == 2 * m * d * vocab
    assert one_pass == 2 * (2 * m * 12 * d * d + 2 * 2 * m * m * d)  # two blocks: 12 d² weights a slot, and the attention products


@pytest.mark.parametrize("workers", [1, 2])
def test_from_trained_runs_to_evaluation_records(monkeypatch, tmp_path, workers):
    store = Store(tmp_path / "results", tmp_path / "cache")
    runs = [smoke_run("joint", seed=s, steps=20) for s in (0, 1)]
    monkeypatch.setattr(masked, "grid", lambda profile: runs if profile == "smoke" else [])
    assert evaluate(store, profile="smoke", device="cpu", quiet=True) == (
        0,
        [f"masked/joint: {name}" for name in ("leak_probe", "refinement", "examples") for _ in runs] + ["masked/joint: adaptive"],
    )
    work(runs, store, torch_device("cpu"))
    assert evaluate(store, profile="smoke", device="cpu", quiet=True, workers=workers) == (7, [])
    assert evaluate(store, profile="smoke", device="cpu", quiet=True) == (0, [])
    (adaptive,) = store.evaluations("masked", "adaptive")
    assert len(adaptive["runs"]) == 2 and set(adaptive["result"]["nll_b"]) == {"fixed", "entropy", "head", "true gain"}
    assert np.array(store.evaluations("masked", "leak_probe")[0]["result"]["masked"]).max() == 0
    path = next((tmp_path / "results").glob("masked/evaluations/adaptive.*.json"))
    path.write_text(path.read_text().replace('"first": 1', '"first": 2'))
    with pytest.raises(TrmError, match="adaptive.*was edited or damaged"):
        store.evaluations("masked", "adaptive")
    with pytest.raises(TrmError, match="adaptive.*was edited or damaged"):  # what is damaged is not done
        evaluate(store, profile="smoke", device="cpu", quiet=True)


def test_what_is_counted_on_data_needs_a_record_and_no_weights(monkeypatch, tmp_path):
    store = Store(tmp_path / "results", tmp_path / "cache")
    runs = [smoke_run("joint", seed=s, steps=20) for s in (0, 1)]
    monkeypatch.setattr(masked, "grid", lambda profile: runs if profile == "smoke" else [])
    monkeypatch.setattr(evaluations, "wanted", lambda arm, spec: ["models"])
    monkeypatch.setitem(evaluations.GROUPED, "models", lambda task, models: {"n": len(models)})
    monkeypatch.setattr(evaluations, "OF_DATA", ("models",), raising=False)
    assert evaluate(store, profile="smoke", device="cpu", quiet=True) == (0, ["masked/joint: models"])
    work(runs[1:], store, torch_device("cpu"))
    for path in store.cache.glob("weights/*"):
        path.unlink()
    assert evaluate(store, profile="smoke", device="cpu", quiet=True) == (1, [])
    (found,) = store.evaluations("masked", "models")
    assert found["result"] == {"n": 0} and found["runs"] == [f"{r.spec.hash}.cpu.fp32" for r in runs]


@pytest.fixture
def one_run(monkeypatch, tmp_path):
    """A store with one trained run, the only one of the grid."""
    store, run = Store(tmp_path / "results", tmp_path / "cache"), smoke_run("joint", seed=0, steps=20)
    monkeypatch.setattr(masked, "grid", lambda profile: [run] if profile == "smoke" else [])
    work([run], store, torch_device("cpu"))
    return store, run


def complaint(store):
    with pytest.raises(TrmError) as e:
        evaluate(store, profile="smoke", device="cpu", quiet=True)
    assert "\n" not in str(e.value)
    return str(e.value), e.value.code


def test_an_evaluation_that_fails_is_one_line_that_says_where(one_run, monkeypatch):
    store, _ = one_run
    monkeypatch.setattr(evaluations, "wanted", lambda arm, spec: ["broken"])
    monkeypatch.setitem(evaluations.SINGLE, "broken", lambda task, model: [][task.config.blanks])
    line = "evaluation broken of masked/joint failed (IndexError: list index out of range; {}, line {}); mend it, then `trm evaluate`"
    number = evaluations.SINGLE["broken"].__code__.co_firstlineno
    assert complaint(store) == (line.format(__file__, number), 1)
    monkeypatch.setitem(evaluations.SINGLE, "broken", lambda task, model: {"not JSON": object()})
    assert complaint(store)[0].startswith("evaluation broken of masked/joint failed (TypeError: Object of type object is not JSON")
    monkeypatch.setattr(evaluations, "wanted", lambda arm, spec: spec.nothing)
    assert complaint(store)[0].startswith(
        "evaluations.wanted of masked/joint failed (AttributeError: 'Spec' object has no attribute 'nothing'"
    )
    monkeypatch.setattr(evaluations, "wanted", lambda arm, spec: ["leak_probe", "nonsense"])
    assert complaint(store) == ("evaluations.wanted of masked/joint names nonsense, in neither SINGLE nor GROUPED", 2)
    assert store.evaluations("*", "*") == []


def test_a_group_without_seeds_here_is_left_out(one_run, monkeypatch):
    store, _ = one_run
    monkeypatch.setattr(evaluations, "wanted", lambda arm, spec: ["adaptive"])
    monkeypatch.setattr(evaluations, "GROUP_SEEDS", (7,))
    assert evaluate(store, profile="smoke", device="cpu", quiet=True) == (0, [])


def test_weights_of_another_model_are_named(one_run):
    store, run = one_run
    path = store.weights(f"{run.spec.hash}.cpu.fp32")
    path.write_bytes(save({"w": torch.zeros(2)}))
    line, code = complaint(store)
    assert line.startswith(f"weights {path} do not fit the model of their run (Error(s) in loading state_dict for MaskedLM: Missing key(s)")
    assert line.endswith("; delete the file") and code == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_weights_are_named(monkeypatch, tmp_path, workers):
    store = Store(tmp_path / "results", tmp_path / "cache")
    run = smoke_run("joint", seed=0, steps=20)
    monkeypatch.setattr(masked, "grid", lambda profile: [run] if profile == "smoke" else [])
    path = store.weights(f"{run.spec.hash}.cpu.fp32")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not weights")
    with pytest.raises(TrmError, match=f"weights {path} are damaged"):
        evaluate(store, profile="smoke", device="cpu", quiet=True, workers=workers)


def test_several_processes_end_with_what_ends_them():
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), several(2) as apply:
        next(apply(time.sleep, [0, 300]))
        raise KeyboardInterrupt
    with pytest.raises(TrmError, match="a process that evaluated died") as e, several(2) as apply:
        list(apply(os._exit, [3, 3]))
    assert e.value.code == 1 and time.monotonic() - start < 200
