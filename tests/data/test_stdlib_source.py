from __future__ import annotations

import pytest

from spectra_exp.data.corpus import data_fingerprint
from spectra_exp.data.sources import check_data, read_documents, stdlib
from spectra_exp.data.sources.stdlib import StdlibData
from spectra_exp.foundations.errors import ConfigError

LIMIT = 1_500_000


@pytest.fixture(scope="module")
def splits():
    return read_documents(StdlibData(max_bytes=LIMIT))


def test_code_and_documentation_are_in_both_splits(splits):
    for documents in (splits.train, splits.validation):
        assert {d.domain for d in documents} == {"code", "docs"}
    assert not {d.text for d in splits.train} & {d.text for d in splits.validation}
    assert sum(len(d.text) for d in splits.train) > LIMIT / 3


def test_nothing_outside_the_limit_is_read():
    sizes = [path.stat().st_size for path in stdlib._selected(StdlibData(max_bytes=LIMIT))]
    assert 0.9 * LIMIT < sum(sizes) <= LIMIT


def test_docstrings_move_from_code_to_docs(tmp_path, monkeypatch):
    (tmp_path / "m.py").write_text('"""Doc é of m."""\nX = "kept"\ndef f():\n    """Of\n    f."""\n    return 1\n')
    (tmp_path / "n.py").write_text('def g(): "short"\nY = 2\n')
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "foreign.py").write_text("FOREIGN = 1\n")
    monkeypatch.setattr(stdlib, "_library", lambda: tmp_path)
    splits = StdlibData().read_splits()
    texts = {d.id: d.text for d in splits.train + splits.validation}
    assert texts == {
        "m.py:code": 'X = "kept"\ndef f():\n    return 1\n',
        "m.py:docs": "Doc é of m.\n\nOf\nf.",
        "n.py:code": 'def g(): "short"\nY = 2\n',
        "n.py:docs": "short",
    }


def test_fingerprint_follows_the_files_content(tmp_path, monkeypatch):
    (tmp_path / "m.py").write_text("X = 1\n")
    monkeypatch.setattr(stdlib, "_library", lambda: tmp_path)
    first = data_fingerprint(StdlibData())
    assert first == data_fingerprint(StdlibData(max_bytes=100))
    (tmp_path / "m.py").write_text("X = 2\n")
    assert first != data_fingerprint(StdlibData())


def test_a_limit_below_every_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "m.py").write_text("X = 1\n")
    monkeypatch.setattr(stdlib, "_library", lambda: tmp_path)
    with pytest.raises(ConfigError, match="data.max_bytes: no library file"):
        check_data(StdlibData(max_bytes=3))
