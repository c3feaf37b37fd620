"""Tokenised corpora: files, headers, windows, and the one line a user reads when they are wrong."""

import json
import lzma
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from trmlib.data import sources, tokens
from trmlib.data.sources import Corpus
from trmlib.data.tokens import TokensConfig
from trmlib.errors import TrmError

LINES = [" = One = \n", " \n", " the cat – sat on the mat . \n", " the dog sat . \n", " = Two = \n", " a cat , a dog \n"]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A corpus `tiny` below a data root, and an empty cache."""
    folder = tmp_path / "root" / "small"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        (folder / f"{split}.txt.xz").write_bytes(lzma.compress("".join(LINES).encode()))
    monkeypatch.setenv("TRM_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("TRM_CACHE", str(tmp_path / "cache"))
    known = Corpus("tiny", "small", ("someone/tiny", "v1"), "1 kB", "CC0", {s: s for s in ("train", "validation")})
    monkeypatch.setitem(sources.CORPORA, "tiny", known)
    tokens.tokeniser.cache_clear(), tokens.load.cache_clear()
    yield folder
    tokens.tokeniser.cache_clear(), tokens.load.cache_clear()


def error(function, *args, **fields):
    """The one line of a TrmError."""
    with pytest.raises(TrmError) as e:
        function(*args, **fields)
    assert "\n" not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize("told", [{}, {"TQDM_DISABLE": "1"}])  # the second is `trm run --quiet`
def test_a_bar_shows_the_text_that_is_read_unless_told_not_to(told):
    code = """
