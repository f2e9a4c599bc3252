"""What a run needs of the machine and of packages: devices, loggers, DeepSpeed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations import variables
from spectra_exp.foundations.devices import training_device
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import is_file_name


def study_is_a_name(x: Experiment) -> None:
    if x.study and not is_file_name(x.study):
        # Its tables and its report lie in folders of that name.
        raise ConfigError("study", f"'{x.study}' cannot be a folder's name", "give a short one without / and \\")


def device_exists(x: Experiment) -> None:
    import torch

    if x.trainer.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("trainer.device", "'cuda' was given, but torch sees no GPU", "give cpu or auto")


def installed(name: str) -> bool:
    """Whether the package can be imported; a folder of that name on the path has a spec too, but no origin."""
    return getattr(find_spec(name), "origin", None) is not None


def logger_installed(x: Experiment) -> None:
    name = x.logger.name
    if name != "none" and not installed(name):
        raise ConfigError("logger.name", f"the package {name} is not installed", f"pip install {name}")


def wandb_accepts(x: Experiment) -> None:
    if x.logger.name != "wandb":
        return
    bad = sorted(set(x.logger.project) & set("/\\#?%:"))
    if bad or not 0 < len(x.logger.project) <= 128:
        problem = f"'{x.logger.project}' holds {' '.join(bad)}" if bad else "is empty or longer than 128 characters"
        raise ConfigError("logger.project", problem, "give 1 to 128 characters without / \\ # ? % :")
    long = [tag for tag in x.logger.tags if not 0 < len(tag) <= 64]
    if long:
        raise ConfigError("logger.tags", f"'{long[0]}' is empty or longer than 64 characters", "shorten it")
    if x.logger.mode == "online":
        from wandb.sdk import wandb_setup
        from wandb.sdk.lib import wbauth

        # wandb.login() would ask the server.
        host = wandb_setup.singleton().settings.base_url
        if not wbauth.authenticate_session(host=host, source="logger=wandb", prompt=False, update_session=False):
            raise ConfigError(
                "logger.mode", "'online' was given, but no W&B key is set", "run `wandb login` or set WANDB_API_KEY"
            )


def deepspeed_belongs(x: Experiment) -> None:
    if x.trainer.deepspeed == "none":
        return
    key, given = "trainer.deepspeed", f"'{x.trainer.deepspeed}'"
    if not installed("deepspeed"):
        raise ConfigError(key, "the package deepspeed is not installed", "pip install 'spectra-exp[deepspeed]'")
    if x.optim.name == "muon":
        raise ConfigError(key, f"{given} flattens the matrices that optim=muon needs whole", "give optim=adamw")
    routers_stay_float32(x, key, given)
    if getattr(x.router, "orthogonalization", None) == "periodic":
        raise ConfigError(
            key,
            f"{given} keeps weights of its own, past which router.orthogonalization=periodic would set them",
            "give another router.orthogonalization",
        )


def routers_stay_float32(x: Experiment, key: str, given: str) -> None:
    """Refuse other precisions beside an engine, `given` under `key`, that casts every parameter."""
    if x.trainer.precision != "float32":
        fix = "give trainer.precision=float32"
        raise ConfigError(key, f"{given} would make the routers {x.trainer.precision} too", fix)


def fsdp_belongs(x: Experiment) -> None:
    if x.trainer.fsdp == "none":
        return
    key, given = "trainer.fsdp", f"'{x.trainer.fsdp}'"
    if x.trainer.deepspeed != "none":
        raise ConfigError(key, f"{given} and trainer.deepspeed={x.trainer.deepspeed} exclude each other", "drop one")
    if training_device(x.trainer.device) != "cuda":
        problem = f"{given} needs a GPU for each process: on the CPU Trainer would not shard, and not say so"
        raise ConfigError(key, problem, "give trainer.deepspeed=zero2 or zero3 there, or trainer.processes alone")
    if x.optim.name == "muon":
        raise ConfigError(key, f"{given} takes the matrices apart that optim=muon needs whole", "give optim=adamw")
    routers_stay_float32(x, key, given)
    if x.router.shared:
        raise ConfigError(key, f"{given} cannot share one router among layers", "give router.shared=false")
    if getattr(x.router, "orthogonalization", None) == "periodic":
        raise ConfigError(
            key,
            f"{given} keeps weights in parts, which router.orthogonalization=periodic would set whole",
            "give another router.orthogonalization",
        )


def environment_asks_for_nothing(x: Experiment) -> None:
    variables.check_refused()


RUNNING_RULES: tuple[Callable[[Experiment], None], ...] = (
    environment_asks_for_nothing,
    study_is_a_name,
    device_exists,
    logger_installed,
    wandb_accepts,
    deepspeed_belongs,
    fsdp_belongs,
)
