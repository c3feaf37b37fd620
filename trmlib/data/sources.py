"""Where a corpus comes from: a data root on disk, else the Hugging Face hub, else an error that says how to get it.

The data root is one setting: the environment variable TRM_DATA (or `--data-root`). Its layout is
`<root>/<folder>/<split>.txt.xz` (or `.txt`; of puzzles `.csv.gz` or `.csv`), as the table below names it.
"""

import csv
import gzip
import hashlib
import lzma
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from trmlib.errors import TrmError

TEXT, TABLE = (".txt.xz", ".txt"), (".csv.gz", ".csv")


@dataclass(frozen=True)
class Corpus:
    """A corpus, of text or a table of puzzles: where it lies, where else it can be had, and how to know that it is whole."""

    name: str
    folder: str
    hub: tuple[str, ...] | None  # repository and, if it has several, configuration
    size: str
    licence: str
    splits: dict[str, str] = field(default_factory=dict)  # split → file stem below the folder
    sha256: dict[str, str] = field(default_factory=dict)  # split → sha256 of the unpacked file
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)  # split → its part of the one text that all splits are cut from
    hub_split: str | None = None  # what the hub calls that one text
    lines: dict[str, int] = field(default_factory=dict)  # split → lines, for the progress bar
    columns: tuple[str, ...] = ()  # of a table

    @property
    def endings(self):
        """What a file's name may end in, the preferred first."""
        return TABLE if self.columns else TEXT


