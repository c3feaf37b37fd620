"""Text as one sequence of characters, cut into windows of a context and the chunk after it.

Batches are a pure function of (seed, block), as in `data/text.py`. The validation text has no articles; it is cut
into contiguous stretches, taken to part A and part B in turn, that stand where articles stand elsewhere.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from trmlib.data import sources
from trmlib.data.text import FixedSet, toy_language
from trmlib.errors import TrmError, check


@dataclass(frozen=True)
class SequenceConfig:
    """A corpus cut into windows of `context` characters and the `chunk` that follows."""

    corpus: str = "tinyshakespeare"  # name in `sources.CORPORA`, or "toy-language" (embedded, generated)
    context: int = 64  # characters read
    chunk: int = 2  # characters predicted
    split_tables: bool = False  # score also with a character table that the validation text builds of itself (the earlier code)
    stretches: int = 40  # parts of the validation text, alternately A and B
    stride: int = 16  # characters between windows of the fixed set
    curve_windows: int = 1024  # fixed windows of part A scored during training
    noisy_batches: int = 0  # random batches scored beside them, drawn anew at each evaluation

    def __post_init__(self):
        check(self, context="≥ 1", chunk="≥ 1", stretches="≥ 2", stride="≥ 1", curve_windows="≥ 1", noisy_batches="≥ 0")
        if self.chunk > self.context:
            raise TrmError(f"a chunk of {self.chunk} does not fit: it must lie in 1 … context={self.context}")

    @property
    def window(self):
        return self.context + self.chunk


@dataclass(frozen=True)
class Characters:
    """A corpus as character ids."""

    table: tuple[str, ...]  # id → character, of the whole corpus
    own_table: tuple[str, ...]  # of the validation text alone
    train: np.ndarray  # (characters,) int64
    validation: np.ndarray  # by `table`
    validation_own: np.ndarray  # by `own_table`
    fingerprints: dict[str, str]

    def encode(self, text):
        """Ids of a text by `table`."""
        if unknown := sorted(set(text) - set(self.table)):
            raise TrmError(f"character {unknown[0]!r} is not in the table of {len(self.table)} characters")
        return ids(text, self.table)

    def decode(self, tokens):
        return "".join(self.table[i] for i in tokens)


def table(text):
    """The characters of a text, sorted."""
    return tuple(sorted(set(text)))


def ids(text, symbols):
    place = {c: i for i, c in enumerate(symbols)}
    return np.array([place[c] for c in text], np.int64)


@cache
def load(corpus):
    """A corpus as `Characters`; read once a process."""
    if corpus == "toy-language":  # its validation text lacks a character, so that the tables differ
        train, validation = toy_language(40, seed=1), toy_language(8, seed=2).replace("1", "2")
    else:
        train, validation = sources.read(corpus, "train"), sources.read(corpus, "validation")
    both, own = table(train + validation), table(validation)
    prints = {"train": sources.fingerprint(train), "validation": sources.fingerprint(validation)}
    return Characters(both, own, ids(train, both), ids(validation, both), ids(validation, own), prints)


def random_windows(tokens, length, batch, steps, seed):
    """Random windows (steps, batch, length) of a sequence, a function of `seed` alone. The very last one is never drawn,
    as in the earlier code."""
    if len(tokens) <= length:
        raise TrmError(f"a text of {len(tokens)} tokens is too short for windows of {length}")
    starts = np.random.default_rng(seed).integers(len(tokens) - length, size=(steps, batch))
    return torch.from_numpy(tokens[starts[..., None] + np.arange(length)])


def fixed_set(tokens, config):
    """Windows `stride` apart, none across the border of two stretches: batch["tokens"] (windows, context + chunk)."""
    borders = np.linspace(0, len(tokens), config.stretches + 1).astype(int)
    if np.diff(borders).min() < config.window:
        raise TrmError(f"a text of {len(tokens)} tokens is too short for {config.stretches} stretches of at least {config.window}")
    starts = [np.arange(lo, hi - config.window + 1, config.stride) for lo, hi in zip(borders, borders[1:], strict=False)]
    article = np.repeat(np.arange(config.stretches), [len(s) for s in starts])
    windows = tokens[np.concatenate(starts)[:, None] + np.arange(config.window)]
    return FixedSet({"tokens": torch.from_numpy(windows)}, article, np.arange(config.stretches) % 2 == 1)
