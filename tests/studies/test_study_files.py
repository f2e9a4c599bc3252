"""Every study's file against docs/method.md: what it varies, how many distinct runs, how it is launched."""

from __future__ import annotations

import re
import subprocess
from itertools import product
from types import SimpleNamespace

import pytest

from spectra_exp.config.resolved import Compositions
from spectra_exp.config.schema import GROUPS
from spectra_exp.config.tree import option_files, project_root
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs import plan as plan_module
from spectra_exp.studies.cells import StudyCells, reference_of
from spectra_exp.studies.definition import KINDS, load_study, read_study, study_files
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import make_jobs

OSR_STUDIES = [name for name in study_files() if any("osr" in b.settings for b in load_study(name).blocks)]
LAUNCHES = [(name, "paper") for name in OSR_STUDIES] + [(name, "causal") for name in OSR_STUDIES]
LAUNCHES += [(name, None) for name in study_files() if name not in OSR_STUDIES]
RULES = {"paper": ("osr.training", "plan"), "causal": ("osr.training", "potentials")}


def values_of(name: str, osr: str | None, *keys: str) -> set[tuple[str, ...]]:
    """What the jobs of one seed set for these keys, as typed; empty where a job sets none."""
    typed = ["seed=0", *([f"osr={osr}"] if osr else [])]
    jobs = [dict(line.split("=", 1) for line in job) for job in study_jobs(load_study(name), typed)]
    return {tuple(job.get(key, "") for key in keys) for job in jobs}


def texts(*values: object) -> tuple[str, ...]:
    return tuple(map(str, values))


@pytest.fixture(scope="module")
def compositions() -> Compositions:
    return Compositions()


@pytest.fixture
def no_corpus(outputs, monkeypatch):
    """Plans without tokenising anything: the data are not what these tests are about."""
    monkeypatch.setattr(plan_module, "load_corpus", lambda *args: SimpleNamespace(vocabulary_size=2048))
    monkeypatch.setattr(plan_module, "_LOADED", {})


@pytest.mark.parametrize("name, osr", LAUNCHES)
def test_every_study_has_the_declared_number_of_distinct_runs(no_corpus, name, osr):
    study = load_study(name)
    typed = ["seed=0", *([f"osr={osr}"] if osr else [])]
    jobs = make_jobs(study_jobs(study, typed))
    declared = study.runs.get(f"osr={osr}", study.runs.get("any"))
    assert len(jobs) == declared
    assert len({job.run_id for job in jobs if job.run_id}) >= declared - 1
    for job in jobs:
        if job.experiment.router.name == "spectra" and job.experiment.choices["ablation"] == "none" and osr:
            key, value = RULES[osr]
            assert getattr(job.experiment.osr, key.split(".")[1]) == value


def test_there_is_a_file_for_every_study():
    assert list(study_files()) == [
        "a_quota",
        "b_sinkhorn",
        "c_repulsion",
        "d_sharpness",
        "design_choices",
        "e_context",
        "scaling_experts",
        "scaling_model",
        "temperature",
        "aa",
        "baselines",
        "core",
        "equal_size",
        "own_options",
        "own_second",
        "own_test",
        "recurrence",
        "beta_memory_lag",
        "expert_choice_future",
        "finer_experts",
        "fixed_routers",
        "hash_routing",
        "loss_free_balance",
        "quantile_balance",
        "rmoe_recurrence",
    ]


def test_sweep_a():
    assert values_of("a_quota", "paper", "selection", "selection.capacity_factor") == {
        ("topk", ""),
        ("quota", "1"),
        ("quota", "1.25"),
        ("quota", "1.5"),
        ("quota", "2"),
    }


@pytest.mark.parametrize("osr, more", [("paper", ()), ("causal", (0.5, 1, 2))])
def test_sweep_b(osr, more):
    keys = ("osr.sinkhorn_epsilon", "osr.sinkhorn_iterations", "osr.log_sinkhorn_enabled")
    grid = product(texts(0.03, 0.05, 0.1, 0.2, *more), texts(2, 3, 5, 8), ("false", "true"))
    assert values_of("b_sinkhorn", osr, *keys) == set(grid)


@pytest.mark.parametrize(
    "name, key, values",
    [
        ("c_repulsion", "osr.repulsion_weight", texts(0, 0.1, 0.3, 0.5, 0.8, 1)),
        ("d_sharpness", "router.entropy_coef", texts(0, 0.0001, 0.001, 0.01, 0.1)),
    ],
)
def test_sweeps_c_and_d(name, key, values):
    assert values_of(name, "paper", key) == {(value,) for value in values}


def test_sweep_e_sees_the_same_number_of_tokens_at_every_length():
    keys = ("data.sequence_length", "ablation")
    assert values_of("e_context", "paper", *keys) == set(product(texts(2048, 8192, 32768, 131072), ("none", "no_gru")))
    jobs = study_jobs(load_study("e_context"), ["seed=0"])
    for job in jobs:
        values = dict(line.split("=", 1) for line in job)
        sequences = int(values["trainer.batch_size"]) * int(values["trainer.accumulation"])
        assert sequences * int(values["data.sequence_length"]) == 131072
        assert int(values["data.evaluation_tokens"]) == 131072 <= int(values["model.max_positions"])


def test_temperature_has_every_option_that_is_not_learned():
    options = {name for name in option_files("temperature") if not name.startswith("learned")}
    assert values_of("temperature", None, "temperature", "router") == {(t, "temperature") for t in options}
    assert len(options) == 13


