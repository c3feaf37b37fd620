"""Vocabulary, articles, blanks, batches: every rule of the data, by hand or by counting."""

import itertools

import numpy as np
import pytest
import torch
from conftest import smoke_run

from trmlib.data import text
from trmlib.data.text import (
    MASK,
    UNK,
    BlanksConfig,
    draw_blanks,
    encode,
    fixed_set,
    random_batches,
    show_some,
    vocabulary,
    window_batch,
    words,
)
from trmlib.errors import TrmError
from trmlib.experiments.masked import Task, grid

CHI2_999 = {13: 34.5, 14: 36.1, 90: 137.2}  # 99.9 % quantiles by degrees of freedom


def numbered(*lengths):
    """A Text whose words are all different, in articles of the given lengths."""
    ids = np.arange(3, 3 + sum(lengths), dtype=np.int64)
    return text.Text(ids, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), "none")


def chi2(counts):
    expected = np.sum(counts) / np.size(counts)
    return float(np.sum((np.asarray(counts) - expected) ** 2 / expected))


def test_words_are_lower_cased_and_split_at_white_space():
    assert words(" The  Cat's\n<unk> @-@ sat.\t") == ["the", "cat's", "<unk>", "@-@", "sat."]


def test_vocabulary_is_by_frequency_then_alphabet():
    seen = words("d b b c c a e e e")
    assert list(vocabulary(seen, 8)) == ["<PAD>", "<MASK>", "<UNK>", "e", "b", "c", "a", "d"]
    assert vocabulary(seen, 6) == {"<PAD>": 0, "<MASK>": 1, "<UNK>": 2, "e": 3, "b": 4, "c": 5}
    assert vocabulary(seen[::-1], 7) == vocabulary(seen, 7)


def test_too_large_vocabulary_names_its_numbers():
    with pytest.raises(TrmError) as e:
        vocabulary(["a", "b", "a"], 6)
    assert str(e.value) == "vocabulary of 6 is too large: the text has 2 different words (+ 3 special tokens)"


def test_vocabulary_without_room_for_a_word_is_refused():
    with pytest.raises(TrmError, match="^vocabulary of 2 "):
        vocabulary(["a", "b", "a"], 2)


def test_only_level_one_headings_start_an_article():
    lines = [" = One = ", " a b ", " = = Part = = ", " c = d ", " = = = Deeper = = = ", "", " = Two words = ", " zzz "]
    vocab = {w: i for i, w in enumerate((*text.SPECIALS, *words("= one a b part c d deeper two words")))}
    got = encode("\n".join(lines), vocab)
    one, two = words("= one = a b = = part = = c = d = = = deeper = = ="), words("= two words = zzz")
    assert got.ids.tolist() == [vocab.get(w, UNK) for w in one + two]
    assert got.ids[-1] == UNK
    assert got.article.tolist() == [0] * len(one) + [1] * len(two)
    assert (got.ids.dtype, got.article.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize("blanks", [1, 2, 5])
def test_blanks_and_partners_keep_the_rules(blanks):
    context, rows = 16, 3000
    at, partners = draw_blanks(np.random.default_rng(0), rows, context, blanks)
    assert at.shape == (rows, blanks) and partners.shape == (rows, blanks, blanks - 1)
    assert (np.diff(at, axis=1) > 0).all()  # sorted and distinct
    assert (at.min(), at.max()) == (1, context - 2)
    assert not (partners[:, :, :, None] == at[:, None, None, :]).any()
    if blanks > 1:
        assert (np.diff(np.sort(partners, 2), axis=2) > 0).all()
        assert (partners.min(), partners.max()) == (0, context - 1)


def test_blanks_are_uniform_over_pairs_and_partners_over_visible_positions():
    rows = 20_000
    at, partners = draw_blanks(np.random.default_rng(1), rows, 16, 2)
    pairs = [np.sum((at == pair).all(1)) for pair in itertools.combinations(range(1, 15), 2)]
    assert sum(pairs) == rows
    assert chi2(pairs) < CHI2_999[90]
    for i in range(2):
        rank = partners[:, i, 0] - (at < partners[:, i]).sum(1)  # among the 14 visible positions
        assert chi2(np.bincount(rank, minlength=14)) < CHI2_999[13]
    assert (partners[:, 0] != partners[:, 1]).mean() == pytest.approx(13 / 14, abs=0.01)  # drawn apart for each blank


def test_as_many_blanks_as_leave_visible_partners():
    """blanks - 1 partners need as many visible positions: 8 blanks of 16 words do, 9 do not."""
    at, partners = draw_blanks(np.random.default_rng(0), 500, 16, BlanksConfig(blanks=8).blanks)
    assert not (partners[:, :, :, None] == at[:, None, None, :]).any()
    for context, blanks in ((16, 9), (6, 4)):
        with pytest.raises(TrmError, match=f"{blanks} blanks .*{context}-word window"):
            BlanksConfig(context=context, blanks=blanks)


def test_window_batch_masks_the_blanks_and_nothing_else():
    source = numbered(50)
    at, partners = np.array([[2, 5], [1, 3]]), np.array([[[0], [7]], [[2], [2]]])
    b = window_batch(source, np.array([0, 40]), at, partners, 8)
    assert b["tokens"].tolist() == [[3, 4, MASK, 6, 7, MASK, 9, 10], [43, MASK, 45, MASK, 47, 48, 49, 50]]
    assert b["targets"].tolist() == [[5, 8], [44, 46]]
    assert b["at"].tolist() == at.tolist() and b["partners"].tolist() == partners.tolist()
    assert source.ids.tolist() == list(range(3, 53))  # the text itself stays whole


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in ("tokens", "at", "partners", "targets"))


