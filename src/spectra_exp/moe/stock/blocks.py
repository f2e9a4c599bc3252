"""Finds the sparse blocks of a Hugging Face model: which module holds experts, and which one routes to them.

Shapes: E experts, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

# How modules say how many experts they have; the first that one has counts. The total includes experts that do nothing.
COUNTS = ("total_experts", "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
ROUTERS = ("gate", "router")


@dataclass(frozen=True, eq=False)
class SparseBlock:
    """A module that sends each token to some of its experts.

    `holder`: the module; `experts`: a module, or list of modules, that holds the experts' weights; `router`: the child
    that scores the tokens, None where none was found.
    """

    name: str
    holder: nn.Module
    experts: nn.Module
    router: nn.Module | None
    num_experts: int

    @property
    def listed(self) -> list[nn.Module]:
        """The experts where each is a module of its own; empty where their weights are stacked."""
        return _listed(self.experts)

    @property
    def gates(self) -> list[nn.Linear]:
        """The linear maps inside the router, in order, that have an output for each expert, or one more."""
        widths = (self.num_experts, self.num_experts + 1)
        inner = [] if self.router is None else [child for child in self.router.modules() if child is not self.router]
        return [module for module in inner if isinstance(module, nn.Linear) and module.out_features in widths]

    @property
    def rows_Ed(self) -> Tensor | None:
        """The router's row of weights for each expert, float32; None where it has no such rows."""
        for holder in (self.router, *reversed(self.gates)):
            weight = getattr(holder, "weight", None)
            # Rows beyond the experts' are of shared experts, or of none.
            if isinstance(weight, Tensor) and weight.ndim == 2 and len(weight) >= self.num_experts:
                return weight[: self.num_experts].detach().float()
        return None


def find_blocks(model: nn.Module) -> list[SparseBlock]:
    """The sparse blocks of a model in the order of its modules; empty for a dense one."""
    found = []
    for name, module in model.named_modules():
        experts = _experts_of(module)
        if experts is not None:
            found.append(SparseBlock(name, module, experts, _router_of(module, experts), _count(experts)))
    return found


def looks_sparse(model: nn.Module) -> bool:
    """Whether a module of the model says that it has several experts, whether or not its block can be read."""
    return any(
        _said(module) > 1 or isinstance(getattr(module, "experts", None), nn.Module) for module in model.modules()
    )


def _experts_of(module: nn.Module) -> nn.Module | None:
    """The child that holds a block's experts. JetMoe has two stacks of matrices, of which the last one is it."""
    experts = getattr(module, "experts", None)
    if isinstance(experts, nn.Module) and _count(experts) and _experts_of(experts) is None:
        return experts
    last = getattr(module, "output_linear", None)
    return last if isinstance(last, nn.Module) and hasattr(module, "router") and _said(last) else None


def _router_of(module: nn.Module, experts: nn.Module) -> nn.Module | None:
    for name in ROUTERS:
        if isinstance(getattr(module, name, None), nn.Module):
            return getattr(module, name)
    num_experts = _count(experts)
    for child in module.children():
        weight = getattr(child, "weight", None)
        if child is not experts and isinstance(weight, Tensor) and weight.ndim == 2 and len(weight) == num_experts:
            return child
    return None


def _listed(experts: nn.Module) -> list[nn.Module]:
    # NLLB keeps a dropout among its experts.
    children = experts.children() if isinstance(experts, nn.ModuleList | nn.ModuleDict) else ()
    return [child for child in children if next(child.parameters(), None) is not None]


def _count(experts: nn.Module) -> int:
    """How many experts a module holds; 0 when it does not say."""
    if isinstance(experts, nn.ModuleList | nn.ModuleDict):
        return len(_listed(experts))
    stacked = [p for p in experts.parameters(recurse=False) if p.ndim == 3]
    return _said(experts) or (len(stacked[0]) if stacked else 0)


def _said(module: nn.Module) -> int:
    for name in COUNTS:
        number = getattr(module, name, None)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    return 0
