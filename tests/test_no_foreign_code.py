"""Nothing that the project reads may run code: every call that could is found in its sources, and forbids it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import spectra_exp
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.model import load_checkpoint

ROOT = Path(spectra_exp.__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.py")])
FORBIDDEN = "trust_remote_code"
# What of transformers and datasets runs code of a folder, or of a repository of the hub, that says so.
MAY_RUN_CODE = {"from_pretrained", "from_config", "pipeline", "load_dataset", "load_dataset_builder", "get_config_dict"}
# Whatever they are called on, these read pickles or build objects.
NEVER = {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all", "read_pickle", "to_pickle"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def said(keywords: list[ast.keyword] | list[tuple], name: str) -> ast.expr | None:
    return next((keyword.value for keyword in keywords if keyword.arg == name), None)


def is_constant(value: ast.expr | None, wanted: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


def safe_tables(tree: ast.Module) -> set[str]:
    """Names of a module's own dictionaries, or imported ones, that forbid code."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            if any(is_key(key) and is_constant(value, False) for key, value in pairs):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ImportFrom) and node.module == "spectra_exp.moe.whole_weights":
            found |= {alias.asname or alias.name for alias in node.names if alias.name == "ONLY_HERE"}
    return found


def is_key(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value == FORBIDDEN


def forbids_code(call: ast.Call, tables: set[str]) -> bool:
    for keyword in call.keywords:
        if keyword.arg == FORBIDDEN and is_constant(keyword.value, False):
            return True
        last = keyword.value.right if isinstance(keyword.value, ast.BinOp) else keyword.value
        if keyword.arg is None and isinstance(last, ast.Name) and last.id in tables:
            return True
    return False


def faults(text: str) -> list[str]:
    """What in a module could run code that it reads, one line each."""
    tree = ast.parse(text)
    tables, found = safe_tables(tree), []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in PICKLES - {"joblib"}]
        if isinstance(node, ast.keyword) and node.arg == FORBIDDEN and not is_constant(node.value, False):
            found.append(f"{node.value.lineno}: {FORBIDDEN} is not False")
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if called in MAY_RUN_CODE and not forbids_code(node, tables):
            found.append(f"{node.lineno}: {called} without {FORBIDDEN}=False")
        if owner == "torch" and called == "load" and not is_constant(said(node.keywords, "weights_only"), True):
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        allowed = said(node.keywords, "allow_pickle")
        if allowed is not None and not is_constant(allowed, False):
            found.append(f"{node.lineno}: allow_pickle")
        unsafe_yaml = owner == "yaml" and called in ("load", "load_all") and "Safe" not in ast.unparse(node)
        builtin = not owner and called in ("eval", "exec")
        if called in NEVER or unsafe_yaml or builtin or (owner in PICKLES and called in ("load", "loads", "open")):
            found.append(f"{node.lineno}: {owner}.{called}")
    return found


def test_no_module_can_run_code_that_it_reads():
    found = {path.relative_to(ROOT).as_posix(): faults(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_walk_sees_what_the_project_does():
    assert len(SOURCES) > 200
    calls = [
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    assert {"from_pretrained", "from_config", "load_dataset"} <= set(calls)


@pytest.mark.parametrize(
    "planted",
    [
        "AutoModel.from_pretrained(folder)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=asked)",
        "AutoModel.from_pretrained(folder, **options)",
        "HERE = {'trust_remote_code': True}\nAutoModel.from_pretrained(folder, **HERE)",
        "HERE = {'trust_remote_code': False}\nAutoModel.from_pretrained(folder, **(HERE | options))",
        "model = AutoModel.from_config(config)",
        "load_dataset('json')",
        "transformers.pipeline('text-generation')",
        "f(trust_remote_code=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "import pickle",
        "from dill import loads",
        "joblib.load(path)",
        "pandas.read_pickle(path)",
        "eval(text)",
    ],
)
def test_a_planted_call_is_found(planted):
    assert faults(planted)


@pytest.mark.parametrize(
    "allowed",
    [
        "AutoModel.from_pretrained(folder, trust_remote_code=False)",
        "HERE = {'trust_remote_code': False}\nAutoModel.from_pretrained(folder, **(options | HERE))",
        "torch.load(path, weights_only=True)",
        "numpy.load(path)",
        "yaml.safe_load(text)",
        "model.eval()",
    ],
)
def test_what_runs_no_code_is_left_alone(allowed):
    assert faults(allowed) == []


def test_a_checkpoint_that_names_code_is_refused_without_a_question(tmp_path, monkeypatch):
    """As one that somebody sent: transformers would ask, and run it on a yes."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    with pytest.raises(SpectraError, match="is of model_type 'evil', which is no model of a run"):
        load_checkpoint(tmp_path)
    assert not asked and not (tmp_path / "ran").exists()