from types import SimpleNamespace
from trmlib.data import tokens
tokens.sources = SimpleNamespace(lines=lambda *_: ["a cat\\n"], corpus=lambda _: SimpleNamespace(lines={}))
print(*tokens.text_lines("tiny", "train", "words of"))
"""
    env = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"} | told
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "a cat\n\n" and ("words of tiny train" in done.stderr) == (not told)


def test_words_by_hand(corpus):
    t, train = tokens.tokeniser("tiny", "words", 8), tokens.load("tiny", "train", "words", 8)
    assert t.names == ("<PAD>", "<UNK>", "<EOS>", "=", "the", ".", "a", "cat")  # by count, then by alphabet
    assert train.ids.tolist() == [3, 1, 3, 2, 4, 7, 1, 1, 1, 4, 1, 5, 2, 4, 1, 1, 5, 2, 3, 1, 3, 2, 6, 7, 1, 6, 1, 2]
    assert train.ids.dtype == np.uint16 and isinstance(train.ids, np.memmap)
    assert train.articles.tolist() == [0, 18]
    assert train.bytes == len("".join(x for x in LINES if x.strip()).encode())


def test_every_byte_is_counted(corpus):
    """With all words, or with byte-pair pieces, the tokens' bytes add up to the text's."""
    for kind, vocab in (("words", 16), ("pieces", 261)):
        t, train = tokens.tokeniser("tiny", kind, vocab), tokens.load("tiny", "train", kind, vocab)
        assert tokens.text_bytes(t, np.asarray(train.ids)) == train.bytes
    t = tokens.tokeniser("tiny", "words", 8)
    assert tokens.text_bytes(t, np.array([3, 4])) == 2 + 4 and tokens.text_bytes(t, np.array([3, 1])) is None


def test_pieces_spell_the_text_and_are_learnt_the_same_again(corpus):
    t = tokens.tokeniser("tiny", "pieces", 261)
    line = " déjà the\tcat \n"
    (ids,) = t.encode([line])
    assert t.bytes[ids].sum() == len(line.encode()) and tokens.PAD not in ids
    assert tokens.byte_pair(t.model).decode((ids - 1).tolist()) == line
    assert tokens.learn("pieces", 261, reversed([x for x in LINES if x.strip()])).names == t.names


def test_the_corpus_is_read_once_and_not_needed_again(corpus, monkeypatch):
    first = tokens.load("tiny", "train", "words", 8)
    tokens.tokeniser.cache_clear(), tokens.load.cache_clear()
    monkeypatch.delenv("TRM_DATA")
    monkeypatch.setattr(sources, "lines", None)
    again = tokens.load("tiny", "train", "words", 8)
    assert (again.ids == first.ids).all() and again.fingerprint == first.fingerprint


def test_a_data_set_of_the_hubs_layout_gives_the_same_ids(corpus, monkeypatch):
    """As Salesforce/wikitext has it: a folder a configuration, parquet files of rows of text, read as a stream; blank lines are empty rows."""
    import datasets

    local = tokens.load("tiny", "train", "words", 8)
    hub = corpus.parent / "hub"
    rows = datasets.Dataset.from_dict({"text": [x if x.strip() else "" for x in LINES]})
    for split in ("train", "validation"):
        rows.to_parquet(hub / "v1" / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - split: {split}\n    path: v1/{split}-*\n" for split in ("train", "validation"))
    (hub / "README.md").write_text(f"---\nconfigs:\n- config_name: v1\n  data_files:\n{files}---\n")
    monkeypatch.setitem(sources.CORPORA, "tiny", replace(sources.CORPORA["tiny"], hub=(str(hub), "v1")))
    monkeypatch.delenv("TRM_DATA")
    monkeypatch.setenv("TRM_CACHE", str(corpus / "other"))
    tokens.tokeniser.cache_clear(), tokens.load.cache_clear()
    found = tokens.load("tiny", "train", "words", 8)
    assert (found.ids == local.ids).all() and found.fingerprint == local.fingerprint and found.bytes == local.bytes
    for damage in ("short", "column"):
        path = hub / "v1" / "train-00000-of-00001.parquet"
        if damage == "short":
            path.write_bytes(path.read_bytes()[:-100])
        else:
            rows.rename_column("text", "words").to_parquet(path)
        line = error(list, sources.lines("tiny", "train"))
        told = {
            "short": "corpus tiny (train) not found and the hub did not answer (",
            "column": f"tiny train cannot be read from {hub}/v1 (",
        }
        assert line.startswith(told[damage]) and "\n" not in line


def test_memory_does_not_grow_with_the_text(corpus):
    """Peak of a process that learns pieces, writes ids and draws windows: a text of 0.8 MB, then one of 6 MB of the same words.
    Ids in a Python list would take 100 MB more; their file, which is mapped, takes 6."""
    peak = (
        "from trmlib.data import sources, tokens\n"
        "sources.CORPORA['tiny'] = sources.Corpus('tiny', 'small', ('someone/tiny', 'v1'), '', '', {'train': 'train'})\n"
        "train = tokens.load('tiny', 'train', 'pieces', 400)\n"
        "tokens.batches(train, tokens.TokensConfig(context=64), 32, 0, 100, seed=0)\n"
        "print(len(train.ids), open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # `getrusage` would count the parent's, too
    )
    words, count, found = np.random.default_rng(0).integers(100, 1_000, (2_000, 100)), [], []
    block = "".join(" " + " ".join(map(str, line)) + " \n" for line in words)  # 0.8 MB
    (corpus / "train.txt.xz").unlink()
    for times in (1, 8):
        (corpus / "train.txt").write_text(block * times)
        shutil.rmtree(tokens.folder(), ignore_errors=True)
        answer = subprocess.run([sys.executable, "-c", peak], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        n, kilobytes = map(int, answer.stdout.split())
        count.append(n), found.append(kilobytes / 1024)
    assert count[1] == 8 * count[0] > 2_000_000
    assert found[1] - found[0] < 50 and found[1] < 1_000, found


def test_a_tokeniser_that_is_not_known_is_named(corpus):
    for call in (lambda: tokens.learn("bpe", 90, LINES), lambda: tokens.load("tiny", "train", "bpe", 90)):
        assert error(call) == "tokeniser 'bpe' is unknown; choose one of words, lower, pieces"


def test_a_token_file_of_another_corpus_is_refused(corpus):
    tokens.load("tiny", "train", "words", 8)
    header = tokens.folder() / "tiny.train.words-8.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "vocab": 9}))
    tokens.load.cache_clear()
    assert "is damaged (its header is that of tiny.train.words-9); delete it and" in error(tokens.load, "tiny", "train", "words", 8)


def test_fingerprint_does_not_hang_on_the_order_of_lines():
    a, b = tokens.Fingerprint(), tokens.Fingerprint()
    list(a.through(LINES)), list(b.through(reversed(LINES)))
    assert a.text() == b.text() and len(a.text()) == 64
    list(b.through(["more"]))
    assert a.text() != b.text()


ARTICLES = {"no list": "none", "no articles": [], "articles below zero": [-1, 3], "falling articles": [5, 2], "articles beyond": [0, 10**6]}


@pytest.mark.parametrize("damage", ["short", "changed", "gone", "header", *ARTICLES])
def test_a_damaged_token_file_says_what_to_delete(corpus, damage):
    tokens.load("tiny", "train", "words", 8)
    path = tokens.folder() / "tiny.train.words-8.bin"
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "header":
        path.with_suffix(".json").write_text("{")
    elif damage in ARTICLES:
        header = path.with_suffix(".json")
        header.write_text(json.dumps({**json.loads(header.read_text()), "articles": ARTICLES[damage]}))
    else:
        path.write_bytes(raw[:-1] if damage == "short" else raw[:-1] + bytes([raw[-1] ^ 1]))
    tokens.load.cache_clear()
    line = error(tokens.load, "tiny", "train", "words", 8)
    assert line.startswith(f"token file {path} is damaged (")
    assert line.endswith("; delete it and tiny.train.words-8.json, both are made again from the corpus")


def test_ids_go_with_the_tokeniser_that_made_them(corpus):
    """One that is made again from a text that has changed, or whose names were changed by hand, would give old ids new meanings."""
    tokens.load("tiny", "train", "words", 8)
    path = tokens.folder() / "tiny.words-8.json"
    d = json.loads(path.read_text())
    path.write_text(json.dumps({**d, "names": d["names"][:3] + d["names"][:2:-1]}))
    tokens.tokeniser.cache_clear(), tokens.load.cache_clear()
    line = error(tokens.load, "tiny", "train", "words", 8)
    assert "is damaged (its ids are those of another tokeniser than the one beside it); delete it and tiny.train.words-8.json, both" in line


def test_a_damaged_tokeniser_says_so(corpus):
    tokens.tokeniser("tiny", "words", 8)
    path = tokens.folder() / "tiny.words-8.json"
    path.write_text(json.dumps({"names": ["a"], "bytes": [1]}))
    tokens.tokeniser.cache_clear()
    expected = f"tokeniser {path} is damaged (1 tokens, expected 8); delete it, it is made again from the corpus"
    assert error(tokens.tokeniser, "tiny", "words", 8) == expected
    path.write_text(json.dumps({"kind": "words", "names": ["a"] * 8, "bytes": ["b"] * 8, "model": ""}))
    assert "is damaged (what should be a list of numbers is not); delete it" in error(tokens.tokeniser, "tiny", "words", 8)
    for change in ({"kind": "bogus"}, {"names": [["a"]] * 8}, {"model": 5}):
        path.write_text(json.dumps({"kind": "words", "names": ["a"] * 8, "bytes": [1] * 8, "model": ""} | change))
        assert "is damaged (no tokeniser of kind 'words', or a name that is no text); delete it" in error(
            tokens.tokeniser, "tiny", "words", 8
        )


def test_a_damaged_byte_pair_model_says_so(corpus):
    t = tokens.learn("pieces", 280, LINES)
    line = error(replace(t, model=t.model[:50]).encode, LINES)
    assert line.startswith(f"the byte-pair model of a tokeniser in {tokens.folder()} is damaged (")
    assert line.endswith("delete the file, it is made again from the corpus")


@pytest.mark.parametrize("field", ["restart", "unused_rows", "tokens"])
def test_counts_below_zero_are_refused(field):
    assert error(TokensConfig, **{field: -5}) == f"TokensConfig: {field}=-5 must be a whole number ≥ 0"


def test_bad_vocabularies(corpus):
    assert error(tokens.tokeniser, "tiny", "words", 99) == "vocabulary of 99 is too large: the text allows 13 words (+ 3 special tokens)"
    assert "too large: the text allows" in error(tokens.tokeniser, "tiny", "pieces", 5000)
    assert error(tokens.tokeniser, "tiny", "words", 3) == "vocabulary of 3 is too small for words: 3 of it are fixed"
    assert not list(tokens.folder().glob("*"))  # nothing is left behind


def test_bad_configs():
    assert error(TokensConfig, "x", "letters") == "TokensConfig: tokeniser='letters' is unknown; choose one of words, lower, pieces"
    for fields, message in [
        ({"order": "random"}, "TokensConfig: order='random' is unknown; choose one of shuffled, sequential"),
        ({"stride": 0}, "TokensConfig: stride=0 must be a whole number ≥ 1"),
        ({"context": 4, "chunk": 5}, "chunk=5 must lie in 1 … context=4"),
    ]:
        assert error(TokensConfig, **fields) == message


def text(n):
    return tokens.Tokens(np.arange(n, dtype=np.uint16), np.array([0, 7]), n, "")


def test_a_text_shorter_than_a_window():
    c = TokensConfig(context=8, chunk=2)
    expected = "a text of 9 tokens is too short for windows of 8 + 2"
    assert error(tokens.window_count, text(9), c) == expected and error(tokens.fixed_windows, text(9), c) == expected
    assert tokens.window_count(text(10), c) == 1
    whole = tokens.Tokens(np.arange(20, dtype=np.uint16), np.array([0]), 20, "")
    assert error(tokens.fixed_windows, whole, c) == "a text of 20 tokens in 1 articles is too short: parts A and B need a window each"


@pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 1000])
def test_shuffled_is_a_permutation(n):
    order = tokens.shuffled(np.arange(n), n, (0, 0))
    assert sorted(order) == list(range(n))
    if n == 1000:
        assert (order != tokens.shuffled(np.arange(n), n, (1, 0))).mean() > 0.98
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.1 and (np.diff(order) == 1).mean() < 0.02


def test_windows_are_seen_once_an_epoch_and_follow_from_the_step():
    c, t = TokensConfig(context=3, chunk=1), text(23)  # 20 windows
    whole = tokens.batches(t, c, 4, 0, 10, seed=3)
    assert whole.shape == (10, 4, 4) and (np.diff(whole, axis=-1) == 1).all()
    first, second = whole[:5, :, 0].ravel(), whole[5:, :, 0].ravel()
    assert sorted(first) == sorted(second) == list(range(20)) and (first != second).any()
    assert (tokens.batches(t, c, 4, 6, 2, seed=3) == whole[6:8]).all()  # what a resumed run sees
    assert (tokens.batches(t, c, 4, 0, 5, seed=4) != whole[:5]).any()


def test_stride_restart_order_and_cut_text():
    t = text(23)
    c = TokensConfig(context=3, chunk=1, order="sequential")
    assert tokens.batches(t, c, 2, 1, 2, 0)[..., 0].tolist() == [[2, 3], [4, 5]]
    wide = TokensConfig(context=3, chunk=1, order="sequential", stride=5)
    assert tokens.window_count(t, wide) == 4 and tokens.batches(t, wide, 2, 0, 2, 0)[..., 0].tolist() == [[0, 5], [10, 15]]
    again = TokensConfig(context=3, chunk=1, restart=2)
    drawn = tokens.batches(t, again, 4, 0, 6, 0)
    assert (drawn[2:4] == drawn[:2]).all() and (drawn[4:] == drawn[:2]).all()
    assert tokens.seen(t, again, 4, 6) == 8 and tokens.seen(t, c, 4, 100) == 20
    assert tokens.window_count(t, TokensConfig(context=3, chunk=1, tokens=10)) == 7


def test_fixed_windows_can_be_spread_out():
    every, some = (tokens.fixed_windows(text(23), TokensConfig(context=3, chunk=2, test_stride=s)).tokens for s in (0, 6))
    assert (some == every[::3]).all() and len(some) == 4
    with pytest.raises(TrmError, match="^test_stride=1 must be 0 or at least chunk=2: no token is to be scored twice$"):
        TokensConfig(context=3, chunk=2, test_stride=1)


def test_fixed_windows_predict_every_token_once():
    fixed = tokens.fixed_windows(text(23), TokensConfig(context=3, chunk=2))
    assert fixed.tokens[:, -2:].ravel().tolist() == list(range(3, 23))
    assert fixed.article.tolist() == [0] * 2 + [1] * 8  # by the first token of the chunk: 3, 5, 7 …
    assert fixed.part_b.sum() == 1


def test_another_process_is_waited_for(corpus, monkeypatch):
    """Two workers that need the same file: the second finds it made."""
    path, made = tokens.folder() / "x.json", []

    def other(_):  # the first worker finishes while the second sleeps
        path.parent.mkdir(parents=True)
        path.write_text("{}")

    with tokens.Store().lock("x.json") as mine:
        assert mine
        monkeypatch.setattr(tokens.time, "sleep", other)
        tokens.once(path, lambda: made.append(1))
    assert not made
