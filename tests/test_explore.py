"""Explorers: what they compute, draw and connect, on kept models of the smoke profile."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import smoke_run
from ipywidgets import IntSlider
from safetensors.torch import save

from trmlib import checkpoints, explore, solve
from trmlib.data import sequences
from trmlib.data.text import MASK, UNK, question
from trmlib.errors import TrmError
from trmlib.evaluate import likeliest
from trmlib.experiments import masked, shakespeare, shakespeare_report
from trmlib.experiments.masked_evaluations import SENTENCES
from trmlib.runs import Store, write_atomically
from trmlib.train import train

EXPERIMENTS = ("masked", "shakespeare", "sudoku")
WORDS = ["<PAD>", "<MASK>", "<UNK>", "a", "b", "c"]


def test_a_sentence_becomes_a_window():
    tokens, at = question("A _ zebra  _", WORDS, 6)
    assert tokens.tolist() == [[3, MASK, UNK, MASK, UNK, UNK]] and at.tolist() == [[1, 3]]


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("a b c", "no blank in 'a b c': write _ for each word to be filled in"),
        ("a _ c a _ c a", "the sentence has 7 words, the model reads 6"),
    ],
)
def test_bad_sentences_are_one_line(sentence, message):
    with pytest.raises(TrmError) as e:
        question(sentence, WORDS, 6)
    assert str(e.value) == message


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Baseline and joint of the smoke profile, kept untrained; {name: model}."""
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    models, words = {}, None
    for arm in ("baseline", "joint"):
        spec = next(r.spec for r in masked.grid("smoke") if r.arm == arm)
        words = words or list(masked.Task(spec).vocab)
        torch.manual_seed(1)
        models[f"masked-{arm}"] = model = masked.build(spec).eval()
        about = {"hash": spec.hash, "experiment": "masked", "arm": arm, "words": words}
        tensors = {n: p.detach() for n, p in model.named_parameters()}
        write_atomically(tmp_path / f"masked-{arm}.safetensors", save(tensors, {"trm": json.dumps(about)}))
    return models, words


def test_the_likeliest_words_are_those_of_the_models_own_softmax(kept):
    models, words = kept
    tokens, at = question(f"{words[5]} _ {words[7]} _", words, 16)
    for name, model in models.items():
        said = explore.fill(name, f"{words[5]} _ {words[7]} _")
        p = model(tokens, at, every_pass=True)[:, 0].softmax(-1)
        assert len(said) == len(p) == (4 if name == "masked-joint" else 1) and said == likeliest(model, tokens, at, words)
        for k, blanks in enumerate(said):
            for b, found in enumerate(blanks):
                best = p[k, b].argsort(descending=True)[:3]
                assert [w for w, _ in found] == [words[i] for i in best] and [q for _, q in found] == pytest.approx(p[k, b, best].tolist())
    fig = explore.draw_fill({name: explore.fill(name, f"{words[5]} _ _") for name in models}, "title")
    cells = [c.get_text().get_text() for c in fig.axes[1].tables[0].get_celld().values()]
    assert len(fig.axes) == 2 and {"at first", "pass 1", "pass 3", "blank 2"} <= set(cells)
    plt.close(fig)


@pytest.fixture
def characters(tmp_path, monkeypatch):
    """Shakespeare's target and mask models of the smoke profile, kept untrained, without their corpus."""
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    text = sequences.load("toy-language")
    for arm in ("target", "mask"):
        run = next(r for r in shakespeare.grid("smoke") if r.arm == arm)
        model = shakespeare.build(run.spec)
        about = {"hash": "of a grid of old", "experiment": "shakespeare", "arm": arm, "profile": "smoke", "seed": 0, "spec": run.spec.as_dict(),
                 "words": list(text.table), "before": text.decode(text.validation[: run.spec.data.context])}  # fmt: skip
        tensors = {n: p.detach() for n, p in model.named_parameters()}
        write_atomically(tmp_path / f"shakespeare-{arm}.safetensors", save(tensors, {"trm": json.dumps(about)}))
    monkeypatch.setattr(sequences, "load", lambda corpus: pytest.fail("the corpus was read"))


