"""Each ablation changes only the keys it names, and the tensor it names really differs at the first step."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from config_cases import flat, load
from transformers import LlamaConfig

from spectra_exp.config.presets import ablations
from spectra_exp.config.rules import preset_values
from spectra_exp.config.schema import Experiment
from spectra_exp.config.tree import option_files, project_root
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.measure import METRICS
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.model import SpectraMoeForCausalLM, new_model
from spectra_exp.moe.settings import MoeSettings

ABLATIONS = [name for name in option_files("ablation") if name != "none"]
BASES = ("paper", "causal")
# The full method already is what these would make of it.
REFUSED = {("no_quota", "causal"), ("cumulative_5", "causal"), ("cumulative_6", "paper")}
PAIRS = [(name, osr) for name in ABLATIONS for osr in BASES if (name, osr) not in REFUSED]
TENSORS = ("similarity", "cost", "chosen", "loss")


def changed_keys(full: Experiment, ablated: Experiment) -> set[str]:
    """Keys whose resolved values differ; descriptions do not count."""
    ignored = ("ablation", "choices", "overrides", "outputs")
    one, other = ({k: v for k, v in flat(x).items() if not k.startswith(ignored)} for x in (full, ablated))
    assert one.keys() == other.keys()
    return {key for key in one if one[key] != other[key]}


def named_keys(name: str) -> set[str]:
    """Keys that the ablation's file sets, and the name of each option that it chooses."""
    values, options = preset_values("ablation", name)
    return set(values) | {{"selection": "selection.rule"}[group] for group in options}


def build(experiment: Experiment) -> SpectraMoeForCausalLM:
    """A tiny model of the experiment's method; the same weights for every method where they exist in both."""
    backbone = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    settings = MoeSettings(
        num_experts=8,
        top_k=2,
        expert_size=16,
        router=replace(experiment.router, dim=4),
        osr=experiment.osr,
        selection=experiment.selection,
        temperature=experiment.temperature,
        total_steps=100,
    )
    return new_model(backbone, settings, seed=0)


def first_step(experiment: Experiment) -> dict[str, list[torch.Tensor]]:
    """What the first training pass computes, by name of tensor and then by layer (the loss: once)."""
    model = build(experiment).train()
    model.set_step(0)
    # As skewed as text is: with even frequencies a quota of 1.25 turns nobody away.
    ids_BS = (64 ** torch.rand(4, 32, generator=torch.Generator().manual_seed(0))).long() - 1
    context = RoutingContext(training_rule=True, keep_tensors=True)
    output = model(input_ids=ids_BS, labels=ids_BS, routing=context)
    layers = sorted(context.records)
    return {
        "similarity": [context.tensors[layer]["similarity"] for layer in layers],
        "cost": [context.tensors[layer]["cost"] for layer in layers],
        "chosen": [context.records[layer].chosen_NE.float() for layer in layers],
        "loss": [output.loss.detach()],
    }


def differing(full: Experiment, ablated: Experiment) -> set[str]:
    """Names of the tensors that differ at the first step."""
    one, other = first_step(full), first_step(ablated)
    return {name for name in TENSORS if any(not torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))}


