"""Where a corpus comes from, and the one line a user reads when it does not."""

import hashlib
import lzma
import sys

import pytest

from trmlib.data import sources, tokens
from trmlib.data.sources import Corpus
from trmlib.errors import TrmError

TEXT = " = Title = \n one two – three \n" * 300
SHA = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with an empty folder `small`, and the corpora `tiny` (whose sha256 is known) and `free` (unknown)."""
    folder = tmp_path / "root" / "small"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TRM_DATA", str(tmp_path / "root"))
    tiny = Corpus("tiny", "small", ("someone/tiny", "tiny-v1"), "3 kB", "CC0", {"train": "part-1"}, {"train": SHA})
    monkeypatch.setitem(sources.CORPORA, "tiny", tiny)
    monkeypatch.setitem(sources.CORPORA, "free", Corpus("free", "small", None, "4 kB", "CC BY 4.0", {"train": "part-1"}))
    return folder


@pytest.fixture
def hub(monkeypatch):
    """Calls of `datasets.load_dataset`, which answers with the lines of TEXT."""
    import datasets

    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_dict({"text": TEXT.splitlines(keepends=True)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def error(function, *args):
    """The one line of a TrmError."""
    with pytest.raises(TrmError) as e:
        function(*args)
    assert "\n" not in str(e.value)
    assert e.value.code == 2
    return str(e.value)


def test_plain_text_is_read(root):
    (root / "part-1.txt").write_text(TEXT, encoding="utf-8")
    assert sources.find("tiny", "train") == root / "part-1.txt"
    assert sources.read("tiny", "train") == TEXT


def test_xz_is_unpacked_and_preferred(root):
    (root / "part-1.txt.xz").write_bytes(lzma.compress(TEXT.encode()))
    (root / "part-1.txt").write_text("another text")
    assert sources.find("tiny", "train") == root / "part-1.txt.xz"
    assert sources.read("tiny", "train") == TEXT


def test_truncated_xz_names_the_file(root):
    path = root / "part-1.txt.xz"
    path.write_bytes(lzma.compress(TEXT.encode())[:-20])
    line = error(sources.read, "tiny", "train")
    assert line.startswith(f"{path} is truncated or corrupt (") and line.endswith("; delete it and fetch it again")


def test_what_is_not_xz_names_the_file(root):
    path = root / "part-1.txt.xz"
    path.write_bytes(TEXT.encode())
    assert error(sources.read, "tiny", "train").startswith(f"{path} is truncated or corrupt (")


def test_wrong_checksum_names_the_file_and_both_digests(root):
    path = root / "part-1.txt"
    path.write_text(TEXT[:-1], encoding="utf-8")
    digest = hashlib.sha256(TEXT[:-1].encode()).hexdigest()
    expected = f"{path} has sha256 {digest[:12]}…, expected {SHA[:12]}… for tiny train; delete it and fetch it again"
    assert error(sources.read, "tiny", "train") == expected


def test_unreadable_file_names_the_file(root):
    (root / "part-1.txt").mkdir()
    assert error(sources.read, "tiny", "train") == f"cannot read {root / 'part-1.txt'}: Is a directory"


def test_text_that_is_not_utf8_names_the_file(root):
    path = root / "part-1.txt"
    path.write_bytes("déjà vu".encode("latin-1"))
    assert str(path) in error(sources.read, "free", "train")


def test_missing_root_is_named_with_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("TRM_DATA", str(tmp_path / "nowhere"))
    line = error(sources.read, "wikitext-2", "train")
    assert line == f"data root {tmp_path / 'nowhere'} (TRM_DATA) is not a folder; point TRM_DATA at one or unset it"


def test_root_may_start_with_a_tilde(root, monkeypatch):
    (root / "part-1.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setenv("HOME", str(root.parents[1]))
    monkeypatch.setenv("TRM_DATA", "~/root")
    assert sources.read("tiny", "train") == TEXT


def test_unknown_corpus_lists_the_known():
    assert error(sources.read, "wikitext-3", "train") == f"unknown corpus 'wikitext-3'; known: {', '.join(sources.CORPORA)}"


def test_unknown_split_lists_the_known():
    assert error(sources.read, "wikitext-2", "dev") == "wikitext-2 has no split 'dev'; it has: train, validation, test"
    assert error(list, tokens.text_lines("toy-language", "dev")) == "toy-language has no split 'dev'; it has: train, validation"


def test_corpus_without_hub_says_where_to_put_it(root):
    line = error(sources.read, "free", "train")
    assert line == "corpus free (train) not found; put it at $TRM_DATA/small/part-1.txt.xz (4 kB, CC BY 4.0)"


def test_without_a_file_the_hub_is_asked(root, hub):
    assert sources.read("tiny", "train") == TEXT
    assert hub == [(("someone/tiny", "tiny-v1"), {"split": "train"})]


def test_without_a_root_the_hub_is_asked(hub):
    assert sources.data_root() is None
    assert sources.find("wikitext-2", "validation") is None
    assert sources.read("wikitext-2", "validation") == TEXT
    assert hub == [(("Salesforce/wikitext", "wikitext-2-v1"), {"split": "validation"})]


def test_a_file_keeps_the_hub_out(root, hub):
    (root / "part-1.txt").write_text(TEXT, encoding="utf-8")
    assert sources.read("tiny", "train") == TEXT
    assert hub == []


def test_hub_failure_names_every_way_the_size_and_the_licence(monkeypatch):
    import datasets

    def offline(*_, **__):
        raise ConnectionError("a long\nmessage of the client")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    line = error(sources.read, "wikitext-2", "test")
    assert line.startswith("corpus wikitext-2 (test) not found and the hub did not answer (ConnectionError); ")
    for way in ("$TRM_DATA/wikitext-2/test.txt.xz", "trm data fetch wikitext-2", "Salesforce/wikitext/wikitext-2-v1"):
        assert way in line
    assert "13 MB" in line and "CC BY-SA 3.0" in line


def test_missing_datasets_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "(train) not found and `datasets` is not installed; put it at $TRM_DATA" in error(sources.read, "wikitext-2", "train")


def test_fingerprint_depends_on_content_but_not_on_the_order_of_articles():
    a, b = " = A = \n\n one two \n", " = B = \n\n three four \n"
    assert sources.fingerprint(a + b) == sources.fingerprint(b + a)
    assert sources.fingerprint(a + b) == sources.fingerprint("\n = A =\n one  two\n = B =\n three four")  # nor on white space
    for changed in (a, a + a + b, a + b.replace("four", "five"), a + b.replace("three four", "four three")):
        assert sources.fingerprint(changed) != sources.fingerprint(a + b)
    assert sources.fingerprint("b\na") == hashlib.sha256(b"a\nb").hexdigest()


def test_check_reports_each_split(root, hub):
    path = root / "part-1.txt"
    (absent,) = sources.check("tiny")
    assert (absent["corpus"], absent["split"], absent["path"], absent["ok"]) == ("tiny", "train", None, False)
    path.write_text(TEXT, encoding="utf-8")
    (found,) = sources.check("tiny")
    assert (found["path"], found["ok"], found["state"]) == (str(path), True, "whole, 9,000 characters")
    path.write_text("short")
    (damaged,) = sources.check("tiny")
    assert (damaged["path"], damaged["ok"]) == (str(path), False)
    assert damaged["state"].startswith(f"{path} has sha256 ")
    assert hub == []


def test_fetch_asks_the_hub_for_what_is_missing_only(root, hub):
    (row,) = sources.fetch("tiny")
    assert (row["ok"], row["state"], len(hub)) == (True, "fetched, 9,000 characters", 1)
    (root / "part-1.txt").write_text(TEXT, encoding="utf-8")
    (row,) = sources.fetch("tiny")
    assert (row["ok"], row["state"], len(hub)) == (True, "whole, 9,000 characters", 1)
