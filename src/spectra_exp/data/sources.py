"""The table of sources, and what is asked of each: check, content hash, documents."""

from __future__ import annotations

from spectra_exp.data import embedded, files, hub, stdlib
from spectra_exp.data.documents import Splits, require_documents, without_domain, without_leaks
from spectra_exp.data.schema import DataConfig
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields

# Each module has check(config), content_digest(config) and read_splits(config).
SOURCES = {"embedded": embedded, "files": files, "stdlib": stdlib, "smoltalk": hub, "cosmopedia": hub}


def check_data(config: DataConfig) -> None:
    """Raise ConfigError for what can be known to be wrong without reading the documents."""
    if config.name not in SOURCES:
        raise ConfigError.unknown("data", config.name, SOURCES)
    check_fields(config, "data")
    if config.probe_tokens > config.evaluation_tokens:
        raise ConfigError(
            "data.probe_tokens",
            f"{config.probe_tokens} is more than data.evaluation_tokens={config.evaluation_tokens}",
            "the probe tokens are the first of the scored ones: lower it or score more",
        )
    SOURCES[config.name].check(config)


def source_digest(config: DataConfig) -> str:
    """The hash of what the source would read or write, without tokenising anything."""
    return SOURCES[config.name].content_digest(config)


def read_documents(config: DataConfig) -> Splits:
    """The documents of both splits; a validation document with the exact text of a training document is dropped.

    Leaks are looked for first: a text in two domains must not be scored as unseen.
    """
    splits = without_domain(without_leaks(SOURCES[config.name].read_splits(config)), config.hold_out_domain)
    require_documents(splits, "data.train" if config.name == "files" else "data")
    return splits