def test_random_batches_are_a_function_of_the_seed():
    c, source = BlanksConfig(vocab=300, context=12, blanks=3), numbered(90, 110)
    b = random_batches(source, c, 8, 5, (7, 2))
    assert {k: v.shape for k, v in b.items()} == {"tokens": (5, 8, 12), "at": (5, 8, 3), "partners": (5, 8, 3, 2), "targets": (5, 8, 3)}
    assert same(b, random_batches(source, c, 8, 5, (7, 2)))
    assert not same(b, random_batches(source, c, 8, 5, (7, 3)))
    whole = b["tokens"].scatter(2, b["at"], b["targets"])
    assert torch.equal(whole, whole[..., :1] + torch.arange(12))  # runs of the text, blanks filled in
    assert ((b["tokens"] == MASK).sum(2) == 3).all()


def test_window_starts_are_uniform():
    b = random_batches(numbered(27), BlanksConfig(vocab=30, context=12, blanks=1), 100, 200, 0)
    starts = b["tokens"][..., 0].flatten().numpy() - 3
    assert chi2(np.bincount(starts)) < CHI2_999[14]


@pytest.mark.parametrize("arm", ["joint", "self-only", "random-partner", "every-pass"])
@pytest.mark.parametrize("min_blanks", [0, 1])
def test_arms_with_the_same_seed_see_the_same_data(arm, min_blanks):
    tasks = [Task(smoke_run(a, data={"min_blanks": min_blanks}).spec) for a in ("baseline", arm)]
    for seed, block in ((0, 0), (0, 1), (1, 0)):
        for a, b in zip(*(t.batches(seed, block, 4) for t in tasks), strict=True):
            assert same(a, b)
    assert not same(tasks[0].batches(0, 0, 1)[0], tasks[0].batches(1, 0, 1)[0])
    assert same(tasks[0].curve_batch, tasks[1].curve_batch) and same(tasks[0].fixed_batch, tasks[1].fixed_batch)


def test_number_of_blanks_varies_by_step_but_not_by_seed():
    task = Task(smoke_run("joint", data={"blanks": 3, "min_blanks": 1}).spec)
    counts = [[b["at"].shape[1] for b in task.batches(seed, 0, 60)] for seed in (0, 1)]
    assert counts[0] == counts[1]
    assert set(counts[0]) == {1, 2, 3}


def test_fixed_set_tiles_every_article_long_enough():
    lengths = [30, 7, 8, 9, 16, 3, 23]
    source, c = numbered(*lengths), BlanksConfig(vocab=200, context=8, blanks=2)
    f = fixed_set(source, c)
    whole = f.batch["tokens"].scatter(1, f.batch["at"], f.batch["targets"]).numpy()
    assert (np.diff(whole, axis=1) == 1).all()
    articles = source.article[whole - 3]  # of every word of every window
    assert (articles == f.article[:, None]).all()  # no window straddles two
    covered = set(whole.flatten().tolist())
    assert covered == {w + 3 for w, a in enumerate(source.article) if lengths[a] >= 8}
    assert np.bincount(f.article, minlength=7).tolist() == [4, 0, 1, 2, 2, 0, 3]
    last = {a: whole[f.article == a].max() for a in (0, 2, 3, 4, 6)}
    assert last == {0: 32, 2: 47, 3: 56, 4: 72, 6: 98}  # the last window ends with its article
    assert ((f.batch["tokens"] == MASK).sum(1) == 2).all()


