"""What two gloo processes do with the halves of a batch, and what one process does with the whole.

Run by `test_data_parallel.py`; a spawned process imports this module by name.
Letters: N tokens, E experts, B sequences, S tokens each.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from family_cases import family_model
from moe_cases import ids_of, model_of
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from spectra_exp import RoutingMonitor
from spectra_exp.foundations.collective import ALONE, Group, RankWithoutTokens, many_ranks, total_over_ranks
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe import layer as layer_module
from spectra_exp.routing.losses import LossesConfig
from spectra_exp.routing.routers import quantile as quantile_module
from spectra_exp.routing.sinkhorn import sinkhorn
from spectra_exp.routing.temperature import TemperatureConfig

RANKS = 2
DOMAINS = ("low", "high")
# Tokens of each rank: the halves of a batch need not be equal.
PARTS = (8, 5)
EXPERTS = 5
DUAL = {"potentials": "hard", "training": "potentials", "sinkhorn_inference": "dual", "sinkhorn_epsilon": 0.5}
SWITCH = {"jitter": 0.0, "load_balance_coef": 1.0}
GLOBAL = LossesConfig("global_batch")
# Models trained for two steps of two micro-batches each.
MODELS = {
    "hard potentials": dict(name="spectra", osr=DUAL),
    "quantile potentials": dict(name="spectra", osr=DUAL | {"potentials": "quantile"}),
    "online potentials": dict(name="spectra", osr=DUAL | {"online_rate": 0.1}),
    "soft potentials": dict(name="spectra", osr=DUAL | {"potentials": "soft"}),
    "plan": dict(name="spectra", osr={"sinkhorn_epsilon": 0.5}, router={"expression": "running_mean"}),
    "learned temperature": dict(
        name="spectra",
        osr=DUAL,
        temperature=TemperatureConfig(learned="token"),
        router={"load_balance_coef": 0.5},
        losses=GLOBAL,
    ),
    "sinkhorn": dict(name="sinkhorn"),
    "loss_free": dict(name="loss_free", router={"bias_rate": 0.05}),
    "quantile": dict(name="quantile"),
    "quantile histogram": dict(name="quantile", router={"estimator": "histogram", "ema": 0.5}),
    "bip": dict(name="bip"),
    "remoe": dict(name="remoe", router={"l1_start": 0.1}),
    "expert_threshold": dict(name="expert_threshold"),
    "sequence": dict(name="switch", router=SWITCH, losses=LossesConfig("sequence")),
    "output orthogonality": dict(
        name="output_orthogonality",
        router={"jitter": 0.0, "load_balance_coef": 0.0, "output_ortho_coef": 1.0, "variance_coef": 5.0},
    ),
    "mlp": dict(name="mlp", losses=GLOBAL),
    "beta_memory": dict(name="beta_memory", losses=GLOBAL),
    "rmoe": dict(name="rmoe", router={"width": 6}, losses=GLOBAL),
    "causal_bias": dict(name="causal_bias", router={"strength": 0.5}),
    "load average": dict(name="switch", router=SWITCH | {"load_ema_strength": 0.1}, losses=GLOBAL),
    "global_batch": dict(name="switch", router=SWITCH, losses=GLOBAL),
    "micro_batch": dict(name="switch", router=SWITCH),
}
PLANS = {
    f"{domain} {gradient} {kind}": dict(log_domain=domain == "log", gradient=gradient, kind=kind)
    for domain in ("log", "exp")
    for gradient in ("through", "stopped")
    for kind in ("number", "per token")
}


class SumWithoutGradient(Group):
    """The wrong version: other ranks' losses do not reach this rank's costs."""

    def sum(self, values: Tensor) -> Tensor:
        return total_over_ranks(values.detach()) + values - values.detach()


class OwnCount(Group):
    """The wrong version: columns are scaled to this rank's N/E."""

    def tokens(self, values_Nx: Tensor) -> int:
        return self.own


class OwnRows(Group):
    """The wrong version: order statistics of this rank's rows."""

    def rows(self, values_Nx: Tensor) -> Tensor:
        return values_Nx


class UnweightedMean(Group):
    """The wrong version: every rank's mean counts the same, however many tokens it has."""

    def mean(self, own_mean: Tensor) -> Tensor:
        return self.sum(own_mean / RANKS)


def my_part(values: Tensor, parts: tuple[int, ...]) -> Tensor:
    """This rank's rows; all of them in one process."""
    return values.split(parts)[dist.get_rank()] if many_ranks() else values


def plan_case(log_domain: bool, gradient: str, kind: str, group: type[Group] = Group) -> dict[str, Tensor]:
    """This rank's rows of a plan, and the gradient of sum(plan * probe) over all ranks with respect to its costs."""
    generator = torch.Generator().manual_seed(3)
    cost_NE, probe_NE = (my_part(torch.randn(sum(PARTS), EXPERTS, generator=generator), PARTS) for _ in range(2))
    per_token_N1 = my_part(torch.rand(sum(PARTS), 1, generator=generator) + 0.2, PARTS)
    cost_NE = cost_NE.clone().requires_grad_()
    plan = sinkhorn(
        cost_NE,
        0.3 if kind == "number" else per_token_N1,
        3,
        log_domain=log_domain,
        gradient=gradient,
        ranks=group(len(cost_NE), sum(PARTS)) if many_ranks() else ALONE,
    )
    (gradient_NE,) = torch.autograd.grad((plan.plan_NE * probe_NE).sum(), cost_NE)
    return {
        "rows": torch.cat([plan.plan_NE.detach(), gradient_NE], dim=1),
        "whole": torch.cat([plan.potentials_E, plan.residual[None]]),
    }