def test_scaling():
    methods = {("spectra", ""), ("", "switch_top2")}
    experts = values_of("scaling_experts", "paper", "model.num_experts", "router", "baseline")
    assert experts == {(e, *m) for e, m in product(texts(4, 8, 16, 32), methods)}
    sizes = values_of("scaling_model", "paper", "model.hidden_size", "router", "baseline")
    assert sizes == {(d, *m) for d, m in product(texts(64, 128, 256), methods)}


def test_design_choices_change_one_thing_at_a_time():
    expected = {
        "router.sequence": ("gru", "gru_block", "min_gru", "lstm", "attention", "linear"),
        "router.similarity": ("dot", "l2", "bilinear"),
        "router.orthogonality_measure": ("mean_cosine", "logdet"),
        "router.orthogonalization": ("periodic", "newton_schulz", "none"),
        "model.top_k": ("1", "3"),
        "router.dim": ("8", "32", "64"),
    }
    for key, values in expected.items():
        others = [other for other in expected if other != key]
        chosen = {v for v, *rest in values_of("design_choices", "paper", key, *others) if not any(rest)}
        assert chosen == set(values)


def test_the_test_of_our_own_is_on_seeds_that_chose_nothing():
    jobs = study_jobs(load_study("own_test"), [])
    assert {int(job[-1].removeprefix("seed=")) for job in jobs} == set(range(20, 28)) and len(jobs) == 48
    assert all("data.final_evaluation_tokens=131072" in job for job in jobs)
    rivals = {word for job in jobs for word in job if word.startswith("baseline=")}
    methods = "none", "switch_top2", "switch_wide", "loss_free", "quantile", "beta_memory"
    assert rivals == {f"baseline={name}" for name in methods}


def test_own_options_change_one_thing_at_a_time_on_the_seeds_for_choosing():
    study = load_study("own_options")
    (block,) = study.blocks
    assert study.seeds == "100..102" and all(len(point) == 1 for point in block.points)
    jobs = study_jobs(study, [])
    assert len(jobs) == 3 * study.runs["any"] and {job[-1] for job in jobs} == {f"seed={s}" for s in (100, 101, 102)}
    varied = {"osr.potentials", "osr.settle_rule", "osr.online_rate", "router.gate_spread", "router.gate_bias"}
    assert varied | {"router.sequence"} == set(block.axes())


@pytest.mark.parametrize("osr, left_out", [("paper", {"cumulative_6"}), ("causal", {"no_quota", "cumulative_5"})])
def test_core_has_every_ablation_that_changes_something(osr, left_out):
    assert {a for (a,) in values_of("core", osr, "ablation")} == set(option_files("ablation")) - left_out


def test_baselines_have_every_baseline_and_router():
    found = values_of("baselines", "paper", "baseline", "router")
    assert {b for b, _ in found if b} == set(option_files("baseline")) - {"none"}
    assert {r for _, r in found if r} == {"spectra", "temperature"}


@pytest.mark.parametrize("name", study_files())
def test_the_command_in_the_file_launches_the_study(name):
    study = load_study(name)
    assert study.question.endswith("?") and study.hypothesis.endswith(".")
    dry = subprocess.run(
        ["make", "-n", *study.command.split()[1:], "SEEDS=7", "JOBS=1", "trainer.max_steps=5"],
        cwd=project_root(),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in dry.stdout.splitlines() if f"train.py {study.choice} " in line]
    assert len(lines) == 1
    assert {"seed=7", "trainer.max_steps=5"} <= set(lines[0].split())


@pytest.mark.parametrize("path", study_files().values(), ids=lambda path: path.stem)
def test_keys_that_a_study_names_are_known(path):
    assert path.parent.name in KINDS
    for block in read_study(path).blocks:
        for key in [*block.settings, *block.axes(), *block.only]:
            assert key.partition(".")[0] in GROUPS


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("question: q", "without"),
        ("[1, 2]", "does not hold keys and their values"),
        ("question: [", "while parsing"),
        ("question: q\nhypotesis: h", "did you mean 'hypothesis'"),
        (
            "{question: q, hypothesis: h, runs: {any: 1}, command: c, seeds: 0, blocks: [{gird: {}}]}",
            "did you mean 'grid'",
        ),
    ],
)
def test_a_bad_file_gives_one_line_that_names_it(tmp_path, content, complaint):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(complaint)) as error:
        read_study(path)
    assert "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_study_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'b_sinkhorn'"):
        load_study("b_sinkhron", "sweeps")
    with pytest.raises(ConfigError, match="valid: aa, baselines, core"):
        load_study("a_quota", "ablations")


@pytest.mark.parametrize("name", study_files())
def test_no_two_configurations_of_a_study_share_a_row(name: str, compositions: Compositions) -> None:
    found: dict[object, set[str]] = {}
    for cell in StudyCells(load_study(name), compositions).own:
        found.setdefault(cell.key, set()).add(cell.resolved.signature)
    assert [key for key, configurations in found.items() if len(configurations) > 1] == []


def test_a_row_is_tested_against_the_wanted_one_that_has_most_in_common() -> None:
    def row(**key: str) -> SimpleNamespace:
        return SimpleNamespace(key=key)

    rows = [row(ablation=a, length=n) for n in ("256", "512") for a in ("none", "no_gru")]
    assert [reference_of(r, rows, {"ablation": "none"}) for r in rows] == [None, rows[0], None, rows[2]]
    alone = row(ablation="no_gru", length="1024")
    assert reference_of(alone, [*rows, alone], {"ablation": "none"}) is rows[0]
    assert reference_of(alone, [alone], {"ablation": "none"}) is None
