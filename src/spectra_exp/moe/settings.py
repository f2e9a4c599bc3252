"""What a routed model is made of, apart from its backbone: the part of a saved model's config.json that is ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.routing.base import RouterConfig, router_class
from spectra_exp.routing.losses import LossesConfig
from spectra_exp.routing.osr import NoOsr, OsrConfig
from spectra_exp.routing.selection import SelectionConfig
from spectra_exp.routing.temperature import TemperatureConfig


@dataclass
class MoeSettings:
    """Experts, router and rules of one model.

    num_experts E; top_k K; expert_size: hidden width of one expert; gated: SwiGLU-style experts with a gate
    matrix; dropout: on the layer's output; total_steps: length of training, for schedules.
    origin: scratch; upcycle, experts copied from a dense model's MLPs; or reroute, a sparse model's own experts behind
    our router. biases: which maps of an expert have one; num_shared: experts that every token passes, from scratch
    trained and added, upcycled copied, frozen and averaged in; num_null: the last of the E, which are empty and give
    zero or (null_kind) a copy; first_dense: layers that keep their MLP. renormalize: the chosen weights of a token sum
    to weight_scale, where `normalizes` allows it.
    """

    num_experts: int
    top_k: int
    expert_size: int
    router: RouterConfig
    osr: OsrConfig | NoOsr = field(default_factory=NoOsr)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    gated: bool = True
    activation: str = "silu"
    dropout: float = 0.0
    total_steps: int = 1
    origin: str = "scratch"
    biases: list[str] = field(default_factory=list)
    num_shared: int = 0
    first_dense: int = 0
    renormalize: bool = True
    weight_scale: float = 1.0
    num_null: int = 0
    null_kind: str = "zero"

    @property
    def num_real(self) -> int:
        """Experts that are not empty: what records count and what executes."""
        return self.num_experts - self.num_null

    @property
    def shared_is_frozen(self) -> bool:
        """Whether shared experts stay as they are."""
        return self.origin != "scratch"

    @property
    def normalizes(self) -> bool:
        """Whether a token's weights are divided by their sum.

        At K = 1 that makes each of them 1 and leaves the router no gradient, so the unnormalised value is the weight
        there, but for a rerouted model, which has the rule that its experts were trained with.
        """
        if not router_class(self.router.name).normalizes:
            return False
        return self.renormalize and (self.top_k > 1 or self.origin == "reroute")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MoeSettings:
        """The settings that `to_dict` wrote; ConfigError for a key that this version does not know."""
        values = dict(values)
        router = router_class(values["router"]["name"])
        schemas = {
            "router": router.Config,
            "osr": OsrConfig if router.uses_osr else NoOsr,
            "selection": SelectionConfig,
            "temperature": TemperatureConfig,
            "losses": LossesConfig,
        }
        for key, schema in schemas.items():
            values[key] = _build(schema, values.get(key, {}), f"moe.{key}")
        return _build(cls, values, "moe")


def _build(schema: type, values: dict[str, Any], path: str) -> Any:
    known = [f.name for f in fields(schema)]
    for key in values:
        if key not in known:
            raise ConfigError.unknown(path, key, known)
    return schema(**values)