PUZZLES = ("source", "question", "answer", "rating")
CORPORA = {
    c.name: c
    for c in [
        Corpus(
            "wikitext-2",
            "wikitext-2",
            ("Salesforce/wikitext", "wikitext-2-v1"),
            "13 MB",
            "CC BY-SA 3.0 (Wikipedia authors; Merity et al. 2016)",
            {s: s for s in ("train", "validation", "test")},
            {
                "train": "728c77e87e176af4730f9a80fc6008bcaff421a7202c1c048877c0eec3685f89",
                "validation": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            },
            lines={"train": 36_718, "validation": 3_760, "test": 4_358},
        ),
        Corpus(  # WikiText-103's own validation text, which is also WikiText-2's, with fewer words replaced by <unk>
            "wiki-core",
            "wiki-core",
            None,
            "28 MB",
            "CC BY-SA 3.0 (Wikipedia authors; Merity et al. 2016)",
            {"train": "train", "validation": "wikitext-103-validation", "test": "wikitext-103-test"},
            {
                "train": "af98cb5dbd7eb6821d65a11edb645b7f34f3207c711f83af8330efb1e69ac246",
                "validation": "9aee9f52d6e77de6c7751fc5e7c44287db3ec0eaf15477098acc6b93c1c4250b",
                "test": "56db52eb157b1ab5c89646eef70510c1eca6e12a3bfdb99f0d6b05b4eacb75b9",
            },
            lines={"train": 315_717, "validation": 3_760, "test": 4_358},
        ),
        Corpus(
            "wikitext-103",
            "wikitext-103",
            ("Salesforce/wikitext", "wikitext-103-v1"),
            "190 MB",
            "CC BY-SA 3.0 (Wikipedia authors; Merity et al. 2016)",
            {s: s for s in ("train", "validation", "test")},
            lines={"train": 1_801_350, "validation": 3_760, "test": 4_358},
        ),
        Corpus(
            "tinyshakespeare",
            "tinyshakespeare",
            ("karpathy/tiny_shakespeare",),
            "1.1 MB",
            "public domain",
            {s: "input" for s in ("train", "validation")},
            {s: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed" for s in ("train", "validation")},
            {"train": (0.0, 0.9), "validation": (0.9, 1.0)},
            "train+validation+test",
        ),
        Corpus(  # drawn from sources that Sudoku-Extreme also names; harder in its hard part
            "sudoku-hard",
            "sudoku",
            None,
            "4.6 MB",
            "community collections, published with the tdoku benchmarks",
            {s: s for s in ("train", "test")},
            {
                "train": "940ebdc8a0bd0751520ae2a82194aa7a499b01449b565bd54b5ec626d0bb2d61",
                "test": "4055c8fefdbb88376601f65b89850e7adfebc89f157b8e249292358454d519ff",
            },
            columns=PUZZLES,
        ),
        Corpus(
            "sudoku-extreme",
            "sudoku-extreme",
            ("sapientinc/sudoku-extreme",),
            "0.8 GB",
            "community collections, published with the tdoku benchmarks",
            {s: s for s in ("train", "test")},
            columns=PUZZLES,
        ),
    ]
}


def data_root():
    """The configured data root as a Path, or None."""
    root = os.environ.get("TRM_DATA")
    return Path(root).expanduser() if root else None


def corpus(name):
    """The `Corpus` called `name`."""
    if name not in CORPORA:
        raise TrmError(f"unknown corpus {name!r}; known: {', '.join(CORPORA)}")
    return CORPORA[name]


def find(name, split):
    """Path of a split below the data root, or None when there is no root or no such file."""
    c, root = corpus(name), data_root()
    if split not in c.splits:
        raise TrmError(f"{name} has no split {split!r}; it has: {', '.join(c.splits)}")
    if root is None:
        return None
    if not root.is_dir():
        raise TrmError(f"data root {root} (TRM_DATA) is not a folder; point TRM_DATA at one or unset it")
    stem = root / c.folder / c.splits[split]
    return next((p for e in c.endings if (p := stem.with_name(stem.name + e)).exists()), None)


def read(name, split):
    """The text of one split, checked against its known sha256 when it comes from the data root."""
    path, c = find(name, split), corpus(name)
    text = "".join(_from_hub(name, split)["text"] if path is None else _from_disk(name, split, path))
    first, last = c.shares.get(split, (0.0, 1.0))
    return text[int(first * len(text)) : int(last * len(text))]


def lines(name, split):
    """As `read`, line by line with the line ends: a corpus of any size in a few megabytes of memory. Its sha256 is known,
    and a wrong one raised, only after the last line."""
    path = find(name, split)
    if corpus(name).shares:
        yield from read(name, split).splitlines(keepends=True)
    elif path is not None:
        yield from _from_disk(name, split, path)
    else:
        rows = _from_hub(name, split, streaming=True)
        try:
            yield from (row["text"] for row in rows)
        except Exception as e:  # of many kinds: the network, a file that is cut short, a column of another name
            raise TrmError(
                f"{name} {split} cannot be read from {'/'.join(corpus(name).hub)} ({type(e).__name__}); run again, and if it stays so, look at its files"
            ) from None


def rows(name, split):
    """A split of a table: how many rows it has, and a function from row numbers to these rows, each a tuple of strings."""
    c, path = corpus(name), find(name, split)
    if path is None:
        found = _from_hub(name, split)
        return len(found), lambda numbers: list(zip(*found[[int(i) for i in numbers]].values()))
    header, *body = list(_from_disk(name, split, path)) or [""]
    if tuple(header.strip().split(",")) != c.columns:
        raise TrmError(f"{path} begins with {header.strip()[:60]!r}, expected the columns {','.join(c.columns)}")

    def take(numbers):
        found = [next(csv.reader([body[i]])) for i in numbers]
        for i, row in zip(numbers, found):
            if len(row) != len(c.columns):
                raise TrmError(f"{path}, line {i + 2} has {len(row)} columns, expected {','.join(c.columns)}")
        return [tuple(row) for row in found]

    return len(body), take


def _from_disk(name, split, path):
    yield from file_lines(path, corpus(name).sha256.get(split), f"{name} {split}")


def file_lines(path, expected=None, what=""):
    """The lines of a file of UTF-8 text, packed (.xz, .gz) or not; after the last one its sha256 is compared with the expected."""
    whole, at = hashlib.sha256(), 0
    try:
        with {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)(path, "rb") as f:
            for line in f:
                whole.update(line)
                yield line.decode("utf-8")
                at += len(line)
    except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as e:
        raise TrmError(f"{path} is truncated or corrupt ({e}); delete it and fetch it again") from None
    except OSError as e:
        raise TrmError(f"cannot read {path}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise TrmError(f"{path} is not UTF-8 text ({e.reason} at byte {at + e.start})") from None
    if expected and whole.hexdigest() != expected:
        raise TrmError(f"{path} has sha256 {whole.hexdigest()[:12]}…, expected {expected[:12]}… for {what}; delete it and fetch it again")


def _from_hub(name, split, **options):
    c = corpus(name)
    ways = f"put it at $TRM_DATA/{c.folder}/{c.splits[split]}{c.endings[0]} ({c.size}, {c.licence})"
    if c.hub is None:
        raise TrmError(f"corpus {name} ({split}) not found; {ways}")
    ways += f", or run `trm data fetch {name}` with network access to the hub ({'/'.join(c.hub)})"
    try:
        from datasets import Features, Value, load_dataset

        if c.columns:  # all as text: an answer of 81 digits is no number
            options["features"] = Features({column: Value("string") for column in c.columns})
        return load_dataset(*c.hub, split=c.hub_split or split, **options)
    except ImportError:
        raise TrmError(f"corpus {name} ({split}) not found and `datasets` is not installed; {ways}") from None
    except Exception as e:  # the hub client raises many kinds: offline, missing, rate limit
        raise TrmError(f"corpus {name} ({split}) not found and the hub did not answer ({type(e).__name__}); {ways}") from None


def fingerprint(text):
    """sha256 of the text's lines in sorted order: the same for a corpus whose articles stand in another order."""
    lines = sorted(" ".join(line.split()) for line in text.splitlines() if line.strip())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check(name):
    """One row a split: is it below the data root, and whole?"""
    rows = []
    for split in corpus(name).splits:
        path, ok, state = (
            None,
            False,
            "not below a data root; " + (f"the hub is asked on first use ({corpus(name).size})" if corpus(name).hub else "not on the hub"),
        )
        try:
            path = find(name, split)
            if path is not None:
                sizes, ok = [len(line) for line in _from_disk(name, split, path)], True
                state = "whole, " + (f"{len(sizes) - 1:,} puzzles" if corpus(name).columns else f"{sum(sizes):,} characters")
        except TrmError as e:
            state = str(e)
        rows.append({"corpus": name, "split": split, "path": None if path is None else str(path), "ok": ok, "state": state})
    return rows


def fetch(name):
    """As `check`, with what is not below the data root fetched from the hub."""

    def fetched(split):
        if corpus(name).columns:
            return f"fetched, {rows(name, split)[0]:,} puzzles"
        return f"fetched, {sum(map(len, _from_hub(name, split)['text'])):,} characters"

    return [row if row["ok"] else row | {"ok": True, "state": fetched(row["split"])} for row in check(name)]
