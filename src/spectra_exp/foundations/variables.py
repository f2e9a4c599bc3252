"""Environment variables that accelerate, torch and transformers read: what each may do to a run.

A run is what its configuration says. A variable that could change its numbers under the same id is taken out of the
environment before anything reads it or, where a library may have read it already, refused.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from spectra_exp.foundations.errors import ConfigError

# Changes no number: places, logs, caches, and parts of the libraries that no run uses.
HARMLESS = "harmless"
# Says how a run is started or where, which the configuration or the run's environment.json holds too.
ALLOWED = "allowed"
NEUTRALISED = "neutralised"
REFUSED = "refused"
# Hands on to worker processes what was taken out of the environment of the first one.
TAKEN = "SPECTRA_VARIABLES_TAKEN"


@dataclass(frozen=True)
class Rule:
    """What becomes of the variables that match one of `patterns`, and why."""

    kind: str
    reason: str
    patterns: tuple[str, ...]


def _rule(kind: str, reason: str, patterns: str) -> Rule:
    return Rule(kind, reason, tuple(patterns.split()))


# The first rule that matches counts.
RULES = (
    _rule(
        HARMLESS,
        "accelerate's logs and checks",
        "ACCELERATE_LOG_LEVEL ACCELERATE_ENABLE_RICH ACCELERATE_DISABLE_RICH ACCELERATE_DEBUG_MODE "
        "ACCELERATE_DEBUG_RDV_FILE",
    ),
    _rule(
        NEUTRALISED,
        "accelerate and transformers would take precision, device, accumulation, clipping, compilation and engine from "
        "them in place of the configuration",
        "ACCELERATE_* FSDP_* MEGATRON_LM_* PARALLELISM_CONFIG_* FORK_LAUNCHED",
    ),
    _rule(
        NEUTRALISED,
        "accelerate would take the ranks of MPI, Slurm or SageMaker for those of the run, which torchrun or "
        "trainer.processes starts",
        "OMPI_COMM_WORLD_* PMI_* MV2_COMM_WORLD_* MPI_LOCALNRANKS MPI_LOCALRANKID SMDATAPARALLEL_* SM_*",
    ),
    _rule(
        NEUTRALISED,
        "other kernels of attention, which round differently; model.attention chooses",
        "TRANSFORMERS_SDPA_FORCE_GQA FLASH_ATTENTION_DETERMINISTIC TRANSFORMERS_DISABLE_DEEPGEMM_LINEAR",
    ),
    _rule(
        NEUTRALISED,
        "would let files run code when they are opened",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD TRUST_REMOTE_CODE",
    ),
    _rule(REFUSED, "bfloat16 in place of trainer.precision", "XLA_USE_BF16 XLA_DOWNCAST_BF16"),
    _rule(
        REFUSED,
        "lower or other precision of matrix products",
        "NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE",
    ),
    _rule(
        REFUSED,
        "other kernels on the CPU, which round differently",
        "ATEN_CPU_CAPABILITY MKL_CBWR MKL_ENABLE_INSTRUCTIONS MKL_DEBUG_CPU_TYPE ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA "
        "OPENBLAS_CORETYPE",
    ),
    _rule(
        REFUSED,
        "other kernels on the GPU, which round differently",
        "TORCH_BLAS_PREFER_* TORCH_LINALG_PREFER_* TORCH_CUDNN_* PYTORCH_TUNABLEOP_* CUBLASLT_WORKSPACE_SIZE "
        "TORCH_DISABLE_NATIVE_JIT TORCH_PYTHON_NATIVE_USER_GRAPH_ORDER_FN",
    ),
    _rule(REFUSED, "other numbers of threads than trainer.cpu_threads", "OMP_DYNAMIC OMP_THREAD_LIMIT"),
    _rule(
        ALLOWED,
        "torchrun's: which of a run's processes this is, and where they meet; their number is in the identity",
        "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_NAME ROLE_RANK ROLE_WORLD_SIZE "
        "NODE_RANK NPROC MASTER_ADDR MASTER_PORT TORCHELASTIC_* TORCH_ELASTIC_* PET_* USE_LIBUV PYTHON_EXEC",
    ),
    _rule(
        ALLOWED,
        "which GPUs there are; the device is in the identity",
        "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES ZE_AFFINITY_MASK "
        "ZE_FLAT_DEVICE_HIERARCHY",
    ),
    _rule(
        ALLOWED,
        "makes products on a GPU repeat; the determinism section of environment.json holds it",
        "CUBLAS_WORKSPACE_CONFIG",
    ),
    _rule(
        ALLOWED,
        "a run sets its own threads (trainer.cpu_threads); where they are placed changes no number",
        "OMP_* MKL_* KMP_* GOMP_* OPENBLAS_NUM_THREADS",
    ),
    _rule(
        HARMLESS,
        "how the processes reach each other: sums of several GPUs are equal to rounding anyway",
        "NCCL_* TORCH_NCCL_* GLOO_* TORCH_DIST_* TORCH_DISTRIBUTED_* TORCH_SYMM* TORCH_FR_BUFFER_SIZE FR_TRACE_* "
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE TORCH_WORKER_SERVER_SOCKET TORCH_MP_PARALLEL_START DCP_* NVSHMEM_* "
        "ROCSHMEM_* PYTORCH_DDP_USE_SIDE_STREAM",
    ),
    _rule(
        HARMLESS,
        "torch.compile and export, which no run uses (ACCELERATE_DYNAMO_*, which would, are neutralised)",
        "TORCHINDUCTOR_* INDUCTOR_* TORCHDYNAMO_* TORCH_DYNAMO_* TORCH_COMPILE* TORCHCOMPILE_* AOT* AOTINDUCTOR_* "
        "TORCH_BISECT_* TORCH_CACHING_PRECOMPILE TORCH_STRICT_PRECOMPILE TORCH_CUDAGRAPH_GC TORCH_WARM_POOL "
        "TORCH_TNT_IN_USE TORCH_INDUCTOR_* TORCH_CUSTOM_PYTHONPATH TORCH_FAKE_TENSOR_* FAKE_ALLOW_META "
        "COMPILE_STROBELIGHT_* CUTEDSL_* CUTLASS_* ENABLE_PERSISTENT_TMA_MATMUL ENABLE_TEMPLATE_TMA_STORE "
        "ENABLE_TMA_LOAD_* DUMP_AOTI_MINIFIER HALIDE_* LOG_AUTOTUNE_RESULTS LOG_TLPARSE MAST_HPC_JOB_NAME "
        "PARTITIONER_* PT2_* PYTORCH_GEN_PATTERNS PYTORCH_REORDER_* PYTORCH_SINK_* TENSORIFY_PYTHON_SCALARS TRITON_* "
        "TVM_SCHEDULER UNSAFE_SKIP_FSDP_MODULE_GUARDS XLA_HLO_DEBUG PYTORCH_KEEP_TMPDIR TORCHEXPORT_* TORCH_ENRICH_* "
        "FX_* _SPLITTER_* PYTORCH_MATCHER_LOGLEVEL TORCH_VENDOR_* QUACK_* TORCH_NATIVE_SKIP_VERSION_CHECK "
        "TORCH_SPARSE_BSR_* LTC_* OMP_PREFIX CI",
    ),
    _rule(HARMLESS, "TorchScript, which no run uses", "PYTORCH_JIT PYTORCH_JIT_*"),
    _rule(
        HARMLESS,
        "where compilers and libraries lie, from which extensions are built",
        "CC CXX CPLUS_INCLUDE_PATH CONDA_EXE CONDA_PREFIX CUDACXX CUDA_HOME CUDA_INC_PATH CUDA_PATH CUDA_PATH_V* "
        "CUDNN_HOME CUDNN_PATH DISTUTILS_USE_SDK IS_FBCODE LD_LIBRARY_PATH LEVEL_ZERO_V1_SDK_PATH MAX_JOBS "
        "NVTOOLSEXT_PATH ONEAPI_ROOT PATH PYTHONPATH PYTORCH_NVCC PYTORCH_ROCM_ARCH ROCM_HOME ROCM_PATH "
        "TORCH_CUDA_ARCH_LIST TORCH_XPU_ARCH_LIST TORCH_DONT_CHECK_COMPILER_ABI TORCH_EXTENSIONS_DIR "
        "TORCH_EXTENSION_SKIP_* TORCH_NO_COMPILER_WRAPPER TORCH_USE_RTLD_GLOBAL VSCMD_ARG_TGT_ARCH WINDOWS_CUDA_HOME "
        "VCTOOLSINSTALLDIR",
    ),
    _rule(
        HARMLESS,
        "memory, checks and profiles, which cost time alone",
        "PYTORCH_NO_CUDA_MEMORY_CACHING PYTORCH_NVML_BASED_CUDA_CHECK PYTORCH_CNDEV_BASED_MLU_CHECK "
        "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK TORCH_CUDA_SANITIZER TORCH_CUPTI_* KINETO_* "
        "ENABLE_PYTORCH_EXECUTION_TRACE* TORCH_SERIALIZATION_DEBUG TORCH_FORCE_WEIGHTS_ONLY_LOAD "
        "TORCH_DEVICE_BACKEND_AUTOLOAD PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF PYTORCH_HIP_ALLOC_CONF "
        "CUDA_LAUNCH_BLOCKING CUDA_MODULE_LOADING MALLOC_* TRANSFORMERS_DISABLE_TORCH_CHECK "
        "DISABLE_SAFETENSORS_CONVERSION HF_DEACTIVATE_ASYNC_LOAD TOKENIZERS_PARALLELISM",
    ),
    _rule(
        HARMLESS,
        "logs and messages",
        "LOGLEVEL TORCH_LOGS* TORCH_TRACE TORCH_DTRACE TORCH_SHOW_CPP_STACKTRACES TORCH_CPP_LOG_LEVEL "
        "TRANSFORMERS_VERBOSITY TRANSFORMERS_NO_ADVISORY_WARNINGS NETWORK_DEBUG_REPORT* MKL_VERBOSE ONEDNN_VERBOSE "
        "DNNL_VERBOSE",
    ),
    _rule(
        HARMLESS,
        "where models, data and caches lie; what was read of them is in the identity by its content",
        "HF_* HUGGINGFACE_* TRANSFORMERS_CACHE TRANSFORMERS_OFFLINE TORCH_HOME TORCH_HUB TORCH_MODEL_ZOO XDG_* "
        "GITHUB_TOKEN TRANSFORMERS_IS_CI",
    ),
    _rule(
        HARMLESS,
        "kernels of the hub serve models that ask for them, which none here does",
        "USE_HUB_KERNELS",
    ),
    _rule(
        HARMLESS,
        "trackers: a run writes to that of the logger group alone",
        "WANDB_* TENSORBOARD_* MLFLOW_* CLEARML_* COMET_* SWANLAB_* KUBEFLOW_* DISABLE_KUBEFLOW_INTEGRATION "
        "DISABLE_MLFLOW_INTEGRATION BRANCH RAY_SCOPE",
    ),
    _rule(
        HARMLESS,
        "where the machine or the editor stands; read for messages and for telemetry",
        "AWS_REGION DATABRICKS_RUNTIME_VERSION ECS_CONTAINER_METADATA_URI SAGEMAKER_JOB_NAME TRAINING_JOB_ARN USER "
        "USERNAME VSCODE_PID",
    ),
    _rule(
        HARMLESS,
        "other makers' devices, on which no run trains",
        "NPU_* PJRT_DEVICE PT_HPU_LAZY_MODE TPU_NAME USE_TORCH_XLA",
    ),
)


@lru_cache(maxsize=4096)
def rule_of(name: str) -> Rule | None:
    """The rule for a variable; None for one that none of the libraries reads."""
    return next((rule for rule in RULES if any(fnmatchcase(name, pattern) for pattern in rule.patterns)), None)


def of_kind(kind: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a kind that are set, in the order of their names."""
    return {name: environment[name] for name in sorted(environment) if (rule := rule_of(name)) and rule.kind == kind}


def neutralise() -> None:
    """Take the variables that would change a run out of this process and those that it starts; tells which, once."""
    found = of_kind(NEUTRALISED)
    for name in found:
        del os.environ[name]
    # What comes later was set by the libraries themselves, in a run before this one.
    if TAKEN not in os.environ:
        os.environ[TAKEN] = json.dumps(found)
        if found:
            told = ", ".join(f"{name}={value}" for name, value in found.items())
            print(f"the environment's {told} is left out of account: the configuration decides", file=sys.stderr)


def check_refused() -> None:
    """Raise ConfigError for a variable that would change a run and that a library may have read already."""
    for name, value in of_kind(REFUSED).items():
        rule = rule_of(name)
        assert rule is not None
        problem = f"'{value}' is set in the environment and asks for {rule.reason}"
        raise ConfigError(name, problem, f"unset {name}: it would change the numbers of a run under the same id")


def seen() -> dict[str, Any]:
    """What this process saw set: values by name, of the harmless ones, which may hold secrets, the names alone."""
    taken = json.loads(os.environ.get(TAKEN, "{}"))
    return {NEUTRALISED: taken, ALLOWED: of_kind(ALLOWED), HARMLESS: list(of_kind(HARMLESS))}
