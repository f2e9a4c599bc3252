from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ValidationError

from spectra_exp.data.schema import sources
from spectra_exp.data.sources import check_data
from spectra_exp.data.sources.embedded import EmbeddedData
from spectra_exp.data.sources.files import FilesData
from spectra_exp.foundations.errors import ConfigError


@pytest.mark.parametrize("name, schema", sources().items())
def test_schemas_work_as_structured_configs(name, schema):
    config = OmegaConf.structured(schema)
    assert config.name == name
    with pytest.raises(ValidationError):
        config.sequence_length = "long"
    with pytest.raises(ConfigAttributeError):
        config.sequence_lenght = 3
    assert OmegaConf.to_object(config) == schema()
    assert all(f.metadata["meaning"] for f in fields(schema))


def test_the_schema_imports_nothing_heavy():
    code = (
        "import sys, spectra_exp.data.schema;"
        "print([m for m in ('torch', 'tokenizers', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (EmbeddedData(vocabulary_size=256), "data.vocabulary_size"),
        (EmbeddedData(sequence_length=1), "data.sequence_length"),
        (EmbeddedData(document_words=3), "data.document_words"),
        (EmbeddedData(probe_tokens=40_000), "data.probe_tokens"),
        (EmbeddedData(name="embeded"), "data"),
        (FilesData(train="x", validation_fraction=0.0), "data.validation_fraction"),
        (FilesData(train="x", validation_fraction=0.6), "data.validation_fraction"),
    ],
)
def test_values_out_of_range_are_refused_by_their_key(config, key):
    with pytest.raises(ConfigError) as caught:
        check_data(config)
    assert caught.value.key == key and "\n" not in str(caught.value)


def test_smallest_vocabulary_is_accepted():
    check_data(EmbeddedData(vocabulary_size=257))
