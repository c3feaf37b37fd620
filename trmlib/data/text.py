"""Text as word ids, cut into windows with blanks.

Batches are a pure function of (seed, step): a block of steps is drawn at once from a generator
seeded by both, so a resumed run sees what an uninterrupted one would, and every arm with the
same seed sees the same windows, the same blanks and the same partners.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from trmlib.data import sources
from trmlib.errors import TrmError, check

BLANK = "_"  # in a sentence that somebody types
SPECIALS = ("<PAD>", "<MASK>", "<UNK>")
PAD, MASK, UNK = range(3)
HEADING = re.compile(r"^\s?= [^=].* = $")  # " = Title = ", not " = = Section = = "


@dataclass(frozen=True)
class BlanksConfig:
    """A corpus cut into windows of `context` words with `blanks` of them hidden."""

    corpus: str = "wikitext-2"  # name in `sources.CORPORA`, or "toy-language" (embedded, generated)
    vocab: int = 5000  # words kept, the three special tokens included
    context: int = 16  # words a window
    blanks: int = 2  # words hidden in a window, at positions 1 … context-2
    min_blanks: int = 0  # 0: always `blanks`; else each training step hides min_blanks … blanks
    curve_windows: int = 1024  # fixed windows of part A scored during training
    noisy_batches: int = 50  # random batches of the earlier rule, drawn anew at each evaluation

    def __post_init__(self):
        check(self, vocab="≥ 1", context="≥ 1", curve_windows="≥ 1", noisy_batches="≥ 1")
        if not 1 <= self.blanks <= self.context - 2:
            raise TrmError(f"{self.blanks} blanks do not fit into the {self.context - 2} inner positions of a {self.context}-word window")
        if 2 * self.blanks - 1 > self.context:
            raise TrmError(f"{self.blanks} blanks leave too few visible words for their partners in a {self.context}-word window")
        if not 0 <= self.min_blanks <= self.blanks:
            raise TrmError(f"min_blanks must lie in 0 … blanks={self.blanks}, got {self.min_blanks}")


@dataclass(frozen=True)
class Text:
    """One split: word ids, and for every word the number of its article."""

    ids: np.ndarray  # (words,) int64
    article: np.ndarray  # (words,) int32
    fingerprint: str


def words(text):
    """Lower-cased, split at white space: the earlier code's tokenizer."""
    return text.lower().split()


def vocabulary(train_words, size):
    """The special tokens, then the `size - 3` most frequent words (ties in alphabetical order, so that
    the order of the articles does not matter)."""
    counts = Counter(train_words)
    if size <= len(SPECIALS):
        raise TrmError(f"vocabulary of {size} is too small: {len(SPECIALS)} of it are special tokens")
    if size - len(SPECIALS) > len(counts):
        raise TrmError(f"vocabulary of {size} is too large: the text has {len(counts)} different words (+ {len(SPECIALS)} special tokens)")
    common = sorted(counts, key=lambda w: (-counts[w], w))[: size - len(SPECIALS)]
    return {w: i for i, w in enumerate((*SPECIALS, *common))}


def encode(text, vocab):
    """Text → `Text`; a level-one heading starts a new article."""
    ids, article, number = [], [], -1
    for line in text.splitlines():
        number += bool(HEADING.match(line))
        line_ids = [vocab.get(w, UNK) for w in words(line)]
        ids += line_ids
        article += [max(number, 0)] * len(line_ids)
    return Text(np.array(ids, np.int64), np.array(article, np.int32), sources.fingerprint(text))


@cache
def load(corpus, vocab_size):
    """(vocabulary, train, validation) of a corpus; read once a process."""
    if corpus == "toy-language":
        train, validation = toy_language(40, seed=1), toy_language(8, seed=2)
    else:
        train, validation = sources.read(corpus, "train"), sources.read(corpus, "validation")
    vocab = vocabulary(words(train), vocab_size)
    return vocab, encode(train, vocab), encode(validation, vocab)


def toy_language(articles, seed):
    """A small generated language for smoke runs, with headings like WikiText's. Two inner words of a
    sentence agree (noun and verb share an ending), so that blanks have something to coordinate."""
    rng = np.random.default_rng(seed)
    lines = []
    for a in range(articles):
        lines.append(f" = Article {a} = ")
        for _ in range(30):
            kind, noun, verb, place = rng.integers(4), rng.zipf(1.5) % 10, rng.zipf(1.5) % 10, rng.integers(6)
            sentence = f"the noun{noun}-{kind} often verb{verb}-{kind} near the place{place} ."
            lines.append(" " + sentence)
    return "\n".join(lines) + "\n"


