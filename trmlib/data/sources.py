"""Where a corpus comes from: a data root on disk, else the Hugging Face hub, else an error that says how to get it.

The data root is one setting: the environment variable TRM_DATA (or `--data-root`). Its layout is
`<root>/<folder>/<split>.txt.xz` (or `.txt`), as the table below names it.
"""

import hashlib
import lzma
import os
from dataclasses import dataclass, field
from pathlib import Path

from trmlib.errors import TrmError


@dataclass(frozen=True)
class Corpus:
    """A text corpus: where it lies, where else it can be had, and how to know that it is whole."""

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
    if root is None:
        return None
    if not root.is_dir():
        raise TrmError(f"data root {root} (TRM_DATA) is not a folder; point TRM_DATA at one or unset it")
    stem = root / c.folder / c.splits[split]
    return next((p for p in (stem.with_name(stem.name + ".txt.xz"), stem.with_name(stem.name + ".txt")) if p.exists()), None)


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
        except (OSError, RuntimeError) as e:
            raise TrmError(f"the hub stopped answering within {name} {split} ({type(e).__name__}); run again") from None


def _from_disk(name, split, path):
    whole, expected, at = hashlib.sha256(), corpus(name).sha256.get(split), 0
    try:
        with lzma.open(path) if path.suffix == ".xz" else open(path, "rb") as f:
            for line in f:
                whole.update(line)
                yield line.decode("utf-8")
                at += len(line)
    except (lzma.LZMAError, EOFError) as e:
        raise TrmError(f"{path} is truncated or corrupt ({e}); delete it and fetch it again") from None
    except OSError as e:
        raise TrmError(f"cannot read {path}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise TrmError(f"{path} is not UTF-8 text ({e.reason} at byte {at + e.start})") from None
    if expected and whole.hexdigest() != expected:
        raise TrmError(
            f"{path} has sha256 {whole.hexdigest()[:12]}…, expected {expected[:12]}… for {name} {split}; delete it and fetch it again"
        )


def _from_hub(name, split, **options):
    c = corpus(name)
    ways = f"put it at $TRM_DATA/{c.folder}/{c.splits[split]}.txt.xz ({c.size}, {c.licence})"
    if c.hub is None:
        raise TrmError(f"corpus {name} ({split}) not found; {ways}")
    ways += f", or run `trm data fetch {name}` with network access to the hub ({'/'.join(c.hub)})"
    try:
        from datasets import load_dataset

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
                ok, state = True, f"whole, {sum(map(len, _from_disk(name, split, path))):,} characters"
        except TrmError as e:
            state = str(e)
        rows.append({"corpus": name, "split": split, "path": None if path is None else str(path), "ok": ok, "state": state})
    return rows


def fetch(name):
    """As `check`, with what is not below the data root fetched from the hub."""
    return [
        row if row["ok"] else row | {"ok": True, "state": f"fetched, {sum(map(len, _from_hub(name, row['split'])['text'])):,} characters"}
        for row in check(name)
    ]