def test_a_probe_of_a_kept_model(kept):
    matrix, causal = explore.leak("masked-joint")
    assert (matrix == 0).all() and not causal and explore.verdict(matrix, causal) == "no leak"
    matrix, causal = explore.leak("masked-joint", shown=True)
    assert np.diag(matrix).min() > 1e-4 and explore.verdict(matrix, causal) == "LEAKS"


def test_a_probe_of_characters_needs_no_corpus(characters):
    assert explore.probes() == ["shakespeare-mask", "shakespeare-target"]
    said = {(name, shown): explore.verdict(*explore.leak(name, shown)) for name in explore.probes() for shown in (False, True)}
    assert said.pop(("shakespeare-mask", False)) == "no leak" and set(said.values()) == {"LEAKS"}


def test_below_the_diagonal_is_a_leak_only_where_nothing_is_read_in_order():
    matrix = np.array([[0.0, 0.0], [0.5, 0.0]])
    assert [explore.verdict(matrix, causal) for causal in (True, False)] == ["no leak", "LEAKS"]
    fig = explore.draw_leaks({"one": (matrix, True), "two": (matrix, False)})
    assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes[:2]] == ["one\nno leak", "two\nLEAKS"]
    plt.close(fig)


def test_a_kept_model_writes_without_its_corpus(characters, tmp_path):
    df = pd.DataFrame({"arm": [], "key": [], "record": []})
    store = Store(tmp_path / "results")
    assert shakespeare_report.write(store, df, "last", "a") is None
    text = shakespeare_report.write(store, df, "mask", "the", 12)
    assert text.startswith("--- mask, profile smoke, seed 0\nthe") and len(text) == len("--- mask, profile smoke, seed 0\nthe") + 12
    assert "cannot generate" in shakespeare_report.write(store, df, "target", "the")
    assert "is not in the table" in shakespeare_report.write(store, df, "mask", "Ω")


def test_thinking_is_drawn_for_each_start():
    steps = [{"digits": [1, 2, 3, 4] * 4, "confidence": [0.5] * 16, "sure": 0.25, "legal": False}]
    fig = explore.draw_thinking([1] + [0] * 15, [steps, steps], 1)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes] == [
        "own start\n25% sure, rules broken",
        "random start 1\n25% sure, rules broken",
    ]
    fig = explore.draw_thinking([1] + [0] * 15, [steps] * 3, 1, 2)
    assert fig.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 2) and [ax.axison for ax in fig.axes] == [
        True,
        True,
        True,
        False,
    ]
    plt.close("all")
    levels = explore.puzzles_by_difficulty(12)
    assert list(levels) == sorted(levels) and len(levels) > 5 and all(len(p) == 81 for p in levels.values())
    assert min((p > 0).sum() for p in levels.values()) <= 28 and max((p > 0).sum() for p in levels.values()) >= 36  # sparse and easy ones


def test_starts_that_disagree_are_found_on_the_easiest_puzzle_and_stepped_through(monkeypatch):
    own = [{"digits": [1, 2, 3, 4] * 4, "confidence": [0.5] * 16, "sure": 0.25, "legal": legal} for legal in (False, True)]
    monkeypatch.setattr(explore, "puzzles_by_difficulty", lambda: {2: "easy", 3: "split", 4: "hard"})
    tried = []

    def solved(puzzle, n_sup, start):
        tried.append((puzzle, n_sup, start))
        return own[:: 1 if puzzle == "easy" or start in (None, 2) else -1]

    monkeypatch.setattr(explore.solve, "solve", solved)
    rounds, puzzle, runs = explore.disagreement(2, 3)
    assert (rounds, puzzle, [run[-1]["legal"] for run in runs]) == (3, "split", [True, False, True, False])
    assert tried == [(p, 2, s) for p in ("easy", "split") for s in (None, 1, 2, 3)]
    html = explore.step_through_starts(rounds, [1] + [0] * 15, runs).data
    labels = re.findall('alt="([^"]*)"', html)
    assert labels == [f"3 rounds of deductions: pass {k} of 2, 2 of 4 starts solved" for k in (1, 2)] and not plt.get_fignums()
    monkeypatch.setattr(explore, "puzzles_by_difficulty", lambda: {2: "easy"})
    assert explore.disagreement(2, 3) is None