def trained(settings: dict, rate: float = 0.1, mask: Tensor | None = None, checkpointing: bool = False):
    """Parameters, buffers and last gradients of a model after two steps of two micro-batches of 4 sequences."""
    model = model_of(**settings)
    with torch.no_grad():
        for layer in model.routed_layers:
            for parameter in layer.router.parameters():
                # Skewed enough for the ranks' loads to differ.
                parameter.mul_(10 if parameter.ndim > 1 and settings["name"] != "spectra" else 1)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    # Buffers must come out equal on all ranks without being sent.
    outer = DistributedDataParallel(model, broadcast_buffers=False) if many_ranks() else model
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(2):
        model.set_step(step)
        optimizer.zero_grad()
        for micro_batch in range(2):
            ids = my_part(ids_of(4, 16, seed=2 * step + micro_batch), (2, 2))
            masks = {} if mask is None else {"attention_mask": my_part(mask, (2, 2))}
            (outer(input_ids=ids, labels=ids, **masks).loss / 2).backward()
        optimizer.step()
        model.after_optimizer_step(1.0)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return state | {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}


def unequal_mask() -> Tensor:
    """Padding that leaves one half of the batch far fewer real tokens than the other."""
    mask_BS = torch.ones(4, 16, dtype=torch.long)
    mask_BS[2:, 5:] = 0
    return mask_BS


def refused() -> str:
    """What a rank says when only rank 0 has real tokens."""
    mask_BS = torch.ones(4, 16, dtype=torch.long)
    mask_BS[2:] = 0
    ids = my_part(ids_of(4, 16), (2, 2))
    try:
        model_of("switch")(input_ids=ids, labels=ids, attention_mask=my_part(mask_BS, (2, 2)))
    except RankWithoutTokens as error:
        return str(error)
    return ""


def monitored(all_ranks: bool = True, domains: tuple[str, ...] = DOMAINS) -> dict[str, Tensor | dict[str, float]]:
    """What a monitor says of three batches, of which this rank sees its part, the last one unequal."""
    with RoutingMonitor(family_model("mixtral"), domains=domains, all_ranks=all_ranks) as monitor, torch.no_grad():
        for number, parts in enumerate([(2, 2), (2, 2), (3, 1)]):
            ids = my_part(ids_of(4, 16, seed=number), parts)
            with monitor.domain(domains[number % 2]) if domains else nullcontext():
                monitor.model(input_ids=ids, use_cache=False)
    last = monitor.statistics()[-1]
    batches = torch.from_numpy(np.column_stack([last.tokens_T, last.counts_TE]))
    return {"metrics": monitor.metrics(), "batches": batches, "words": torch.from_numpy(last.counts_EV.copy())}


def monitored_by_one() -> str:
    """What a rank says of a pass that rank 0 made alone, and what when nobody made one."""
    monitor = RoutingMonitor(family_model("mixtral"))
    try:
        monitor.metrics()
    except SpectraError as error:
        told = str(error)
    if dist.get_rank() == 0:
        monitor.model(input_ids=ids_of(), use_cache=False)
    return f"{told}: {monitor.statistics()[0].num_tokens}"


@contextmanager
def counts_of_one_rank():
    """The wrong version: each rank answers its own load."""
    with (
        patch.object(layer_module, "total_over_ranks", lambda counts_E: counts_E),
        patch.object(quantile_module, "all_rows", lambda rows_NE: rows_NE),
    ):
        yield


def results() -> dict[str, dict]:
    """Every case, by name; planted faults only where there are ranks to differ."""
    found = {name: plan_case(**case) for name, case in PLANS.items()}
    found |= {name: trained(settings) for name, settings in MODELS.items()}
    found["checkpointing"] = trained(MODELS["learned temperature"], checkpointing=True)
    # Ranks of unequal size weigh the language-model loss otherwise, so here no weight moves.
    found["padded"] = trained(MODELS["soft potentials"], rate=0.0, mask=unequal_mask())
    found["monitor"], found["monitor without domains"] = monitored(), monitored(domains=())
    if many_ranks():
        found["own monitor"], found["one monitor"] = monitored(all_ranks=False), monitored_by_one()
        found["evaluation"] = evaluated_on_rank_0()
        found["refused"] = refused()
        found["planted count"] = plan_case(True, "through", "number", OwnCount)
        found["planted gradient"] = plan_case(True, "through", "number", SumWithoutGradient)
        with patch("spectra_exp.foundations.collective.Group", UnweightedMean):
            found["planted mean"] = trained(MODELS["soft potentials"], rate=0.0, mask=unequal_mask())
        with patch("spectra_exp.foundations.collective.Group", OwnRows):
            found["planted dual"] = trained(MODELS["bip"])
        with counts_of_one_rank():
            found["planted counts"] = trained(MODELS["loss_free"])
            found["planted quantile"] = trained(MODELS["quantile"])
            found["planted potential counts"] = trained(MODELS["hard potentials"])
    return found


def evaluated_on_rank_0() -> bool:
    """One rank evaluates alone, under both rules, and waits for nobody."""
    if dist.get_rank() == 0:
        model = model_of("spectra", osr=DUAL | {"sinkhorn_inference": "true"}).eval()
        model(input_ids=ids_of(), labels=ids_of())
        with torch.no_grad():
            model.train()(input_ids=ids_of(), labels=ids_of())
    dist.barrier()
    return True


def on_rank(rank: int, folder: str) -> None:
    """Entry of one spawned process: all results into `folder/RANK.pt`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS)
    try:
        torch.save(results(), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
