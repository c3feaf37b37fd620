"""Explorers: what they compute, draw and connect, on kept models of the smoke profile."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from ipywidgets import IntSlider
from safetensors.torch import save

from trmlib import checkpoints, explore, solve
from trmlib.data.text import MASK, UNK, question
from trmlib.errors import TrmError
from trmlib.evaluate import likeliest
from trmlib.experiments import masked
from trmlib.runs import Store, write_atomically
from trmlib.train import train

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


def test_a_probe_of_a_kept_model(kept):
    assert (explore.leak("masked-joint") == 0).all()
    assert np.diag(explore.leak("masked-joint", hidden=False)).min() > 1e-4


def test_thinking_is_drawn_for_each_start():
    steps = [{"digits": [1, 2, 3, 4] * 4, "confidence": [0.5] * 16, "sure": 0.25, "legal": False}]
    fig = explore.draw_thinking([1] + [0] * 15, [steps, steps], 1)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes] == [
        "own start: 25% sure, rules broken",
        "random start 1: 25% sure, rules broken",
    ]
    plt.close(fig)
    levels = explore.puzzles_by_difficulty(12)
    assert list(levels) == sorted(levels) and len(levels) > 5 and all(len(p) == 81 for p in levels.values())
    assert min((p > 0).sum() for p in levels.values()) <= 28 and max((p > 0).sum() for p in levels.values()) >= 36  # sparse and easy ones


def test_budgets_are_means_over_seeds():
    df = pd.DataFrame({"arm": ["a", "a", "b", "b"], "status": ["recorded"] * 3 + ["failed"], "nll_b": [1.0, 3.0, 2.0, 9.0],
                       "inference_flops": [2e6, 2e6, 4e6, 4e6]})  # fmt: skip
    x = "inference MFLOP an example"
    table = explore.budget_frame(df, x, "perplexity").set_index("arm")
    assert table[x].to_dict() == {"a": 2, "b": 4} and table.perplexity.to_dict() == pytest.approx({"a": math.exp(2), "b": math.exp(2)})
    assert table.seeds.to_dict() == {"a": 2, "b": 1} and not len(explore.budget_frame(df, x, "accuracy"))
    fig = explore.draw_budget(table.reset_index(), x, "perplexity", ["a"])
    assert [t.get_text() for t in fig.axes[0].texts] == ["a"]
    plt.close(fig)


def test_a_control_that_moves_shows_another_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(explore, "display", lambda fig: shown.append(fig))

    def show(step):
        if step == 3:
            raise TrmError("no step 3")
        return f"figure {step}"

    monkeypatch.setattr(explore.plt, "close", lambda fig: None)
    slider = IntSlider(1, 1, 5)
    explore.connected(show, step=slider)
    slider.value = 2
    slider.value = 3
    slider.value = 4
    assert shown == ["figure 1", "figure 2", "figure 4"]


def test_a_stepper_holds_its_pictures_and_asks_for_nothing():
    figures = []
    for i in range(3):
        fig, ax = plt.subplots(figsize=(1, 1))
        ax.plot([0, i])
        figures.append(fig)
    html = explore.stepper(figures, ["one", "two", "three"]).data
    assert html.count("<img ") == 3 and html.count("display:none") == 2 and 'max="2"' in html and ">one</output>" in html
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
        and checkpoints.names() == ["mine"]
    )
    expected = store.weights(key).read_bytes()
    assert model.head.weight.detach().numpy().tobytes() in expected
    assert solve.CHECKPOINT == "sudoku"