def test_a_recorded_board_says_which_it_is(monkeypatch):
    strip = {"puzzle": "1" + 14 * "." + "1", "target": "1234341221434321", "digits": ["1".ljust(15, "2") + "1", "1234341221434321"],
             "confidence": [[0.5] * 16] * 2, "sure": [0.25, 1]}  # fmt: skip
    drawn = []
    monkeypatch.setattr(
        explore.plots, "board", lambda digits, ax, puzzle, target, sure, title: drawn.append((digits[:3], puzzle[:3], target[:3], title))
    )
    html = explore.step_through_board(strip, "not solved").data
    assert re.findall('alt="([^"]*)"', html) == ["not solved: pass 1 of 2, 25% sure", "not solved: pass 2 of 2, 100% sure"]
    assert drawn == [
        ([1, 2, 2], [1, 0, 0], [1, 2, 3], "not solved, after pass 1"), ([1, 2, 3], [1, 0, 0], [1, 2, 3], "not solved, after pass 2"),
    ]  # fmt: skip
    both = explore.beside(explore.HTML("<p>a</p>"), explore.HTML("<p>b</p>")).data
    assert "flex-wrap" in both and re.findall("<p>(.)</p></div>", both) == ["a", "b"]


def test_the_blanks_open_on_a_sentence_with_words_to_show():
    text = explore.fill_the_blanks().children[0].value
    assert text == SENTENCES[-1]
    assert {blank[0][0] for name in explore.FILLED for blanks in explore.fill(name, text) for blank in blanks} == {"states"}


def test_words_are_stepped_through_pass_by_pass():
    said = {"a _": {"baseline": [[[("x", 0.5)]]], "TRM": [[[("x", 0.2)]], [[("y", 0.9)]]]}}
    fig = explore.draw_words(said["a _"], 1, "a _")
    assert [
        (ax.get_title(loc="left") or ax.get_title(), ax.get_yticklabels()[0].get_text(), ax.patches[0].get_width()) for ax in fig.axes
    ] == [
        ("baseline, blank 1", "x", 0.5),
        ("TRM, blank 1", "y", 0.9),
    ]
    plt.close(fig)
    html = explore.step_through_words(said).data
    assert html.count("<img ") == 2 and 'alt="a _: at first"' in html and 'alt="a _: after pass 1"' in html


def test_a_control_that_moves_shows_another_figure():
    def show(step):
        if step == 3:
            raise TrmError("no step <3>")
        fig, ax = plt.subplots(figsize=(1, 1))
        ax.plot([0, step])
        return fig

    slider = IntSlider(1, 1, 5)
    out = explore.connected(show, step=slider).children[-1]
    seen = [out.value]
    for slider.value in (2, 3, 1):
        seen.append(out.value)
    assert [v.startswith('<img src="data:image/png') for v in seen] == [True, True, False, True] and 'alt="step: 2"' in seen[1]
    assert seen[2] == "no step &lt;3&gt;" and seen[3] == seen[0] != seen[1] and not plt.get_fignums()


def test_a_stepper_holds_its_pictures_and_asks_for_nothing():
    figures = []
    for i in range(3):
        fig, ax = plt.subplots(figsize=(1, 1))
        ax.plot([0, i])
        figures.append(fig)
    html = explore.stepper(iter(figures), ["one", "two", "three"]).data
    assert html.count("<img ") == 3 and html.count("display:none") == 2 and 'max="2"' in html and ">one</output>" in html
    assert not plt.get_fignums() and "&lt;b&gt;" in explore.stepper([plt.figure()], ["<b>"]).data
    assert "http" not in html and len(set(part.split('"')[0] for part in html.split("base64,")[1:])) == 3


def test_keep_holds_what_the_run_is(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "kept")
    run = next(r for r in masked.grid("smoke") if r.arm == "baseline")
    store = Store(tmp_path / "results")
    (record,) = train(masked.Task(run.spec), [run.spec], store)
    store.add(record | {"arm": run.arm, "profile": run.profile})
    key = f"{run.spec.hash}.cpu.fp32"
    checkpoints.keep(store, key, "mine")
    model, spec, about = checkpoints.load("mine")
    assert (
        spec == run.spec
        and about["arm"] == "baseline"
        and about["words"] == list(masked.Task(spec).vocab)
        and about["spec"] == run.spec.as_dict()
        and checkpoints.names() == ["mine"]
    )
    expected = store.weights(key).read_bytes()
    assert model.head.weight.detach().numpy().tobytes() in expected
    assert solve.CHECKPOINT == "sudoku"


