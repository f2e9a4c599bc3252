"""The same run has the same id by any route; whatever can change its result changes the id."""

from __future__ import annotations

import random
import shlex
from dataclasses import fields, is_dataclass, replace

import pytest
from config_cases import another_value, flat, identity, load, run_id, with_value
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.config.schema import GROUPS, LABELS, RootKeys, result_values
from spectra_exp.config.typed import expand_jobs
from spectra_exp.data.corpus import data_fingerprint
from spectra_exp.runs.identity import digest, identify

# Between them these have every schema of every group.
WHOLE = {
    "spectra": "",
    "switch": "router=switch",
    "temperature": "router=temperature temperature=cosine",
    "hash": "router=hash",
    "expert_choice": "router=expert_choice",
    "muon": "optim=muon",
    "dense": "router=dense",
}
# Keys whose value is replaced before hashing (the device, what the data hold), or is fixed by the source's name.
REPLACED = {"trainer.device", "data.name"}


def typed_out(line: str) -> list[str]:
    """Every value of a configuration as an override."""
    experiment = load(line)
    options = [f"{group}={name}" for group, name in experiment.choices.items()]
    # What describes a preset, labels, and keys that are refused where nothing searches.
    skipped = ("baseline.", "ablation.", "search.", "choices", "overrides", "outputs", "study")
    values = {k: v for k, v in flat(experiment).items() if not k.startswith(skipped)}
    return options + [f"{k}={'null' if v is None else v}" for k, v in values.items()]


@pytest.mark.parametrize("line", ["", "osr=paper", "router=switch", "model=exp10", "temperature=step seed=3"])
def test_a_configuration_typed_out_in_full_is_the_same_run(line):
    assert run_id(shlex.join(typed_out(line))) == run_id(line)


def test_the_order_of_overrides_does_not_matter():
    words = ["router=spectra", "osr=paper", "ablation=no_gru", "seed=2", "trainer.max_steps=7", "model.num_experts=4"]
    shuffled = [random.Random(seed).sample(words, len(words)) for seed in range(4)]
    assert {run_id(" ".join(order)) for order in shuffled} == {run_id(" ".join(words))}


@pytest.mark.parametrize(
    "one, other",
    [
        ("baseline=switch_top2", "router=switch model.top_k=2"),
        ("baseline=switch_top1", "router=switch model.top_k=1"),
        ("baseline=hash", "router=hash"),
        ("baseline=dense", "router=dense"),
        ("baseline=expert_choice", "router=expert_choice selection=expert_choice"),
        ("ablation=no_all", "ablation=cumulative_1"),
        ("ablation=no_all osr=paper", "ablation=cumulative_1 osr=paper"),
        ("ablation=no_gru", "router.sequence=linear router.carry=none"),
        ("ablation=no_quota osr=paper", "osr=paper selection=topk"),
        ("ablation=cumulative_6", "selection=quota"),
        ("ablation=cumulative_5 osr=paper", "osr=paper selection=topk"),
        ("temperature=t2_0", "temperature.value=2"),
        ("temperature=t2_0", "temperature.value=2.00"),
        ("temperature=t1_0", ""),
        (
            "osr=paper",
            "osr.training=plan osr.sinkhorn_inference=false osr.sinkhorn_epsilon=5e-2 osr.potentials=soft "
            "osr.potential_rate=0.05 osr.potential_decay=1 osr.settle_steps=0 "
            "selection=quota",
        ),
        ("osr.sinkhorn_epsilon=5e-1", ""),
        ("seed='0'", "seed=0"),
        ("router.entropy_coef=0.001", "router.entropy_coef=1e-3"),
        ("debug=smoke", "trainer.max_steps=5 trainer.log_every=1 data.evaluation_tokens=4096 data.probe_tokens=1024"),
        ("debug=anomaly", ""),
        ("launch=parallel", "launch=local"),
        ("launch=parallel launch.jobs=5", ""),
        ("logger=tensorboard logger.progress=false", ""),
        ("force=true refresh=stale study=anything", ""),
        ("trainer.checkpoint_every=3 trainer.keep_checkpoints=fractions", ""),
        ("outputs=/tmp/elsewhere", ""),
        ("trainer.device=cpu", ""),
    ],
)
def test_the_same_configuration_by_two_routes_is_one_run(one, other):
    assert identity(load(one)) == identity(load(other))