def declared(name: str) -> dict[str, Any]:
    return yaml.safe_load(option_files("ablation")[name].read_text())["ablation"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_file_declares_hypothesis_routers_and_tensor(name):
    content = declared(name)
    assert content["name"] == name
    assert len(content["hypothesis"]) > 10 and "\n" not in content["hypothesis"]
    assert content["routers"] == ["spectra"]
    assert content["differs"] in TENSORS


def agrees(hypothesis: str, metric: str) -> bool:
    """Whether the text says of the metric that it gets worse."""
    worse = {"lower": "rises", "higher": "falls"}[METRICS[metric].direction]
    return f"{metric.replace('_', ' ')} {worse}".lower() in hypothesis.lower()


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_hypothesis_of_a_single_ablation_is_about_the_metric_it_declares(name):
    content = declared(name)
    # The ladder is judged by its validation loss, rung by rung.
    assert ("metric" in content) != name.startswith("cumulative_")
    assert "metric" not in content or agrees(content["hypothesis"], content["metric"])


def test_a_planted_hypothesis_that_disagrees_with_its_metric_is_seen():
    assert agrees("Load CV rises: nothing balances", "load_cv")
    assert not agrees("load CV falls", "load_cv")
    assert not agrees("load CV rises", "expert_overlap")
    assert not agrees("routing consistency rises", "routing_consistency")


@pytest.mark.parametrize("name, osr", PAIRS)
def test_only_the_named_keys_change(name, osr):
    changed = changed_keys(load(f"osr={osr}"), load(f"osr={osr} ablation={name}"))
    assert changed and changed <= named_keys(name)


@pytest.mark.parametrize("name, osr", PAIRS)
def test_the_declared_tensor_differs_at_the_first_step(name, osr):
    full, ablated = load(f"osr={osr}"), load(f"osr={osr} ablation={name}")
    assert declared(name)["differs"] in differing(full, ablated)


@pytest.mark.parametrize("name, osr", PAIRS)
def test_parameters_in_both_variants_start_equal(name, osr):
    full, ablated = (
        dict(build(load(line)).named_parameters()) for line in (f"osr={osr}", f"osr={osr} ablation={name}")
    )
    shared = full.keys() & ablated.keys()
    # Experts, attention, norms and the embedding exist in every variant.
    assert len(shared) >= 20
    assert [
        key for key in shared if full[key].shape != ablated[key].shape or not torch.equal(full[key], ablated[key])
    ] == []


@pytest.mark.parametrize("name, osr", sorted(REFUSED))
def test_an_ablation_that_equals_its_base_is_refused(name, osr):
    with pytest.raises(ConfigError) as error:
        load(f"osr={osr} ablation={name}")
    assert error.value.key == "ablation"


@pytest.mark.parametrize(
    "line",
    [
        "ablation=no_repulsion osr.repulsion_weight=0",
        "ablation=no_speciality router.speciality_coef=0",
        "ablation=no_ortho router.ortho_coef=0 osr.so_lambda_max=0",
        "ablation=no_gru router.sequence=linear",
        "ablation=no_expression router.expression=running_mean",
        "ablation=no_expression router.expression=embedding",
        # Switched off already by what the method is, though a coefficient is not 0.
        "ablation=no_ortho router.expression=running_mean",
        "ablation=no_speciality router.sequence=shared_linear",
        # A ladder whose rungs would not be what they are called.
        "ablation=cumulative_3 router.sequence=linear",
        "ablation=cumulative_4 router.carry=none",
        "ablation=no_osr osr.solver=softmax osr.training=plan osr.sinkhorn_inference=false",
    ],
)
def test_an_ablation_of_what_the_method_does_not_have_is_refused(line):
    with pytest.raises(ConfigError) as error:
        load(line)
    assert error.value.key == "ablation"


@pytest.mark.parametrize("osr", BASES)
def test_the_ladder_starts_at_no_all(osr):
    assert changed_keys(load(f"osr={osr} ablation=cumulative_1"), load(f"osr={osr} ablation=no_all")) == set()


def test_the_ladder_ends_one_selection_below_the_paper():
    assert changed_keys(load("osr=paper"), load("osr=paper ablation=cumulative_5")) == {"selection.rule"}


@pytest.mark.parametrize("osr", BASES)
def test_each_rung_of_the_ladder_differs_from_the_one_before(osr):
    rungs = [f"cumulative_{i}" for i in range(1, 7)]
    lines = [f"osr={osr}" + (f" ablation={rung}" if (rung, osr) not in REFUSED else "") for rung in rungs]
    steps = [load(line) for line in lines]
    for before, after in zip(steps, steps[1:], strict=False):
        assert differing(before, after)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A copy of conf/ with one more ablation, written by the test."""
    shutil.copytree(project_root() / "conf", tmp_path / "conf")
    monkeypatch.setenv("SPECTRA_ROOT", str(tmp_path))

    def write(body: str, overrides: str = "") -> None:
        (tmp_path / "conf" / "ablation" / "planted.yaml").write_text(
            "# @package _global_\n# Planted\ndefaults:\n  - schema@ablation\n  - _self_\n"
            f"{overrides}ablation:\n  name: planted\n  hypothesis: none\n  routers: [spectra]\n  differs: cost\n{body}"
        )

    return write


def test_a_planted_ablation_that_sets_what_is_already_set_is_refused(planted):
    planted("router:\n  sequence: min_gru\n")
    with pytest.raises(ConfigError, match="changes nothing"):
        load("ablation=planted")


def test_a_planted_ablation_with_a_word_for_its_place_is_one_line(planted):
    planted("  position: first\n")
    with pytest.raises(ConfigError, match=r"planted.yaml ablation.position: 'first' is not a whole number"):
        ablations()


def test_a_planted_ablation_whose_key_does_nothing_is_caught_by_its_tensor(planted):
    # Accepted by the rules, because a value differs; only the computation tells.
    planted("router:\n  orthogonalize_every: 7\n")
    full, ablated = load(), load("ablation=planted")
    assert changed_keys(full, ablated) == {"router.orthogonalize_every"}
    assert differing(full, ablated) == set()


def test_a_planted_ablation_that_changes_more_than_it_names_is_caught(planted):
    planted("router:\n  carry: none\n", "  - override /temperature: t2_0\n")
    changed = changed_keys(load(), load("ablation=planted"))
    assert not changed <= set(preset_values("ablation", "planted")[0])


def test_a_planted_typo_in_an_ablation_is_refused(planted):
    planted("router:\n  sequnce: linear\n")
    with pytest.raises(ConfigError, match="sequnce"):
        load("ablation=planted")


def test_the_full_method_equals_itself():
    assert differing(load(), load()) == set()


def test_a_file_that_says_nothing_of_its_ablation_is_one_line(tmp_path, monkeypatch):
    own = tmp_path / "conf" / "ablation" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("ablation:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="mine.yaml ablation: None was given"):
        ablations()
