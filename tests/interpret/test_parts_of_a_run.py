"""The parts on small trained runs: what they leave, against what the runs themselves report and planted changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.interpret.opening import open_subject
from spectra_exp.interpret.parts.causal import chosen_swaps, profile
from spectra_exp.interpret.parts.experts_off import chosen_experts
from spectra_exp.interpret.parts.landscape import checked_centre, initial_weights
from spectra_exp.interpret.registry import Empty, Request, parts
from spectra_exp.interpret.rerouted import Rerouted, correlation_within_layers, sample_of
from spectra_exp.interpret.results import AnalysisFolder, Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import HeldOut
from spectra_exp.moe.interventions import swapped, switched_off
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.plan import plan
from spectra_exp.training.execute import execute

MINE = (
    "positions",
    "depth",
    "boundaries",
    "ambiguity",
    "unseen_domain",
    "oscillation",
    "experts_off",
    "causal",
    "gradients",
    "landscape",
)
SMALL = [
    *MODEL,
    "data.sequence_length=64",
    "data.train_words=20000",
    "data.validation_words=8000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=4096",
    "data.probe_tokens=512",
    "trainer.max_steps=20",
    "trainer.batch_size=4",
    "trainer.log_every=2",
    "logger.progress=false",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_environment()
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def trained(outputs: Path):
    """A function from overrides to the opened run that they give."""

    def make(*overrides: str) -> Subject:
        given = {o.split("=")[0] for o in overrides}
        other_data = {"data.train_words", "data.validation_words"} if "data" in given else set()
        small = [o for o in SMALL if o.split("=")[0] not in given | other_data]
        planned = plan(load_experiment([*small, f"outputs={outputs}", *overrides]))
        assert planned.finished() or execute(planned, "") == "completed"
        return opened(planned.folder, outputs)

    return make


def opened(folder: RunFolder, outputs: Path) -> Subject:
    return open_subject("run", str(folder.path), outputs, tokens=None, texts=None, seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def switch(trained) -> Subject:
    return trained(
        "baseline=switch_top2",
        "data.hold_out_domain=code",
        "trainer.eval_every=1",
        "trainer.keep_checkpoints=fractions",
    )


@pytest.fixture(scope="module")
def results(switch: Subject) -> dict[str, Result]:
    return {name: parts()[name].run(Request(switch)) for name in MINE}


def test_every_part_has_something_and_its_files_can_be_written(results: dict[str, Result], tmp_path: Path) -> None:
    folder = AnalysisFolder(tmp_path / "analysis", {})
    for name, result in results.items():
        assert result.empty is None and result.tables and result.pictures, name
        folder.write(name, name, result)
        made = list((tmp_path / "analysis" / name).iterdir())
        data = {path.stem for path in made if path.suffix != ".png"}
        assert data and {path.stem for path in made if path.suffix == ".png"} <= data


def test_the_landscapes_centre_is_the_reported_loss(results: dict[str, Result], switch: Subject) -> None:
    reported = switch.run.folder.read_summary()["metrics"]["val_loss"]
    assert results["landscape"].data["landscape"]["centre"] == pytest.approx(reported, abs=1e-6)
    grid = results["landscape"].tables["grid"]
    centre = grid[(grid["first"] == 0) & (grid["second"] == 0)]
    assert centre["plane"].tolist() == ["random", "path"]
    assert centre["loss"].to_numpy() == pytest.approx(reported, abs=1e-6)
    assert len(grid) == 2 * 49 and grid["rise"].abs().max() > 1e-4


def test_the_path_begins_at_the_first_weights_and_ends_at_the_centre(results: dict[str, Result], switch) -> None:
    path = results["landscape"].tables["path"].set_index("step")
    assert path.index.tolist() == [0, 2, 5, 10, 15, 20]
    assert path.loc[20, ["first", "second", "distance", "rise"]].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert path["distance"].is_monotonic_decreasing and (path.loc[2, "rise"] != 0)
    steps = np.hypot(path["first"], path["second"])
    assert (steps <= path["distance"] + 1e-4).all() and steps.loc[0] > 0.9 * path["distance"].loc[0]
    # The first weights are those whose hashes the run wrote down; another seed's are refused.
    assert initial_weights(switch) is not None
    switch.run.config["seed"] += 1
    try:
        assert initial_weights(switch) is None
    finally:
        switch.run.config["seed"] -= 1


def test_a_checkpoint_that_is_not_the_reported_model_gets_no_landscape(switch: Subject) -> None:
    weight = switch.engine.model.routed_layers[0].experts.down
    checked_centre(switch)
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(1.5)
        with pytest.raises(Empty, match="is not the reported"):
            checked_centre(switch)
        assert "is not the reported" in parts()["landscape"].run(Request(switch)).empty
    finally:
        with torch.no_grad():
            weight.copy_(before)
    checked_centre(switch)


def test_no_intervention_adds_nothing_and_each_real_one_does(switch: Subject) -> None:
    """The fault planted here is an intervention that changes nothing: everything it adds is exactly 0."""
    sample = Rerouted(switch, 1024)
    text = sample.text.token_ids_MS
    assert text.shape == (16, 64) and (text[0] == switch.held_out.token_ids_MS[0]).all()
    assert (text[-1] == switch.held_out.token_ids_MS[-1]).all()
    nothing = sample.added(lambda domains_N: {0: lambda routing: (routing.chosen_NE, routing.weights_NE)})
    assert np.nanmax(np.abs(nothing)) == 0.0 and np.isnan(nothing).sum() == 16
    for change in (swapped(0, 1), switched_off(2)):
        assert np.nanmax(np.abs(sample.added(lambda _, c=change: {0: c}))) > 1e-4
    # The sample as routed has the losses that the whole text has there.
    whole = switch.trace.losses_N.reshape(-1, 64)
    rows = [int(np.flatnonzero((switch.held_out.token_ids_MS == row).all(axis=1))[0]) for row in text]
    np.testing.assert_allclose(sample.base_N.reshape(16, 64), whole[rows], atol=1e-4)


def test_an_expert_whose_output_is_zero_costs_what_its_tokens_lose(switch: Subject) -> None:
    """With k = 2, off is not the same as silent: the other expert's weight grows. Silencing must not change `off`."""
    sample = Rerouted(switch, 1024)
    layer = switch.engine.model.routed_layers[1]
    before = layer.experts.down.detach().clone()
    off = sample.losses(lambda _: {1: switched_off(3)})
    try:
        with torch.no_grad():
            layer.experts.down[3] = 0
        silent = sample.losses(lambda _: {})
        np.testing.assert_array_equal(sample.losses(lambda _: {1: switched_off(3)}), off)
    finally:
        with torch.no_grad():
            layer.experts.down.copy_(before)
    assert np.nanmax(np.abs(silent - off)) > 1e-5


