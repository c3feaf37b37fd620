"""A corpus as one memory-mapped file of token ids, and windows of it drawn without repetition.

The text is read as a stream, twice: to make the tokeniser (from the training split) and to write the ids. Neither the text nor
its ids are ever in memory as a whole. Both files lie in the cache, each beside a header with the fingerprint of the text; where they are, neither
the corpus nor the `tokenizers` package is needed, so that they can be carried to another machine. Blank lines are left out, for
the hub's rows do not have them all.

Which windows a step sees is a pure function of (seed, step): a resumed run takes up where it was.
"""

import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from tqdm import tqdm

from trmlib.data import sources
from trmlib.data.text import HEADING, toy_language
from trmlib.errors import TrmError, check
from trmlib.runs import Store, write_atomically

PAD = 0
WORDS = ("<PAD>", "<UNK>", "<EOS>")
KINDS = {"words": WORDS, "lower": WORDS, "pieces": ("<PAD>",)}  # tokeniser → its special tokens, the first ids; lower: words, lower-cased
TOY = {"train": (40, 1), "validation": (8, 2)}  # split of the toy language → articles and seed
ORDERS = ("shuffled", "sequential")
SCHEMA = 1


@dataclass(frozen=True)
class TokensConfig:
    """A corpus cut into windows of context and chunk, and the order in which they are seen."""

    corpus: str = "wiki-core"  # name in `sources.CORPORA`, or "toy-language" (embedded, generated)
    tokeniser: str = "pieces"  # byte-level byte-pair pieces, words split at white space, or lower: those in lower case
    vocab: int = 4096  # tokens, the special ones included
    context: int = 64  # tokens that are read
    chunk: int = 4  # tokens that are predicted
    tokens: int = 0  # tokens of training text used, from its beginning; 0 for all
    stride: int = 1  # tokens from the start of one training window to the next
    order: str = "shuffled"  # each window once before any comes twice, in random order; or sequential
    restart: int = 0  # steps after which the order begins again, as after a resume that reseeds; 0 for never
    unused_rows: int = 0  # embedding rows that no token ever names
    curve_windows: int = 1024  # fixed windows of part A scored during training
    test_stride: int = 0  # tokens from the start of one fixed window to the next; 0 for `chunk`: each token is predicted once

    def __post_init__(self):
        check(
            self, tokeniser=tuple(KINDS), vocab="≥ 1", context="≥ 1", chunk="≥ 1", tokens="≥ 0", stride="≥ 1", order=ORDERS, restart="≥ 0",
            unused_rows="≥ 0", curve_windows="≥ 1", test_stride="≥ 0",
        )  # fmt: skip
        if self.chunk > self.context:
            raise TrmError(f"chunk={self.chunk} must lie in 1 … context={self.context}")
        if self.test_stride and self.test_stride < self.chunk:
            raise TrmError(f"test_stride={self.test_stride} must be 0 or at least chunk={self.chunk}: no token is to be scored twice")


@dataclass(frozen=True)
class Tokeniser:
    """Tokens by id, and how many bytes of UTF-8 text each stands for (V,); 0 where that is not known."""

    kind: str
    names: tuple[str, ...]
    bytes: np.ndarray
    model: str = ""  # the byte-pair model, as the `tokenizers` package writes it

    @property
    def mark(self):
        """sha256 of all that ids mean: files of ids name it."""
        return hashlib.sha256(json.dumps([self.kind, self.names, self.bytes.tolist(), self.model]).encode()).hexdigest()

    def encode(self, lines):
        """Lines with their line ends → for each an array of ids."""
        if self.kind != "pieces":
            ids = ids_of(self.names)
            return [np.array([ids.get(w, 1) for w in words(self.kind, line)] + [2]) for line in lines]
        return [np.array(e.ids, np.int64) + len(KINDS["pieces"]) for e in byte_pair(self.model).encode_batch_fast(lines, False)]


@dataclass(frozen=True)
class Tokens:
    """One split: its ids, and where its articles begin."""

    ids: np.ndarray  # (tokens,) memory-mapped uint16 or uint32
    articles: np.ndarray  # (articles,) the first token of each
    bytes: int  # of UTF-8 text, blank lines left out
    fingerprint: str


