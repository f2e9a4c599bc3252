"""Expert Choice: a linear map and softmax; the selection rule lets each expert take its best tokens."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, register_router
from spectra_exp.routing.linear import LinearRouter


@dataclass
class ExpertChoiceConfig(RouterConfig):
    """Options of the Expert Choice router."""

    name: str = option("expert_choice", "which router this is")


@register_router
class ExpertChoiceRouter(LinearRouter):
    """*Source:* Zhou et al. 2022, 3.2. *Departs:* a token's weights are renormalised (docs/method.md 1.10)."""

    Config = ExpertChoiceConfig
    choosers = ("expert",)
    label = "Expert Choice"
