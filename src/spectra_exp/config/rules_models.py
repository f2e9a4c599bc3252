"""Which options go with a model that starts from somebody else's weights."""

from __future__ import annotations

from collections.abc import Callable

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.devices import training_device
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import ModelConfig, RerouteConfig, SourceModelConfig, UpcycleConfig
from spectra_exp.routing.base import router_class


def _facts(x: Experiment):
    from spectra_exp.moe.source import source_facts

    return source_facts(x.model)


def native_needs_reroute(x: Experiment) -> None:
    if not router_class(x.router.name).needs_source:
        return
    if not isinstance(x.model, RerouteConfig):
        problem = f"'{x.router.name}' is the router of a sparse source"
        raise ConfigError("router", problem, "give model=reroute model.source=...")
    if x.model.top_k != _facts(x).top_k:
        raise ConfigError(
            "model.top_k", f"{x.model.top_k} was given, but the source's router takes {_facts(x).top_k}", "drop it"
        )
    for key, unused in (
        ("temperature.learned", x.temperature.learned == "none"),
        ("temperature", x.temperature.schedule == "constant" and x.temperature.value == 1.0),
        ("router.load_ema_strength", not x.router.load_ema_strength),
        ("router.shared", not x.router.shared),
        ("model.renormalize", x.model.renormalize is None),
        ("model.keep_router_weights", x.model.keep_router_weights),
    ):
        if not unused:
            raise ConfigError(key, f"router={x.router.name} decides by the source's rule alone", "drop it")


def reroute_has_routers(x: Experiment) -> None:
    if isinstance(x.model, RerouteConfig) and not router_class(x.router.name).routes:
        problem = f"'{x.router.name}' has no router to put into a sparse model"
        raise ConfigError("router", problem, "give model=upcycle for it")


def a_real_expert_is_left(x: Experiment) -> None:
    if not isinstance(x.model, ModelConfig) or not x.model.null_experts:
        return
    if x.model.null_experts >= x.model.num_experts:
        raise ConfigError(
            "model.null_experts",
            f"{x.model.null_experts} of model.num_experts={x.model.num_experts} leave no expert that computes anything",
            f"give at most {x.model.num_experts - 1}",
        )


def some_layer_is_replaced(x: Experiment) -> None:
    if isinstance(x.model, UpcycleConfig) and x.model.first_k_dense_replace >= _facts(x).num_layers:
        raise ConfigError(
            "model.first_k_dense_replace",
            f"{x.model.first_k_dense_replace} leaves none of the source's {_facts(x).num_layers} layers",
            f"give at most {_facts(x).num_layers - 1}",
        )


def source_takes_the_sequence(x: Experiment) -> None:
    if not isinstance(x.model, SourceModelConfig):
        return
    longest = _facts(x).max_positions
    if longest is not None and x.data.sequence_length > longest:
        raise ConfigError(
            "data.sequence_length",
            f"{x.data.sequence_length} is above the source's {longest} positions",
            f"give at most {longest}",
        )


def source_keeps_documents_apart(x: Experiment) -> None:
    if isinstance(x.model, SourceModelConfig) and not x.data.cross_document and not _facts(x).packs:
        raise ConfigError(
            "data.cross_document",
            f"model_type '{_facts(x).model_type}' has attention (windows, ALiBi or no fused kernel) that packed "
            "documents cannot be kept apart in",
            "give true",
        )


def attention_can_work(x: Experiment) -> None:
    if x.model.attention != "auto":
        from transformers import LlamaConfig

        from spectra_exp.moe.attention import choose_attention
        from spectra_exp.moe.source import source_config, source_folder

        if isinstance(x.model, SourceModelConfig):
            backbone = source_config(source_folder(x.model))
        else:
            backbone = LlamaConfig(hidden_size=x.model.hidden_size, num_attention_heads=x.model.num_heads)
        choose_attention(x.attention_request(training_device(x.trainer.device)), backbone)


def experts_kernel_can_work(x: Experiment) -> None:
    if x.model.experts_kernel != "auto":
        from spectra_exp.moe.experts_kernel import choose_experts_kernel, what_router_lacks

        # What the experts lack is said once there is a model.
        request = x.experts_kernel_request(training_device(x.trainer.device))
        choose_experts_kernel(request, [what_router_lacks(router_class(x.router.name))])


def routing_kernel_can_work(x: Experiment) -> None:
    if x.model.routing_kernel == "triton":
        from spectra_exp.moe.routing_kernel import check_routing_kernel

        check_routing_kernel(x.model.routing_kernel, training_device(x.trainer.device))


MODEL_RULES: tuple[Callable[[Experiment], None], ...] = (
    native_needs_reroute,
    reroute_has_routers,
    a_real_expert_is_left,
    some_layer_is_replaced,
    source_takes_the_sequence,
    source_keeps_documents_apart,
    attention_can_work,
    experts_kernel_can_work,
    routing_kernel_can_work,
)
