"""Every figure there is, each declared once."""

from __future__ import annotations

from spectra_exp.config.presets import FULL, ladder, single_ablations
from spectra_exp.presentation.style import COLUMN, DOUBLE
from spectra_exp.reporting.collect import INFERENCE
from spectra_exp.reporting.figures import temperature_curves, temperature_reports, temperature_usage
from spectra_exp.reporting.figures.expert_usage import LayerUsage, StackedUsage
from spectra_exp.reporting.figures.labels import RULES, by_ablation
from spectra_exp.reporting.figures.spec import FigureSpec, ReportSpec
from spectra_exp.reporting.figures.sweeps import SweepCurves, SweepHeat, quota_place, setting
from spectra_exp.reporting.figures.tradeoff import Tradeoff
from spectra_exp.reporting.figures.training import Curve, Training
from spectra_exp.reporting.tables.spec import Choice

HISTORY, SNAPSHOTS, SUMMARY = "history.parquet", "routing/step-*.npz", "summary.json"
ABLATIONS: Choice = {"ablation": lambda: [FULL, *single_ablations()]}
LADDER: Choice = {"ablation": lambda: [FULL, *ladder()]}


def losses(reference: Choice) -> tuple[Curve, ...]:
    """Training loss, validation loss in the second half of training, and its paired difference from a row."""
    return (
        Curve("train_loss", "train"),
        Curve("val_loss", begin=0.5),
        Curve("val_loss", begin=0.1, reference=reference),
    )


def by_arm(curves: tuple[Curve, ...]) -> Training:
    """The curves of each variant of the full method, a row of panels for the paper's rule and one for the causal."""
    return Training(curves, (DOUBLE, 2.9), arms=("osr",), naming=by_ablation)


def sinkhorn_grid(*metrics: str) -> SweepHeat:
    """The metrics over Sinkhorn's epsilon and iterations, a panel for each domain."""
    return SweepHeat(
        ("osr.sinkhorn_epsilon", "Sinkhorn ε"),
        ("osr.sinkhorn_iterations", "Iterations"),
        ("osr.log_sinkhorn_enabled", {"false": "exp domain", "true": "log domain"}),
        metrics,
    )


BALANCE = (Curve("load_cv"), Curve("max_vio"), Curve("gram_orthogonality"))
GRADIENTS = tuple(Curve(f"grad_norm_{group}", "train", y_scale="log") for group in ("router", "experts", "other"))
CONTEXT_METRICS = ("val_loss", "load_cv", "sequential_overlap", "domain_mutual_information")

TRAINING = (
    FigureSpec(
        "figure03_loss_curves", "Loss over training by ablation; right: paired difference from full SPECTRA",
        "core", HISTORY, by_arm(losses({"ablation": "none"})), ABLATIONS,
    ),
    FigureSpec(
        "figure03_loss_curves_ladder", "Loss over training as parts are added; right: paired difference from full",
        "core", HISTORY, by_arm(losses({"ablation": "none"})), LADDER,
    ),
    FigureSpec(
        "loss_curves_methods", "Loss over training by method; right: paired difference from Switch top-2",
        "baselines", HISTORY, Training(losses({"baseline": "switch_top2"}), (DOUBLE, 3.0)),
    ),
    FigureSpec(
        "figure04_expert_usage", "Expert usage over training", "core", SNAPSHOTS, StackedUsage(), ABLATIONS,
    ),
    FigureSpec(
        "figure05_routing_entropy", "Routing entropy over training",
        "baselines", HISTORY, Training((Curve("routing_entropy"),), (COLUMN, 3.6)),
    ),
    FigureSpec("usage_histograms", "Load on the experts of each layer", "baselines", SNAPSHOTS, LayerUsage()),
    FigureSpec(
        "balance_trends", "Load CV, MaxVio and Gram orthogonality over training by method",
        "baselines", HISTORY, Training(BALANCE, (DOUBLE, 3.0)),
    ),
    FigureSpec(
        "balance_trends_ablations", "Load CV, MaxVio and Gram orthogonality over training by ablation",
        "core", HISTORY, by_arm(BALANCE), ABLATIONS,
    ),
    FigureSpec(
        "gradient_norms", "Gradient norms over training", "baselines", HISTORY, Training(GRADIENTS, (DOUBLE, 3.0)),
    ),
    FigureSpec("pareto", "Balance against validation loss", "baselines", SUMMARY, Tradeoff("load_cv", "val_loss")),
)  # fmt: skip

SWEEPS = (
    FigureSpec(
        "sweep_a", "Sweep A: top-k against quota", "a_quota", SUMMARY,
        SweepCurves(
            quota_place, "Selection and capacity factor", ("val_loss", "load_cv", "max_vio", "load_gini"),
            joined=False, rules=tuple(RULES),
        ),
    ),
    FigureSpec(
        "sweep_b", "Sweep B: Sinkhorn's epsilon, iterations and domain", "b_sinkhorn", SUMMARY,
        sinkhorn_grid("val_loss", "load_cv", "routing_entropy"),
    ),
    FigureSpec(
        "sweep_b_inference", "Sweep B: the same weights under the other rules of inference", "b_sinkhorn", SUMMARY,
        sinkhorn_grid(*(metric + rule for rule in RULES if INFERENCE in rule for metric in ("val_loss", "load_cv"))),
    ),
    FigureSpec(
        "sweep_c", "Sweep C: weight of the repulsive cost", "c_repulsion", SUMMARY,
        SweepCurves(
            setting("osr.repulsion_weight"), "Repulsion weight λ",
            ("val_loss", "load_cv", "expert_overlap", "output_gram_orthogonality"), "linear",
        ),
    ),
    FigureSpec(
        "sweep_d", "Sweep D: coefficient of the entropy loss", "d_sharpness", SUMMARY,
        SweepCurves(
            setting("router.entropy_coef"), "Entropy-loss coefficient",
            ("val_loss", "load_cv", "routing_entropy", "routing_confidence"),
        ),
    ),
    FigureSpec(
        "sweep_e", "Sweep E: length of context, with and without recurrence", "e_context", SUMMARY,
        SweepCurves(setting("data.sequence_length"), "Sequence length (tokens)", CONTEXT_METRICS, "log"),
    ),
)  # fmt: skip

TEMPERATURE = (
    FigureSpec(
        "temperature_ablation_comprehensive", "Router temperature: loss over training and final figures",
        "temperature", HISTORY, temperature_curves.comprehensive,
    ),
    FigureSpec(
        "routing_dynamics", "Router temperature: dynamics of routing",
        "temperature", HISTORY, temperature_curves.dynamics,
    ),
    FigureSpec(
        "expert_utilization", "Router temperature: load on the experts",
        "temperature", SNAPSHOTS, temperature_usage.utilization,
    ),
    FigureSpec(
        "expert_utilization_analysis", "Router temperature: inequality of the load",
        "temperature", SNAPSHOTS, temperature_usage.utilization_analysis,
    ),
    FigureSpec(
        "entropy_analysis", "Router temperature: routing entropy", "temperature", HISTORY, temperature_curves.entropy,
    ),
    FigureSpec(
        "schedule_comparison", "Router temperature: schedules",
        "temperature", HISTORY, temperature_curves.schedule_comparison,
    ),
)  # fmt: skip

FIGURES = (*TRAINING, *SWEEPS, *TEMPERATURE)
REPORTS = (
    ReportSpec(
        "summary_report", "Router temperature: final figures", "temperature", temperature_reports.summary,
    ),
    ReportSpec(
        "specialization_report", "Router temperature: specialization",
        "temperature", temperature_reports.specialization,
    ),
)  # fmt: skip
