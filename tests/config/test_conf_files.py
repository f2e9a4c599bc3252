"""Every file in conf/ composes, says what it is, and sets only keys that exist and are read."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from config_cases import load

from spectra_exp.config.help import default_options, option_meaning
from spectra_exp.config.keys import known_keys
from spectra_exp.config.register import group_schemas
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.config.tree import option_files, project_root, read_yaml
from spectra_exp.foundations.errors import ConfigError

OPTIONS = [(group, name) for group in GROUPS for name in option_files(group)]
SOURCES = project_root() / "src" / "spectra_exp"
# Options that the defaults cannot take as they are, and what makes sense of them.
ALONE_REFUSED = {
    "osr=none": "router=switch",
    "selection=threshold": "router=remoe",
    "ablation=no_quota": "osr=paper",
    "ablation=cumulative_5": "osr=paper",
    "router=native": "model=reroute model.source={sources}/mixtral",
    "model=reroute": "model.source={sources}/mixtral",
    "model=upcycle": "model.source={sources}/llama",
    "model=spectra_small": "model.source={sources}/smolvlm data.sequence_length=128",
}


def test_every_group_has_a_folder_and_every_folder_is_a_group():
    folders = {path.name for path in (project_root() / "conf").iterdir() if path.is_dir()}
    assert folders == set(GROUPS)
    assert set(GROUPS) <= set(default_options())
    assert len(OPTIONS) > 50


# Options that need a package which the plain install leaves out.
NEEDS = {"launch=ray": "hydra_plugins.hydra_ray_launcher", "launch=submitit": "hydra_plugins.hydra_submitit_launcher"}
NEEDS["launch=slurm"] = NEEDS["launch=submitit"]


@pytest.mark.parametrize("group, name", OPTIONS)
def test_option_composes_with_the_defaults_and_passes_the_checks(group, name, sources):
    typed = f"{group}={name}"
    if typed in NEEDS and find_spec(NEEDS[typed]) is None:
        with pytest.raises(ConfigError, match=r"is not installed; pip install 'spectra-exp\["):
            load(typed)
        return
    if typed in ALONE_REFUSED:
        with pytest.raises(ConfigError):
            load(typed)
        typed += " " + ALONE_REFUSED[typed].format(sources=sources)
    assert load(typed).choices[group] == name


@pytest.mark.parametrize("group, name", OPTIONS)
def test_option_says_in_one_line_what_it_is(group, name):
    meaning = option_meaning(option_files(group)[name])
    assert 5 < len(meaning) <= 140
    assert not meaning.endswith(".")
    # The help shows one line: a sentence that goes on in the next is cut.
    lines = option_files(group)[name].read_text().splitlines()
    after = lines[next(i for i, line in enumerate(lines) if meaning in line) + 1]
    assert not after.startswith("#")


def keys_set_by(group: str, path: Path) -> list[str]:
    content = yaml.safe_load(path.read_text())
    keys = []
    for top, node in content.items():
        if top in ("defaults", "hydra"):
            continue
        if "@package _global_" not in path.read_text():
            keys.append(f"{group}.{top}")
        else:
            keys += [f"{top}.{key}" for key in node]
    return keys


@pytest.mark.parametrize("group, name", OPTIONS)
def test_every_key_in_an_option_exists(group, name):
    unknown = set(keys_set_by(group, option_files(group)[name])) - set(known_keys())
    assert not unknown


def test_a_planted_unknown_key_is_seen(tmp_path):
    path = tmp_path / "planted.yaml"
    path.write_text("# @package _global_\nrouter:\n  sequnce: linear\n")
    assert keys_set_by("router", path) == ["router.sequnce"]
    assert "router.sequnce" not in known_keys()


@pytest.mark.parametrize("content", [b"a: [1\n", b"- a\n", b"a word", b"# caf\xe9\na: 1\n"])
def test_a_file_that_cannot_be_used_is_one_line_that_names_it(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml: .+") as refused:
        read_yaml(file)
    assert "\n" not in str(refused.value)


def test_a_file_without_a_key_has_none(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("# Mine\n")
    assert read_yaml(file) == {}


def all_fields():
    yield from (("", f) for f in fields(RootKeys))
    for group in GROUPS:
        for schema in group_schemas(group).values():
            yield from ((group, f) for f in fields(schema))


def test_every_schema_field_has_a_meaning_of_one_line():
    for group, f in all_fields():
        meaning = f.metadata.get("meaning", "")
        assert meaning and "\n" not in meaning, f"{group}.{f.name}"
        assert not meaning.endswith("."), f"{group}.{f.name}"


def test_every_default_passes_its_own_limits():
    from spectra_exp.foundations.options import check_fields

    for group in GROUPS:
        for schema in group_schemas(group).values():
            if schema.__name__ != "DataConfig":
                check_fields(schema(), group)


def reads(code: str, group: str, name: str) -> bool:
    """Whether the code reads the key: as an attribute, as a name in a string, or (for `name`) of its group."""
    if name == "name":
        return re.search(rf"\b{group}\.name\b", code) is not None
    return re.search(rf"\.{name}\b|[\"']{name}[\"']|\$\{{{group}\.{name}\}}", code) is not None


def test_every_schema_key_is_read_by_some_source_file():
    # Declarations do not count as reading.
    lines = [line for path in SOURCES.rglob("*.py") for line in path.read_text().splitlines()]
    code = "\n".join(line for line in lines if not re.search(r"^    \w+: .*= option\(", line))
    code += "\n".join(path.read_text() for path in (project_root() / "conf").rglob("*.yaml"))
    # These describe a preset for the reader, the help and the tests; baseline and ablation are told by the choice.
    described = {"baseline.name", "ablation.name", "ablation.hypothesis", "ablation.differs"}
    unread = {k for k in known_keys() if k not in described and not reads(code, *k.split("."))}
    assert not unread
    assert not reads(code, "router", "never_declared")


def test_baselines_name_the_selection_that_their_router_sets():
    # Otherwise `baseline=X selection=Y` would run another method under the baseline's name.
    for name, path in option_files("baseline").items():
        if name != "none":
            overridden = [
                k for entry in yaml.safe_load(path.read_text())["defaults"] if isinstance(entry, dict) for k in entry
            ]
            assert {"override /router", "override /selection"} <= set(overridden), name