def test_a_job_of_a_sweep_is_the_run_that_it_is_alone():
    jobs = expand_jobs(["router=spectra", "seed=0,1", "osr.sinkhorn_epsilon=0.1,0.5"], multirun=True)
    ids = [run_id(" ".join(job)) for job in jobs]
    assert ids[3] == run_id("seed=1") and ids[1] == run_id()
    assert len(set(ids)) == 4


@pytest.mark.parametrize("name", WHOLE)
def test_every_key_that_can_change_the_result_changes_the_run(name):
    experiment = load(WHOLE[name])
    before = identity(experiment)
    changed = {}
    for group in GROUPS:
        if group in LABELS or group == "data":
            continue
        node = getattr(experiment, group)
        for f in fields(node):
            key = f"{group}.{f.name}"
            if f.metadata["affects_result"] and key not in REPLACED:
                changed[key] = identity(with_value(experiment, key, another_value(f, getattr(node, f.name))))
    assert len(changed) > 40
    assert [key for key, after in changed.items() if after.run_id == before.run_id] == []
    assert [key for key, after in changed.items() if after.cell_id == before.cell_id] == []


@pytest.mark.parametrize("source", ["embedded", "files", "stdlib"])
def test_every_data_key_that_can_change_the_result_changes_the_run(source, tmp_path):
    def write(name, rows):
        path = tmp_path / name
        path.write_text(
            "".join(f'{{"text": "{a}", "x": "{b}", "domain": "d{i % 2}"}}\n' for i, (a, b) in enumerate(rows))
        )
        return str(path)

    rows = [(f"one {i} two", f"three {i * i} four") for i in range(40)]
    train, other = write("train.jsonl", rows), write("other.jsonl", rows[:-1])
    line = {"files": f"data=files data.train={train}"}.get(source, f"data={source}")
    experiment = load(line)

    def full_id(x):
        return identity(x, data_fingerprint(x.data)).run_id

    # Another length is another whole number of library files, and another field must be in the file.
    other_values = {
        "max_bytes": 1_000_000,
        "train": other,
        "validation": other,
        "text_field": "x",
        "domain_field": "x",
        "hold_out_domain": "code",
    }
    changed = {}
    for f in fields(experiment.data):
        # A tokenizer is a file: see the tests of data_fingerprint.
        if f"data.{f.name}" not in REPLACED and f.name != "tokenizer":
            value = other_values.get(f.name) or another_value(f, getattr(experiment.data, f.name))
            changed[f.name] = full_id(with_value(experiment, f"data.{f.name}", value))
    assert [name for name, after in changed.items() if after == full_id(experiment)] == []
    assert len(set(changed.values())) == len(changed)


