"""Characters cut into windows: tables, random windows, the fixed set, and what is refused."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from trmlib.data import sequences, sources
from trmlib.data.sequences import SequenceConfig
from trmlib.data.sources import Corpus
from trmlib.errors import TrmError

WHOLE = "abcabcabcabcabcabcxbcbcb"  # 24 characters; the last quarter lacks "a" and has an "x" of its own


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """A corpus whose splits are parts of one file."""
    sha = hashlib.sha256(WHOLE.encode()).hexdigest()
    shares = {"train": (0.0, 0.75), "validation": (0.75, 1.0)}
    monkeypatch.setitem(
        sources.CORPORA,
        "cut",
        Corpus("cut", "cut", None, "24 B", "CC0", dict.fromkeys(shares, "input"), dict.fromkeys(shares, sha), shares),
    )
    monkeypatch.setenv("TRM_DATA", str(tmp_path))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "input.txt").write_text(WHOLE)
    sequences.load.cache_clear()
    yield
    sequences.load.cache_clear()


def test_splits_are_parts_of_one_checked_file(cut, tmp_path):
    assert sources.read("cut", "train") == WHOLE[:18] and sources.read("cut", "validation") == WHOLE[18:]
    (tmp_path / "cut" / "input.txt").write_text(WHOLE[:-1])
    with pytest.raises(TrmError, match="has sha256"):
        sources.read("cut", "train")


def test_one_table_or_the_validation_texts_own(cut):
    text = sequences.load("cut")
    assert text.table == ("a", "b", "c", "x") and text.own_table == ("b", "c", "x")
    assert text.train[:4].tolist() == [0, 1, 2, 0]
    assert text.validation.tolist() == [3, 1, 2, 1, 2, 1] and text.validation_own.tolist() == [2, 0, 1, 0, 1, 0]
    assert text.decode(text.encode("cab")) == "cab"
    with pytest.raises(TrmError, match="^character '!' is not in the table of 4 characters$"):
        text.encode("a!")


def test_tiny_shakespeare_is_asked_of_the_hub_as_a_whole(monkeypatch):
    import datasets

    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return {"text": ["x" * 9, "y"]}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert sources.read("tinyshakespeare", "train") == "x" * 9 and sources.read("tinyshakespeare", "validation") == "y"
    assert calls == [(("karpathy/tiny_shakespeare",), {"split": "train+validation+test"})] * 2


def test_random_windows_are_a_function_of_the_seed_and_never_the_last_one():
    tokens = np.arange(12)
    drawn = sequences.random_windows(tokens, 5, batch=40, steps=10, seed=(3, 1)).numpy()
    assert drawn.shape == (10, 40, 5) and (np.diff(drawn, axis=-1) == 1).all()
    assert set(drawn[..., 0].ravel()) == set(range(7))  # 7 would be the last
    assert (drawn == sequences.random_windows(tokens, 5, 40, 10, (3, 1)).numpy()).all()
    assert (drawn != sequences.random_windows(tokens, 5, 40, 10, (3, 2)).numpy()).any()


def test_fixed_windows_stay_in_their_stretch_and_chunks_of_all_lengths_begin_alike():
    config = SequenceConfig(context=4, chunk=2, stretches=3, stride=3)
    fixed = sequences.fixed_set(np.arange(30), config)
    assert fixed.batch["tokens"][:, 0].tolist() == [0, 3, 10, 13, 20, 23]
    assert fixed.batch["tokens"][1].tolist() == [3, 4, 5, 6, 7, 8]
    assert fixed.article.tolist() == [0, 0, 1, 1, 2, 2] and fixed.part_b.tolist() == [False, True, False]
    longer = sequences.fixed_set(np.arange(30), replace(config, chunk=4))
    assert set(longer.batch["tokens"][:, 0].tolist()) <= set(fixed.batch["tokens"][:, 0].tolist())


def test_what_does_not_fit_is_one_clear_line():
    with pytest.raises(TrmError, match=r"^a chunk of 9 does not fit: it must lie in 1 … context=8$"):
        SequenceConfig(context=8, chunk=9)
    with pytest.raises(TrmError, match="^a text of 5 tokens is too short for windows of 5$"):
        sequences.random_windows(np.arange(5), 5, 1, 1, 0)
    with pytest.raises(TrmError, match="^a text of 30 tokens is too short for 8 stretches of at least 6$"):
        sequences.fixed_set(np.arange(30), SequenceConfig(context=4, stretches=8))


def test_the_toy_language_has_two_tables():
    text = sequences.load("toy-language")
    assert text.table != text.own_table and set(text.own_table) < set(text.table)
    assert len(text.validation) > 8 * 100
