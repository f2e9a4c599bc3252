"""Every table there is, each declared once."""

from __future__ import annotations

from spectra_exp.config.presets import FULL, baselines, single_ablations
from spectra_exp.reporting.tables.pairs import PairSpec
from spectra_exp.reporting.tables.significance import Contrast
from spectra_exp.reporting.tables.spec import Choice, Panel, TableSpec
from spectra_exp.statistics.corrections import benjamini_hochberg

SPECTRA: Choice = {"router": "spectra"}
SWITCH: Choice = {"baseline": "switch_top2"}
BALANCE = ("val_loss", "load_cv", "max_vio", "load_gini", "expert_entropy_norm")
SPECIAL = ("expert_overlap", "gram_orthogonality", "output_gram_orthogonality", "domain_mutual_information")
STEADY = ("routing_consistency", "sequential_overlap", "routing_entropy", "routing_confidence")
RULES = ("false", "true", "dual")
FRONT = ("load_cv", "expert_overlap", "val_loss")

ROUTING_METRICS = TableSpec(
    name="routing_metrics",
    title="Routing metrics of every method: mean over seeds ± half the 95 % t interval",
    study="",
    panels=(
        Panel("Loss and balance", ("val_loss", "load_cv", "max_vio"), beside=True),
        Panel("Balance", ("load_gini", "expert_entropy_norm", "unused_rate", "collapse_rate")),
        Panel("Specialization", SPECIAL),
        Panel("Decisions and stability", STEADY),
    ),
)

BASELINES_TABLE = TableSpec(
    name="baselines",
    title="SPECTRA beside the methods of the literature",
    study="baselines",
    panels=(
        Panel("Loss and balance", ("val_loss", "gap_closure", "load_cv", "max_vio"), beside=True),
        Panel("Specialization", SPECIAL),
        Panel("Decisions and stability", STEADY),
    ),
    baseline=SWITCH,
    tested=("val_loss", "load_cv", "max_vio", "expert_overlap"),
)

ABLATION = TableSpec(
    name="table07_ablation",
    title="Ablations of SPECTRA",
    study="core",
    only={"ablation": lambda: [FULL, *single_ablations()]},
    panels=(
        Panel(
            "Specialization",
            ("expert_entropy", "expert_overlap", "gram_orthogonality", "collapse_rate"),
            beside=True,
        ),
        Panel("Balance, stability and loss", ("load_cv", "max_vio", "routing_consistency", "val_loss")),
    ),
    baseline={"ablation": "none"},
    tested=("load_cv", "expert_overlap", "routing_consistency", "val_loss"),
)

STABILITY = TableSpec(
    name="table12_stability",
    title="Stability of routing over training",
    study="baselines",
    panels=(
        Panel(
            "Between 10, 25, 50, 75 and 100 % of training",
            (
                "routing_consistency", "usage_variance", "usage_kendall_tau", "router_saturation",
                "fraction_to_stability",
            ),  # fmt: skip
            beside=True,
        ),
    ),
)


def sweep(name: str, study: str, title: str, baseline: Choice, panels: tuple[Panel, ...] = ()) -> TableSpec:
    """A sweep's table: balance, specialization and decisions of each point, against the paper's own setting."""
    return TableSpec(
        name=name,
        title=title,
        study=study,
        panels=(
            Panel("Loss and balance", BALANCE, beside=True),
            Panel("Specialization and decisions", (*SPECIAL, *STEADY)),
            *panels,
        ),
        baseline=baseline,
        tested=("val_loss", "load_cv"),
        correction=benjamini_hochberg,
        pareto=FRONT,
    )


INFERENCE_PANEL = Panel(
    "The same weights under the other rules of inference",
    tuple(f"{metric}_inference_{rule}" for metric in ("val_loss", "load_cv", "max_vio") for rule in RULES),
)

SWEEPS = (
    sweep(
        "sweep_a", "a_quota", "Sweep A: top-k against quota",
        {"selection": "quota", "selection.capacity_factor": "1.25"}, (INFERENCE_PANEL,),
    ),
    sweep(
        "sweep_b", "b_sinkhorn", "Sweep B: Sinkhorn's epsilon, iterations and domain",
        {"osr.sinkhorn_epsilon": "0.05", "osr.sinkhorn_iterations": "3", "osr.log_sinkhorn_enabled": "true"},
        (INFERENCE_PANEL,),
    ),
    sweep("sweep_c", "c_repulsion", "Sweep C: weight of the repulsive cost", {"osr.repulsion_weight": "0.5"}),
    sweep("sweep_d", "d_sharpness", "Sweep D: coefficient of the entropy loss", {"router.entropy_coef": "0.001"}),
    sweep("sweep_e", "e_context", "Sweep E: length of context, with and without recurrence", {"ablation": "none"}),
    sweep("temperature", "temperature", "Router temperature", {"temperature": "t1_0"}),
    sweep("design_choices", "design_choices", "Design choices, one at a time", {"router.sequence": "gru"}),
)  # fmt: skip

SIZE_METRICS = ("downstream_score", "val_loss", "expert_entropy", "gram_orthogonality")
PAIRS = (
    PairSpec(
        "table10_scaling_model", "Size of the model", "scaling_model", SPECTRA, SWITCH, SIZE_METRICS,
        ("downstream_score", "val_loss"),
    ),
    PairSpec(
        "table11_scaling_experts", "Number of experts", "scaling_experts", SPECTRA, SWITCH,
        (*SIZE_METRICS, "load_cv"), ("downstream_score", "val_loss", "load_cv"),
    ),
)  # fmt: skip

HEADLINE = ("val_loss", "load_cv", "max_vio", "expert_overlap", "output_gram_orthogonality", "routing_consistency")
CONTRASTS = (
    Contrast(
        "baselines", SPECTRA,
        {"baseline": baselines}, HEADLINE, "against the baselines",
    ),
    Contrast(
        "core", {"ablation": "none"},
        {"ablation": single_ablations}, HEADLINE, "against its ablations",
    ),
)  # fmt: skip

ROW_TABLES = (ROUTING_METRICS, BASELINES_TABLE, ABLATION, STABILITY, *SWEEPS)