def draw_blanks(rng, rows, context, blanks):
    """`rows` sets of distinct positions in 1 … context-2 → sorted (rows, blanks), and for each blank
    `blanks - 1` distinct visible positions, its random partners → (rows, blanks, blanks - 1)."""
    order = 1 + rng.random((rows, context - 2)).argsort(1)  # a permutation of the inner positions
    at = np.sort(order[:, :blanks], 1)
    hidden = np.zeros((rows, 1, context), bool)
    np.put_along_axis(hidden, at[:, None], True, 2)
    key = rng.random((rows, blanks, context)) + hidden  # hidden positions sort last
    return at, key.argsort(2)[:, :, : blanks - 1]


def window_batch(text, starts, at, partners, context):
    """Windows with their blanks masked, as tensors: tokens (…, context), at, partners, targets (…, blanks)."""
    tokens = text.ids[starts[..., None] + np.arange(context)]
    targets = np.take_along_axis(tokens, at, -1)
    np.put_along_axis(tokens, at, MASK, -1)
    return {k: torch.from_numpy(v) for k, v in dict(tokens=tokens, at=at, partners=partners, targets=targets).items()}


def random_batches(text, config, batch, steps, seed):
    """`steps` batches of random windows: a dict of tensors (steps, batch, …), a function of `seed` alone.

    As in the earlier code, the very last window of a text is never drawn."""
    if len(text.ids) <= config.context:
        raise TrmError(f"a text of {len(text.ids)} words is too short for windows of {config.context}")
    rng = np.random.default_rng(seed)
    starts = rng.integers(len(text.ids) - config.context, size=(steps, batch))
    at, partners = draw_blanks(rng, steps * batch, config.context, config.blanks)
    m = config.blanks
    return window_batch(text, starts, at.reshape(steps, batch, m), partners.reshape(steps, batch, m, m - 1), config.context)


@dataclass(frozen=True)
class FixedSet:
    """Every window of the validation text once, blanks chosen once and for all."""

    batch: dict  # tensors (windows, …)
    article: np.ndarray  # (windows,) number of the article
    part_b: np.ndarray  # (articles,) True where an article belongs to part B


def fixed_set(text, config, seed=2025):
    """Windows that tile each article (the last one ends with the article); articles split into halves A and B, each with a window at least."""
    starts, articles = [np.zeros(0, int)], text.article[-1] + 1 if len(text.article) else 0
    for a in range(articles):
        lo, hi = np.searchsorted(text.article, [a, a + 1])
        tiles = np.arange(lo, hi - config.context + 1, config.context)
        starts.append(tiles if not len(tiles) or tiles[-1] + config.context == hi else np.append(tiles, hi - config.context))
    starts = np.concatenate(starts)
    rng = np.random.default_rng(seed)
    part_b = np.zeros(articles, bool)
    part_b[rng.permutation(len(part_b))[len(part_b) // 2 :]] = True
    if len(set(part_b[text.article[starts]])) < 2:
        raise TrmError(
            f"a text of {len(text.ids):,} words in {articles} articles is too short: parts A and B need an article of {config.context} words each"
        )
    at, partners = draw_blanks(rng, len(starts), config.context, config.blanks)
    return FixedSet(window_batch(text, starts, at, partners, config.context), text.article[starts], part_b)


def show_some(batch, count, keep):
    """The same batch with only `count` of its blanks hidden: columns keep[:, :count] (a permutation a row) stay."""
    kept, shown = keep[:, :count].sort(1)[0], keep[:, count:]
    at, targets = batch["at"], batch["targets"]
    some = {
        "tokens": batch["tokens"].scatter(1, at.gather(1, shown), targets.gather(1, shown)),
        "at": at.gather(1, kept),
        "targets": targets.gather(1, kept),
    }
    return some | ({"partners": batch["partners"][:, :count, : count - 1]} if "partners" in batch else {})


def question(sentence, known, context):
    """(tokens (1, context), at (1, m)) of a sentence whose blanks are written _; `known` words by their number. What is left of the window
    is filled with unknown words."""
    said, ids = sentence.lower().split(), {w: i for i, w in enumerate(known)}
    at = [i for i, w in enumerate(said) if w == BLANK]
    if not at:
        raise TrmError(f"no blank in {sentence!r}: write {BLANK} for each word to be filled in")
    if len(said) > context:
        raise TrmError(f"the sentence has {len(said)} words, the model reads {context}")
    tokens = [MASK if w == BLANK else ids.get(w, UNK) for w in said] + [UNK] * (context - len(said))
    return torch.tensor([tokens]), torch.tensor([at])
