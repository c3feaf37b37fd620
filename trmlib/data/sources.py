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
    text = _from_hub(name, split) if path is None else _from_disk(name, split, path)
    first, last = c.shares.get(split, (0.0, 1.0))
    return text[int(first * len(text)) : int(last * len(text))]


def _from_disk(name, split, path):
    try:
        raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except (lzma.LZMAError, EOFError) as e:
        raise TrmError(f"{path} is truncated or corrupt ({e}); delete it and fetch it again") from None
    except OSError as e:
        raise TrmError(f"cannot read {path}: {e.strerror}") from None
    digest, expected = hashlib.sha256(raw).hexdigest(), corpus(name).sha256.get(split)
    if expected and digest != expected:
        raise TrmError(f"{path} has sha256 {digest[:12]}…, expected {expected[:12]}… for {name} {split}; delete it and fetch it again")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise TrmError(f"{path} is not UTF-8 text ({e.reason} at byte {e.start})") from None


def _from_hub(name, split):
    c = corpus(name)
    ways = f"put it at $TRM_DATA/{c.folder}/{c.splits[split]}.txt.xz ({c.size}, {c.licence})"
    if c.hub is None:
        raise TrmError(f"corpus {name} ({split}) not found; {ways}")
    ways += f", or run `trm data fetch {name}` with network access to the hub ({'/'.join(c.hub)})"
    try:
        from datasets import load_dataset

        rows = load_dataset(*c.hub, split=c.hub_split or split)
    except ImportError:
        raise TrmError(f"corpus {name} ({split}) not found and `datasets` is not installed; {ways}") from None
    except Exception as e:  # the hub client raises many kinds: offline, missing, rate limit
        raise TrmError(f"corpus {name} ({split}) not found and the hub did not answer ({type(e).__name__}); {ways}") from None
    return "".join(rows["text"])


def fingerprint(text):
    """sha256 of the text's lines in sorted order: the same for a corpus whose articles stand in another order."""
    lines = sorted(" ".join(line.split()) for line in text.splitlines() if line.strip())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check(name):
    """One row a split: is it below the data root, and whole?"""
    rows = []
    for split in corpus(name).splits:
        path, ok, state = None, False, f"not below a data root; the hub is asked on first use ({corpus(name).size})"
        try:
            path = find(name, split)
            if path is not None:
                ok, state = True, f"whole, {len(_from_disk(name, split, path)):,} characters"
        except TrmError as e:
            state = str(e)
        rows.append({"corpus": name, "split": split, "path": None if path is None else str(path), "ok": ok, "state": state})
    return rows


def fetch(name):
    """As `check`, with what is not below the data root fetched from the hub."""
    return [
        row if row["ok"] else row | {"ok": True, "state": f"fetched, {len(read(name, row['split'])):,} characters"} for row in check(name)
    ]
