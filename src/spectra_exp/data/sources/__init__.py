"""The sources of documents, a module each that registers itself; what is asked of all of them."""

from __future__ import annotations

from spectra_exp.data.documents import Splits, require_documents, without_domain, without_leaks
from spectra_exp.data.schema import DataConfig, sources
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields


def check_data(config: DataConfig) -> None:
    """Raise ConfigError for what can be known to be wrong without reading the documents."""
    if config.name not in sources():
        raise ConfigError.unknown("data", config.name, sources())
    check_fields(config, "data")
    if config.probe_tokens > config.evaluation_tokens:
        raise ConfigError(
            "data.probe_tokens",
            f"{config.probe_tokens} is more than data.evaluation_tokens={config.evaluation_tokens}",
            "the probe tokens are the first of the scored ones: lower it or score more",
        )
    config.check()


def read_documents(config: DataConfig) -> Splits:
    """The documents of both splits; a validation document with the exact text of a training document is dropped.

    Leaks are looked for first: a text in two domains must not be scored as unseen.
    """
    splits = without_domain(without_leaks(config.read_splits()), config.hold_out_domain)
    require_documents(splits, config.documents_key)
    return splits