def test_the_experts_table_is_of_all_experts_with_their_shares(results: dict[str, Result], switch: Subject) -> None:
    table = results["experts_off"].tables["experts"]
    assert len(table) == 8 and table.groupby("layer")["share"].sum().tolist() == pytest.approx([1.0, 1.0])
    assert (table["rare"] == (table["share"] < 0.125)).all()
    domains = results["experts_off"].tables["by_domain"]
    assert domains.groupby(["layer", "domain"])["share_of_domain"].sum().to_numpy() == pytest.approx(1.0)
    stats = switch.trace.statistics[0]
    code = switch.domains.index("code")
    row = domains.query("layer == 0 and expert == 1 and domain == 'code'").iloc[0]
    assert table.set_index(["layer", "expert"]).loc[(0, 1), "hit_most"] == (
        domains.query("layer == 0 and expert == 1").set_index("domain")["added"].astype(float).idxmax()
    )
    counts_EM = (stats.counts_ME / stats.counts_ME.sum(axis=1, keepdims=True)).T
    purity_E = (counts_EM / counts_EM.sum(axis=1, keepdims=True)).max(axis=1)
    assert table["purity"].iloc[:4].to_numpy(float) == pytest.approx(purity_E)
    assert results["experts_off"].data["summary"]["purest_is_hit_most_by_chance"] == pytest.approx(1 / 7)
    assert row["share_of_domain"] == pytest.approx(stats.counts_ME[code, 1] / stats.counts_ME[code].sum())


def test_rerouting_a_domain_costs_that_domain(results: dict[str, Result]) -> None:
    second = results["causal"].tables["second_best"].set_index("domain")
    assert len(second) == 7 and second[["second_best", "arbitrary"]].notna().all(axis=None)
    # Twenty steps teach little, but what is changed is the domain's own tokens.
    assert (second["second_best"].abs() > second["second_best_elsewhere"].abs()).mean() > 0.8


def test_the_held_out_domain_is_the_one_marked(results: dict[str, Result]) -> None:
    domains = results["unseen_domain"].tables["domains"]
    assert domains.loc[domains["held_out"], "domain"].tolist() == ["code"] and len(domains) == 7