def special_tokens(kind):
    """Those of a kind of tokeniser, or one line that says which kinds there are."""
    if kind not in KINDS:
        raise TrmError(f"tokeniser {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[kind]


def words(kind, line):
    return (line.lower() if kind == "lower" else line).split()


@cache
def ids_of(names):
    return {name: i for i, name in enumerate(names)}


@cache
def byte_pair(model):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise TrmError(
            "text can only be cut into pieces with the `tokenizers` package: install it, or bring data/cache/tokens along"
        ) from None
    try:
        return Tokenizer.from_str(model)
    except Exception as e:  # the package raises no narrower kind
        raise TrmError(
            f"the byte-pair model of a tokeniser in {folder()} is damaged ({e}); delete the file, it is made again from the corpus"
        ) from None


def learn(kind, vocab, lines):
    """The tokeniser of a training text, the same for the same text whatever the order of its lines."""
    special = special_tokens(kind)
    if vocab <= len(special) + 256 * (kind == "pieces"):
        raise TrmError(f"vocabulary of {vocab} is too small for {kind}: {len(special) + 256 * (kind == 'pieces')} of it are fixed")
    found, names, model = 0, (), ""
    if kind != "pieces":
        counts = Counter(w for line in lines for w in words(kind, line))
        names, found = tuple(sorted(counts, key=lambda w: (-counts[w], w))[: vocab - len(special)]), len(counts)
        size = [0, 0, 2, *(len(w.encode()) + 1 for w in names)]  # a word and a space; a line's first space and its end
    else:
        try:
            from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        except ImportError:
            raise TrmError("byte-pair pieces are learnt with the `tokenizers` package, which is not installed") from None
        byte_level = pre_tokenizers.ByteLevel
        t = Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = byte_level(add_prefix_space=False), decoders.ByteLevel()
        alphabet = sorted(byte_level.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=vocab - len(special), initial_alphabet=alphabet, show_progress=False)
        t.train_from_iterator(lines, trainer)
        names, model = tuple(sorted(t.get_vocab(), key=t.get_vocab().get)), t.to_str()
        found, size = len(names), [0, *map(len, names)]  # each character of a piece is one byte
    if found < vocab - len(special):
        raise TrmError(f"vocabulary of {vocab} is too large: the text allows {found} {kind} (+ {len(special)} special tokens)")
    return Tokeniser(kind, (*special, *names), np.array(size), model)


def text_lines(corpus, split, what=""):
    """The lines of a split that are not blank, with a progress bar."""
    if corpus == "toy-language":
        if split not in TOY:
            raise TrmError(f"toy-language has no split {split!r}; it has: {', '.join(TOY)}")
        found, total = toy_language(*TOY[split]).splitlines(keepends=True), None
    else:
        found, total = sources.lines(corpus, split), sources.corpus(corpus).lines.get(split)
    told = {} if what else {"disable": True}  # else as TQDM_DISABLE says, which `trm run --quiet` sets
    for line in tqdm(found, f"{what} {corpus} {split}", total, unit=" lines", mininterval=1, **told):
        if line.strip():
            yield line


def numbers(values):
    """A list of whole numbers as an array, or ValueError."""
    if not isinstance(values, list) or not all(isinstance(v, int) for v in values):
        raise ValueError("what should be a list of numbers is not")
    return np.array(values)


def folder():
    return Store().cache / "tokens"


@cache
def tokeniser(corpus, kind, vocab):
    """The tokeniser of a corpus: from the cache, or learnt from its training text once."""
    if corpus == "toy-language":
        return learn(kind, vocab, text_lines(corpus, "train"))
    path = folder() / f"{corpus}.{kind}-{vocab}.json"

    def make():
        mark = Fingerprint()
        t = learn(kind, vocab, mark.through(text_lines(corpus, "train", f"{kind} of")))
        about = {"corpus": corpus, "kind": kind, "vocab": vocab, "fingerprint": mark.text()}
        body = {"names": t.names, "bytes": t.bytes.tolist(), "model": t.model}
        write_atomically(path, json.dumps({"schema": SCHEMA, **about, **body}, ensure_ascii=False).encode())

    once(path, make)
    try:
        d = json.loads(path.read_text())
        if len(d["names"]) != vocab or len(d["bytes"]) != vocab:
            raise ValueError(f"{len(d['names'])} tokens, expected {vocab}")
        if d["kind"] != kind or not all(isinstance(part, str) for part in (d["model"], *d["names"])):
            raise ValueError(f"no tokeniser of kind {kind!r}, or a name that is no text")
        return Tokeniser(d["kind"], tuple(d["names"]), numbers(d["bytes"]), d["model"])
    except (ValueError, KeyError, TypeError) as e:
        raise TrmError(f"tokeniser {path} is damaged ({e}); delete it, it is made again from the corpus") from None


@cache
def load(corpus, split, kind, vocab):
    """`Tokens` of a split: from the cache, or written there once."""
    if corpus == "toy-language":
        parts, articles, size, mark = [], [], 0, Fingerprint()
        for ids, starts, n in encoded(tokeniser(corpus, kind, vocab), mark.through(text_lines(corpus, split))):
            articles += [a + sum(map(len, parts)) for a in starts]
            parts.append(ids)
            size += n
        return Tokens(np.concatenate(parts), np.array(articles), size, mark.text())
    path = folder() / f"{corpus}.{split}.{kind}-{vocab}.bin"
    once(path.with_suffix(".json"), lambda: write(path, corpus, split, kind, vocab))
    return read(path, tokeniser(corpus, kind, vocab))


def once(path, make):
    """Call `make`, unless `path` is there or another process is making it."""
    while not path.exists():
        with Store().lock(path.name) as mine:
            if mine and not path.exists():
                make()
        time.sleep(0 if mine else 1)


def encoded(t, lines, size=2_000):
    """Blocks of lines as (ids, where articles begin among them, bytes of text)."""
    lines = iter(lines)
    while block := list(islice(lines, size)):
        parts = t.encode(block)
        first = np.cumsum([0, *map(len, parts)])
        yield (
            np.concatenate(parts),
            [int(first[i]) for i, line in enumerate(block) if HEADING.match(line)],
            sum(len(s.encode()) for s in block),
        )


def write(path, corpus, split, kind, vocab):
    """The ids of a split as a file of uint16 (uint32 for large vocabularies), and its header, which comes last: no header, no file."""
    t, dtype = tokeniser(corpus, kind, vocab), "uint16" if vocab <= 2**16 else "uint32"
    whole, mark, articles, count, size = hashlib.sha256(), Fingerprint(), [], 0, 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as f:
            for ids, starts, n in encoded(t, mark.through(text_lines(corpus, split, f"{kind} of"))):
                raw = ids.astype(dtype).tobytes()
                f.write(raw)
                whole.update(raw)
                articles += [count + a for a in starts]
                count, size = count + len(ids), size + n
        os.replace(temporary, path)
    except OSError as e:
        raise TrmError(f"cannot write {path}: {e.strerror}; free some space and run again", code=74) from None
    finally:
        temporary.unlink(missing_ok=True)
    header = {"schema": SCHEMA, "corpus": corpus, "split": split, "tokeniser": kind, "vocab": vocab, "dtype": dtype, "tokens": count, "bytes": size,
              "articles": articles or [0], "sha256": whole.hexdigest(), "fingerprint": mark.text(), "mark": t.mark}  # fmt: skip
    write_atomically(path.with_suffix(".json"), json.dumps(header).encode())


def read(path, t):
    """The memory map of a file of ids, checked against its header and its tokeniser."""
    header = path.with_suffix(".json")
    try:
        d = json.loads(header.read_text())
        if (name := f"{d['corpus']}.{d['split']}.{d['tokeniser']}-{d['vocab']}") != path.stem:
            raise ValueError(f"its header is that of {name}")
        if d.get("mark", t.mark) != t.mark:  # older headers have none
            raise ValueError("its ids are those of another tokeniser than the one beside it")
        size, expected = path.stat().st_size, d["tokens"] * np.dtype(d["dtype"]).itemsize
        if size != expected:
            raise ValueError(f"{size:,} bytes, expected {expected:,}")
        ids = np.memmap(path, d["dtype"], "r") if size else np.zeros(0, d["dtype"])
        if hashlib.sha256(ids).hexdigest() != d["sha256"]:
            raise ValueError("its sha256 is not the one in its header")
        articles = numbers(d["articles"])
        if not len(articles) or (np.diff(articles) < 0).any() or not 0 <= articles[0] <= articles[-1] <= len(ids):
            raise ValueError(f"its articles do not begin at rising numbers from 0 to {len(ids)}")
        return Tokens(ids, articles, d["bytes"], d["fingerprint"])
    except (ValueError, KeyError, TypeError, OSError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise TrmError(
            f"token file {path} is damaged ({reason}); delete it and {header.name}, both are made again from the corpus"
        ) from None


class Fingerprint:
    """sha256 sums of the lines, added up: the same for a text whose lines stand in another order, and made from a stream."""

    total = 0

    def through(self, lines):
        for line in lines:
            self.total += int.from_bytes(hashlib.sha256(" ".join(line.split()).encode()).digest())
            yield line

    def text(self):
        return f"{self.total % 2**256:064x}"


# ---------------------------------------------------------------- windows


def window_count(tokens, config):
    """Training windows of a text, those that start at each `stride`-th token."""
    used = min(len(tokens.ids), config.tokens or len(tokens.ids))
    count = (used - config.context - config.chunk) // config.stride + 1
    if count < 1:
        raise TrmError(f"a text of {used:,} tokens is too short for windows of {config.context} + {config.chunk}")
    return count


def seen(tokens, config, batch, steps):
    """How many different windows a run of `steps` steps sees."""
    return min(batch * min(steps, config.restart or steps), window_count(tokens, config))


def batches(tokens, config, batch, first, steps, seed):
    """Windows of steps first … first + steps - 1: ids (steps, batch, context + chunk), int64, a function of the arguments alone."""
    count = window_count(tokens, config)
    step = np.arange(first, first + steps)
    if config.restart:
        step %= config.restart
    epoch, k = np.divmod(step[:, None] * batch + np.arange(batch), count)
    if config.order == "shuffled":
        for e in np.unique(epoch):
            k[epoch == e] = shuffled(k[epoch == e], count, (seed, int(e)))
    return tokens.ids[(k * config.stride)[..., None] + np.arange(config.context + config.chunk)].astype(np.int64)


def shuffled(k, n, key):
    """Elements number k (any shape) of a random permutation of 0 … n-1, without making all of it.

    Four rounds of a Feistel network permute the numbers below the next power of 4; a result ≥ n is permuted again."""
    half = np.uint64((max(int(n) - 1, 1).bit_length() + 1) // 2)
    mask, rounds = (np.uint64(1) << half) - np.uint64(1), np.random.default_rng(key).integers(2**63, size=4, dtype=np.uint64)
    x = np.array(k, np.uint64)
    out = np.ones(x.shape, bool)  # still to be permuted
    while out.any():
        left, right = x[out] >> half, x[out] & mask
        for r in rounds:
            h = (right + r) * np.uint64(0x9E3779B97F4A7C15)  # wraps around
            h = (h ^ (h >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            left, right = right, left ^ ((h >> np.uint64(32)) & mask)
        x[out] = (left << half) | right
        out = x >= np.uint64(n)
    return x.astype(np.int64)


@dataclass(frozen=True)
class FixedWindows:
    """Windows whose chunks tile the validation text: every token but the first `context` is predicted once."""

    tokens: np.ndarray  # (windows, context + chunk) int64
    article: np.ndarray  # (windows,) of the chunk's first token
    part_b: np.ndarray  # (articles,) True where an article belongs to part B


def fixed_windows(tokens, config, seed=2025):
    n, width = len(tokens.ids), config.context + config.chunk
    if n < width:
        raise TrmError(f"a text of {n:,} tokens is too short for windows of {config.context} + {config.chunk}")
    starts = np.arange(0, n - width + 1, config.test_stride or config.chunk)
    article = np.maximum(np.searchsorted(tokens.articles, starts + config.context, "right") - 1, 0)
    part_b = np.zeros(len(tokens.articles), bool)
    part_b[np.random.default_rng(seed).permutation(len(part_b))[len(part_b) // 2 :]] = True
    if len(set(part_b[article])) < 2:
        raise TrmError(f"a text of {n:,} tokens in {len(part_b)} articles is too short: parts A and B need a window each")
    return FixedWindows(tokens.ids[starts[:, None] + np.arange(width)].astype(np.int64), article, part_b)


def text_bytes(t, targets):
    """Bytes of UTF-8 text that target ids stand for, or None where one of them is the vocabulary's <UNK>."""
    size = t.bytes[targets]
    return int(size.sum()) if size.all() else None