def test_the_place_of_the_data_file_does_not_count_and_its_content_does(tmp_path):
    ids = []
    for folder, text in (("a", "alpha beta"), ("b", "alpha beta"), ("c", "alpha gamma")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / f"train_{folder}.jsonl"
        file.write_text(f'{{"text": "{text}", "domain": "d"}}\n' * 30)
        experiment = load(f"data=files data.train={file}")
        ids.append(identity(experiment, data_fingerprint(experiment.data)).run_id)
    assert ids[0] == ids[1] != ids[2]


def test_keys_that_cannot_change_the_result_do_not():
    experiment = load()
    before = identity(experiment)
    silent = [("", f) for f in fields(RootKeys) if f.name != "seed"]
    for group in GROUPS:
        node = getattr(experiment, group)
        silent += [(group, f) for f in fields(node) if group in LABELS or not f.metadata["affects_result"]]
    names = {f"{group}.{f.name}".lstrip(".") for group, f in silent}
    assert {"force", "refresh", "study", "outputs", "launch.jobs", "trainer.checkpoint_every", "logger.name"} <= names
    for group, f in silent:
        key = f"{group}.{f.name}".lstrip(".")
        value = getattr(getattr(experiment, group) if group else experiment, f.name)
        if isinstance(value, (list, dict)):
            continue
        assert identity(with_value(experiment, key, another_value(f, value))) == before, key


def test_the_working_directory_does_not_count(tmp_path, monkeypatch):
    before = run_id()
    monkeypatch.chdir(tmp_path)
    assert run_id() == before


def test_the_cell_ignores_the_seed_and_nothing_else():
    first, second = identity(load("seed=0")), identity(load("seed=7"))
    assert first.cell_id == second.cell_id and first.run_id != second.run_id
    assert "-s7-" in second.run_id
    assert identity(load("seed=0 model.num_experts=4")).cell_id != first.cell_id
    assert identity(load(), "other data").cell_id != first.cell_id


def test_the_device_counts_and_the_threads_only_on_the_cpu():
    one, two = load(), load("trainer.cpu_threads=2")
    assert identity(one).run_id != identity(two).run_id
    assert identity(one, device="cuda").run_id == identity(two, device="cuda").run_id
    assert identity(one).run_id != identity(one, device="cuda").run_id


def test_the_signature_holds_every_group_that_counts_and_no_path():
    signature = identity(load("outputs=/tmp/elsewhere")).signature
    groups = {"router", "osr", "selection", "temperature", "model", "data", "losses", "optim", "trainer"}
    assert set(signature) == groups | {"seed"}
    assert "/tmp/elsewhere" not in str(signature)
    options = {"sequence_length", "cross_document", "evaluation_tokens", "probe_tokens"}
    assert set(signature["data"]) == options | {"fingerprint"}


def test_nothing_in_an_experiment_is_left_out_unseen():
    # A new field of Experiment must be put either into the signature or, on purpose, into LABELS. Without plug-ins
    # there is nothing to put there.
    experiment = load("plugins=[json]")
    assert result_values(experiment).pop("plugins") == ["json"] and "plugins" not in result_values(load())
    counted = set(result_values(experiment))
    assert counted | set(LABELS) == {f.name for f in fields(experiment)}
    assert not counted & set(LABELS)


# Pinned: a change here gives every finished run another id, and none of them would be found again.
GOLDEN = {
    "seed": 3,
    "router": {"name": "spectra", "entropy_coef": 0.001, "dim": 16},
    "osr": {"sinkhorn_epsilon": 1.0, "log_sinkhorn_enabled": True, "sinkhorn_inference": "dual"},
    "optim": {"epsilon": 1e-08, "router_learning_rate": None},
    "data": {"fingerprint": "00ff", "sequence_length": 128},
}


def test_ids_are_stable():
    assert digest(GOLDEN) == "a5c2a17f"
    assert digest(GOLDEN, 32).startswith(digest(GOLDEN))


def test_key_order_does_not_matter_and_types_do():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert len({digest({"a": value}) for value in (1, 1.0, "1", True, None, [1])}) == 6


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
signatures = st.dictionaries(st.text(), scalars | st.dictionaries(st.text(), scalars), max_size=4)


@given(signatures, signatures)
def test_different_signatures_have_different_digests(one, other):
    if repr(one) != repr(other) and one != other:
        assert digest(one, 64) != digest(other, 64)
    assert digest(one) == digest(dict(reversed(one.items())))


def test_a_planted_label_that_leaks_into_the_signature_is_seen(monkeypatch):
    # The test above must fail for an identity that counts the study's name.
    import spectra_exp.config.schema as module

    monkeypatch.setattr(module, "LABELS", tuple(name for name in LABELS if name != "logger"))
    experiment = load()
    assert identify(experiment, "d", "cpu") != identify(
        replace(experiment, logger=replace(experiment.logger, progress=False)), "d", "cpu"
    )


def test_a_planted_key_left_out_of_the_signature_is_seen(monkeypatch):
    import spectra_exp.config.schema as module

    monkeypatch.setattr(module, "LABELS", (*LABELS, "temperature"))
    with pytest.raises(AssertionError):
        test_every_key_that_can_change_the_result_changes_the_run("spectra")
    assert is_dataclass(load().temperature)