def test_oscillation_is_read_at_the_cadence_kept(results: dict[str, Result]) -> None:
    changes = results["oscillation"].tables["changes"]
    assert changes["to_step"].nunique() == 20 and (changes["to_step"] - changes["step"] == 1).all()
    assert "2 change(s) between snapshots lie in the first tenth" in " ".join(results["oscillation"].notes)


def test_gradients_have_all_families_and_the_experts_left_out(results: dict[str, Result]) -> None:
    found = set(results["gradients"].tables["gradients"]["metric"])
    wanted = {
        f"{kind}_{family}"
        for kind in ("grad_norm", "update_ratio", "learning_rate")
        for family in ("router", "experts", "other")
    }
    assert found == wanted | {"experts_without_gradient"}


def test_a_dense_model_has_gradients_alone(trained) -> None:
    request = Request(trained("baseline=dense", "trainer.max_steps=4"))
    for name in MINE:
        result = parts()[name].run(request)
        assert (result.empty is None) == (name == "gradients"), (name, result.empty)
        assert result.empty is None or "\n" not in result.empty
    assert "experts_without_gradient" not in set(parts()["gradients"].run(request).tables["gradients"]["metric"])


def test_k_of_one_without_labels_and_with_an_empty_expert(trained, outputs: Path) -> None:
    """One text file without domains; an expert that the trained weights never choose."""
    rng = np.random.default_rng(0)
    words = ["river", "stone", "ember", "quiet", "lantern", "orbit", "meadow", "copper"]
    documents = [" ".join(rng.choice(words, 60)) for _ in range(120)]
    (outputs / "plain.jsonl").write_text("\n".join(f'{{"text": "{text}"}}' for text in documents))
    subject = trained(
        "baseline=switch_top1",
        "data=files",
        f"data.train={outputs / 'plain.jsonl'}",
        "data.evaluation_tokens=512",
        "trainer.max_steps=4",
    )
    with torch.no_grad():
        for layer in subject.engine.model.routed_layers:
            # The mean of two logits is never the largest.
            layer.router.linear.weight[2] = layer.router.linear.weight[:2].mean(dim=0)
    assert not any(stats.counts_E[2] for stats in subject.trace.statistics)
    results = {name: parts()[name].run(Request(subject)) for name in MINE if name != "landscape"}
    assert {name for name, result in results.items() if result.empty} == {"boundaries", "unseen_domain"}
    table = results["experts_off"].tables["experts"].set_index(["layer", "expert"])
    empty = table.loc[(0, 2)]
    assert empty["tokens"] == 0 and empty["rare"] and empty["added"] == 0.0 and np.isnan(empty["loss_when_used"])
    assert any("k = 1" in note for note in results["experts_off"].notes)
    assert not ({2} & set(results["causal"].tables["swaps"][["expert", "other"]].to_numpy().ravel()))
    assert results["causal"].tables["second_best"]["domain"].tolist() == ["all"]


def test_what_is_chosen_by_hand() -> None:
    assert chosen_experts(np.array([[3, 1, 2], [0, 5, 5]])) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    many = np.arange(2 * 100).reshape(2, 100)[:, ::-1]
    assert chosen_experts(many) == [(layer, expert) for layer in (0, 1) for expert in range(68, 100)]
    text = sample_of(_text(10, 4), 11)
    assert text.token_ids_MS.shape == (2, 4) and sample_of(_text(10, 4), 1).token_ids_MS.shape == (1, 4)
    # Opposite across layers, alike within each: what layers are worth must not decide.
    rows = pd.DataFrame({"layer": [0] * 3 + [1] * 3, "x": [1, 2, 3, 11, 12, 13], "y": [7, 8, 9, 1, 2, 3]})
    assert correlation_within_layers(rows, "x", "y") == pytest.approx(1.0)
    assert correlation_within_layers(rows.assign(y=1.0), "x", "y") is None


def _text(rows: int, length: int) -> HeldOut:
    ids = np.arange(rows * length).reshape(rows, length)
    return HeldOut(ids, ids, ids, [])


def test_swaps_go_from_the_most_alike_to_the_most_unlike(switch: Subject) -> None:
    stats = switch.trace.statistics[0]
    profile_EM = profile(stats)
    assert profile_EM.sum(axis=1) == pytest.approx(np.ones(4))
    found = chosen_swaps(stats, 3)
    distances = [distance for _, _, distance in found]
    every = [np.abs(profile_EM[a] - profile_EM[b]).sum() / 2 for a in range(4) for b in range(a)]
    assert len(found) == 3 and distances == sorted(distances)
    assert distances[0] == pytest.approx(min(every)) and distances[-1] == pytest.approx(max(every))