def test_fixed_set_is_fixed_and_its_parts_split_by_article():
    source, c = numbered(*[20] * 9), BlanksConfig(vocab=200, context=8, blanks=2)
    f, again = fixed_set(source, c), fixed_set(source, c)
    assert same(f.batch, again.batch) and (f.part_b == again.part_b).all()
    assert f.part_b.shape == (9,) and f.part_b.sum() == 5
    assert not same(f.batch, fixed_set(source, c, seed=1).batch)


@pytest.mark.parametrize(
    "lengths, said",
    [([], "0 words in 0 articles"), ([5], "5 words in 1 articles"), ([40], "40 words in 1 articles"), ([40, 7], "47 words in 2 articles")],
)
def test_a_text_without_windows_for_both_parts_is_one_line(lengths, said):
    with pytest.raises(TrmError) as e:
        fixed_set(numbered(*lengths), BlanksConfig(vocab=200, context=8))
    assert str(e.value) == f"a text of {said} is too short: parts A and B need an article of 8 words each"


def test_show_some_keeps_that_many_blanks_and_restores_the_others():
    c = BlanksConfig(vocab=300, context=12, blanks=4)
    b = {k: v[0] for k, v in random_batches(numbered(200), c, 50, 1, 0).items()}
    keep = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).argsort(1)
    for count in (1, 2, 3, 4):
        s = show_some(b, count, keep)
        assert s["at"].shape == s["targets"].shape == (50, count)
        assert s["partners"].shape == (50, count, count - 1)
        assert (s["at"].diff(dim=1) > 0).all()
        assert ((s["tokens"] == MASK).sum(1) == count).all()
        assert (s["tokens"].gather(1, s["at"]) == MASK).all()
        assert torch.equal(s["tokens"].scatter(1, s["at"], s["targets"]), b["tokens"].scatter(1, b["at"], b["targets"]))
        assert torch.equal(s["at"], b["at"].gather(1, keep[:, :count].sort(1)[0]))
        assert not (s["partners"][..., None] == s["at"][:, None, None]).any()
    assert same(show_some(b, 4, keep), {**b, "partners": b["partners"]})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"blanks": 15}, "15 blanks do not fit into the 14 inner positions of a 16-word window"),
        ({"blanks": 0}, "0 blanks do not fit into the 14 inner positions of a 16-word window"),
        ({"context": 3, "blanks": 2}, "2 blanks do not fit into the 1 inner positions of a 3-word window"),
        ({"min_blanks": 3}, "min_blanks must lie in 0 … blanks=2, got 3"),
        ({"min_blanks": -1}, "min_blanks must lie in 0 … blanks=2, got -1"),
        ({"noisy_batches": 0}, "BlanksConfig: noisy_batches=0 must be a whole number ≥ 1"),
        ({"vocab": 5e3}, "BlanksConfig: vocab=5000.0 must be a whole number ≥ 1"),
    ],
)
def test_blanks_that_do_not_fit_are_one_line(fields, message):
    with pytest.raises(TrmError) as e:
        BlanksConfig(**fields)
    assert str(e.value) == message


def test_toy_language_is_deterministic():
    assert text.toy_language(3, seed=1) == text.toy_language(3, seed=1)
    assert text.toy_language(3, seed=1) != text.toy_language(3, seed=2)


def test_toy_language_has_headings_and_agreement():
    toy = text.toy_language(3, seed=1)
    lines = toy.splitlines()
    assert [i for i, line in enumerate(lines) if text.HEADING.match(line)] == [0, 31, 62]
    sentences = [line.split() for line in lines if not text.HEADING.match(line)]
    assert len(sentences) == 90
    assert all(s[1][-1] == s[3][-1] for s in sentences)  # noun and verb share their ending
    assert {s[1][-1] for s in sentences} == set("0123")


def test_every_smoke_run_finds_its_vocabulary():
    for corpus, size in {(r.spec.data.corpus, r.spec.data.vocab) for r in grid("smoke")}:
        vocab, train, validation = text.load(corpus, size)
        assert sorted(vocab.values()) == list(range(size))
        assert train.article[-1] == 39 and validation.article[-1] == 7
        assert train.ids.max() < size and validation.ids.max() < size
        assert (train.ids == UNK).mean() < 0.05