def test_a_checkpoint_of_words_solves_no_sudoku():
    with pytest.raises(TrmError, match="^checkpoint 'masked-joint' is of experiment masked and solves no Sudoku; name one that does$"):
        solve.solve(np.zeros(81, int), checkpoint="masked-joint")


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    """A store with two trained runs, and their keys."""
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "kept")
    store, runs = Store(tmp_path / "results"), [smoke_run("joint", seed=s, steps=1) for s in (0, 1)]
    monkeypatch.setattr(masked, "grid", lambda profile: runs if profile == "smoke" else [])
    for run in runs:
        (record,) = train(masked.Task(run.spec), [run.spec], store)
        store.add(record | {"arm": run.arm, "profile": run.profile})
    return store, [f"{r.spec.hash}.cpu.fp32" for r in runs]


def test_keep_never_overwrites_the_weights_of_another_run(two_runs):
    store, (first, second) = two_runs
    path = checkpoints.keep(store, first, "mine")
    before = path.read_bytes()
    assert checkpoints.keep(store, first, "mine") == path and path.read_bytes() == before
    with pytest.raises(TrmError, match=f"^{path} holds masked/joint/0 \\(run {first[:16]}\\); choose another name$"):
        checkpoints.keep(store, second, "mine")
    path.write_bytes(before[:100])
    with pytest.raises(TrmError, match=f"^checkpoint {path} is damaged"):
        checkpoints.keep(store, first, "mine")
    assert path.read_bytes() == before[:100] and checkpoints.names() == ["mine"]


@pytest.mark.parametrize("name", ["", "../mine", "a/b", "Mine", "mine.safetensors", "mi ne", "mine\n"])
def test_keep_takes_names_only(two_runs, tmp_path, name):
    with pytest.raises(TrmError) as e:
        checkpoints.keep(two_runs[0], two_runs[1][0], name)
    assert str(e.value) == f"{name!r} cannot name a checkpoint; use a-z, 0-9, _ and -"
    assert not list(tmp_path.rglob("mine*"))


def test_weights_of_another_model_are_not_kept(two_runs):
    store, (key, _) = two_runs
    store.weights(key).write_bytes(save({"w": torch.zeros(2)}))
    with pytest.raises(TrmError, match=f"^weights {store.weights(key)} do not fit the model of their run"):
        checkpoints.keep(store, key, "mine")
    assert checkpoints.names() == []


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ("[]", "is damaged (list indices"),
        ("[" * 50_000, "is damaged (maximum recursion depth"),
        ('{"hash": "0"}', ": no grid knows the run 0; keep a checkpoint of another one"),
        ('{"experiment": "astrology", "seed": 0, "spec": {}}', ": unknown experiment 'astrology'"),
        ('{"experiment": "masked", "seed": 0, "spec": {"model": 3, "data": {}, "train": {}}}', "is damaged ("),
        ('{"experiment": "masked", "seed": 0, "spec": {"model": {"n": -1}, "data": {}, "train": {}}}', ": MaskedConfig: n=-1 must be"),
        (
            '{"experiment": "masked", "seed": 0, "spec": {"model": {}, "data": {}, "train": {}}}',
            "is damaged (Error(s) in loading state_dict",
        ),
    ],
)
def test_a_checkpoint_with_other_contents_is_one_line(two_runs, about, said):
    path = checkpoints.FOLDER / "mine.safetensors"
    path.parent.mkdir()
    path.write_bytes(save({"w": torch.zeros(2)}, {"trm": about}))
    with pytest.raises(TrmError) as e:
        checkpoints.load("mine")
    assert str(e.value).startswith(f"checkpoint {path}") and said in str(e.value) and "\n" not in str(e.value)


def test_every_committed_checkpoint_is_whole_and_all_are_small():
    assert {checkpoints.load(name)[1].hash for name in checkpoints.names()} == {
        checkpoints.load(name)[2]["hash"] for name in checkpoints.names()
    }
    assert sum(p.stat().st_size for p in checkpoints.FOLDER.glob("*")) < 25e6
