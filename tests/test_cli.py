"""The command line: every bad input is one line and status 2 before anything is made; good ones run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from spectra_exp import cli
from spectra_exp.config.tree import project_root

SOURCES = str(Path(cli.__file__).parents[1])

# Command line, the key (or first words) that the message starts with, and what it must say.
BAD = [
    # names
    ("optim.learnin_rate=1", "optim.learnin_rate", "did you mean 'optim.learning_rate'?"),
    ("trainer.max_step=5", "trainer.max_step", "did you mean 'trainer.max_steps'?"),
    ("max_steps=5", "max_steps", "did you mean 'trainer.max_steps'?"),
    ("sed=1", "sed", "did you mean 'seed'?"),
    ("routr=switch", "routr", "did you mean 'router'?"),
    ("router=swich", "router", "did you mean 'switch'?"),
    ("router=schema_switch", "router", "valid: beta_memory, bip"),
    ("ablation=nogru", "ablation", "did you mean 'no_gru'?"),
    ("launch=paralel", "launch", "did you mean 'parallel'?"),
    ("router.sequence=linear router=switch", "router.sequence", "router=switch"),
    ("model/foo=1", "model/foo", "unknown key"),
    ("hydra/launcher=nope", "hydra/launcher", "joblib"),
    ("router.name=swich", "router.name", "did you mean 'switch'?"),
    ("router.name=switch", "router.name", "give router=switch"),
    ("router=switch router.name=temperature", "router.name", "give router=temperature"),
    ("data.name=files", "data.name", "valid: embedded"),
    ("selection.rule=quota", "selection.rule", "give selection=quota"),
    ("osr.sinkhorn_inference=maybe", "osr.sinkhorn_inference", "valid: false, true, dual"),
    ("refresh=satle", "refresh", "did you mean 'stale'?"),
    # types and ranges
    ("trainer.max_steps=abc", "trainer.max_steps", "'abc' is not a whole number"),
    ("trainer.max_steps=1.5", "trainer.max_steps", "'1.5' is not a whole number"),
    ("trainer.max_steps=true", "trainer.max_steps", "not a whole number"),
    ("trainer.max_steps=0", "trainer.max_steps", "must be at least 1"),
    ("seed=1.5", "seed", "'1.5' is not a whole number"),
    ("seed=", "seed", "'' is not a whole number"),
    ("seed=null", "seed", "needs a value"),
    ("seed=???", "seed", "needs a value"),
    ("seed=-1", "seed", "must be at least 0"),
    ("seed=4294967296", "seed", "must be at most 4294967295"),
    ("seed=[1]", "seed", "not a whole number"),
    ("seed={a:1}", "seed", "not a whole number"),
    ("router.dim=[1,2]", "router.dim", "not a whole number"),
    ("optim.learning_rate=fast", "optim.learning_rate", "'fast' is not a number"),
    ("optim.learning_rate=nan", "optim.learning_rate", "finite"),
    ("optim.learning_rate=inf", "optim.learning_rate", "finite"),
    ("optim.learning_rate=-1", "optim.learning_rate", "must be greater than 0"),
    ("debug.detect_anomaly=maybe", "debug.detect_anomaly", "neither true nor false"),
    ("router=", "router", "valid: beta_memory, bip"),
    ("router=null", "router", "valid: beta_memory, bip"),
    ("router=[switch]", "router", "did you mean 'switch'?"),
    ("router=[a,b]", "router", "valid: beta_memory, bip"),
    ("router={a:1}", "router", "valid: beta_memory, bip"),
    ("'router=${study}'", "router", "valid: beta_memory, bip"),
    ("trainer.max_steps=???", "trainer.max_steps", "??? was given; it needs a value"),
    ("logger.tags=[???]", "logger.tags", "??? was given; it needs a value"),
    ("logger.tags=[null]", "logger.tags", "null was given; it needs a value"),
    ("logger.tags={a:1}", "logger.tags", "'{a:1}' was given; it is a list of texts: [a,b]"),
    ("logger.tags=a", "logger.tags", "'a' was given; it is a list of texts: [a,b]"),
    ("logger.tags=[{a:1}] logger=wandb", "logger.tags", "{'a': 1} is not a text"),
    ("study=[a]", "study", "'[a]' was given; it is a text"),
    ("study=../../x", "study", "cannot be a folder's name"),
    ("study=.x", "study", "cannot be a folder's name"),
    ("seed.x=1", "seed.x", "did you mean 'seed'?"),
    ("logger.tags.0=a", "logger.tags.0", "did you mean 'logger.tags'?"),
    ("'trainer[0]=1'", "trainer[0]", "unknown key"),
    ("seed=99999999999999999999", "seed", "must be at most 4294967295"),
    ("trainer.cpu_threads=2147483648", "trainer.cpu_threads", "must be at most 256"),
    ("trainer.processes=5000 trainer.batch_size=5000", "trainer.processes", "must be at most 1024"),
    ("model.expert_size=10000000000000000000", "model.expert_size", "must be at most 262144"),
    ("osr.sinkhorn_iterations=1000000000", "osr.sinkhorn_iterations", "must be at most 10000"),
    ("data.train_words=1000000000000", "data.train_words", "must be at most 100000000"),
    ("data.document_words=100000000", "data.document_words", "must be at most 1000000"),
    ("trainer.memory_limit_mb=18446744073709551616", "trainer.memory_limit_mb", "must be at most 1073741824"),
    (f"data=files data.train=a data.validation={'a' * 300}", "data.validation", "a name of more than 255 bytes"),
    (f"outputs={'a/' * 2000}", "outputs", "give at most 2048"),
    # what does not go together
    ("model.top_k=9", "model.top_k", "model.num_experts=8"),
    ("ablation=no_gru router=switch", "ablation", "router=switch does not have"),
    ("ablation=no_gru router.sequence=linear", "ablation", "router.sequence is linear"),
    ("ablation=no_gru baseline=switch_top2", "ablation", "exclude each other"),
    ("baseline=switch_top2 router=hash", "router", "baseline=switch_top2 sets 'switch'"),
    ("baseline=switch_top2 model.top_k=1", "model.top_k", "baseline=switch_top2 sets 2"),
    ("baseline=switch_top2 selection=quota", "selection", "baseline=switch_top2 sets 'topk'"),
    ("baseline=switch_top2 selection.rule=quota", "selection.rule", "give selection=quota"),
    ("ablation=no_gru router.carry=token", "router.carry", "ablation=no_gru sets none"),
    ("ablation=no_all selection=quota", "selection", "ablation=no_all sets 'topk'"),
    ("ablation=no_repulsion osr.repulsion_weight=0", "ablation", "changes nothing"),
    ("ablation=no_repulsion osr.repulsion_weight=0.5", "osr.repulsion_weight", "ablation=no_repulsion sets 0.0"),
    ("ablation=no_quota", "ablation", "selection.rule=quota"),
    ("ablation.hypothesis=x", "ablation.hypothesis", "ablation=NAME"),
    ("ablation.name=no_gru", "ablation.name", "ablation=NAME"),
    ("baseline.name=x", "baseline.name", "baseline=NAME"),
    ("osr=paper router=switch", "osr", "no effect with router=switch"),
    ("osr=none", "osr", "needs a transport"),
    ("osr.solver=softmax", "osr.training", "needs Sinkhorn"),
    ("osr.sinkhorn_inference=false", "osr.training", "give osr.sinkhorn_inference=dual"),
    ("temperature=t2_0 router=hash", "temperature", "no logits"),
    ("temperature.value=2 router=dense", "temperature", "no logits"),
    ("selection=expert_choice router=switch", "selection.rule", "valid: topk, quota"),
    ("selection=quota router=expert_choice", "selection.rule", "valid: expert_choice"),
    ("router.load_balance_coef=1 router=hash", "router.load_balance_coef", "no distribution"),
    ("model.num_heads=3", "model.num_heads", "hidden_size=128"),
    ("data.sequence_length=4096", "data.sequence_length", "model.max_positions=4096"),
    # what would have no effect
    ("selection.capacity_factor=2", "selection.capacity_factor", "no effect"),
    ("selection.at_inference=true", "selection.at_inference", "no effect"),
    ("temperature=cosine temperature.value=3", "temperature.value", "no effect"),
    ("temperature.start=3", "temperature.start", "no effect"),
    ("osr=paper osr.potentials=hard", "osr.potentials", "no effect"),
    ("osr=paper osr.potential_rate=0.1", "osr.potential_rate", "no effect"),
    ("osr.saturation_weight=0 osr.saturation_threshold=0.5", "osr.saturation_threshold", "no effect"),
    ("osr.so_lambda_max=0 osr.so_warmup_steps=5", "osr.so_warmup_steps", "no effect"),
    ("optim=adamw optim.muon_momentum=0.5", "optim.muon_momentum", "no effect"),
    ("launch.jobs=4", "launch.jobs", "no effect"),
    # syntax
    ("seed=0,1", "seed", "add -m"),
    ("router=switch,hash", "router", "add -m"),
    ("seed=1 seed=2", "seed", "give it once"),
    ("ablation=no_gru ablation=none", "ablation", "give it once"),
    ("-m seed=0,1 seed=2", "seed", "give it once"),
    ("~router", "router", "nothing can be taken out"),
    ("~seed", "seed", "nothing can be taken out"),
    ("+foo=1", "foo", "did you mean 'force'?"),
    ("++osr.x=1", "osr.x", "unknown key"),
    ("++osr.solver=softmax", "osr.solver", "give osr.solver=softmax"),
    ("+ablation=no_gru", "ablation", "give ablation=no_gru"),
    ("router@foo=switch", "router", "give router=switch"),
    ("foo", "command line", "'foo' is not an assignment"),
    ("router", "command line", "give router=OPTION"),
    ("seed:1", "command line", "'seed:1' is not an assignment"),
    ("=1", "command line", "names no key"),
    ("seed==1", "seed", "cannot be read"),
    ("'seed=1)'", "seed", "cannot be read"),
    ("'seed=[1'", "seed", "cannot be read"),
    ('"study=\'a"', "study", "cannot be read"),
    ("'seed=${oc.env:NOPE}'", "seed", "Environment variable 'NOPE' not found"),
    ("'seed=${nope}'", "seed", "'nope' not found"),
    ("'study=${hydra:job.num}'", "study", ""),
    ("\"study='${'\"", "study", "'${' refers to nothing that it could take"),
    ("'study=${'", "study", "begins a reference to another key"),
    ("'trainer.max_steps=${trainer.max_steps}'", "trainer.max_steps", "refers to nothing that it could take"),
    ("'trainer.max_steps=${study}'", "trainer.max_steps", "refers to nothing that it could take"),
    ("++ablation.routers=", "ablation.routers", "choose one with ablation=NAME"),
    ("seed=tag(a,1)", "seed", "'seed=\"tag(a,1)\"'"),
    ("'study=\"a'", "study", '\'study="\\"a"\''),
    ("hydra.run.dir=/tmp/elsewhere", "hydra.run.dir", "give outputs=FOLDER"),
    ("hydra.job.chdir=true", "hydra.job.chdir", "is set by the program"),
    ("hydra.mode=MULTIRUN", "hydra.mode", "-m"),
    ("hydra.sweeper.params.seed=0", "hydra.sweeper.params.seed", "-m"),
    # flags
    ("--foo", "command line", "'--foo'"),
    ("--multirn seed=1", "command line", "did you mean '--multirun'?"),
    ("--cfg", "command line", "expected one argument"),
    ("--cfg jop", "command line", "invalid choice: 'jop'"),
    ("--cfg job -m seed=0,1", "command line", "exclude each other"),
    ("--cfg job router=swich", "router", "did you mean 'switch'?"),
    ("--cfg job seed=abc", "seed", "not a whole number"),
    ("--cfg job model.top_k=99", "model.top_k", "give at most 8"),
    ("--info config seed=abc", "seed", "not a whole number"),
    ("--config-name other", "command line", "--config-name is not used here"),
    ("--config-dir /tmp", "command line", "--config-dir is not used here"),
    ("--experimental-rerun /tmp/x", "command line", "is not used here"),
    ("--resolve", "command line", "go with --cfg"),
    ("--help nonsense", "--help", "valid: ablation"),
    ("--help optm", "--help", "did you mean 'optim'?"),
    # data and folders
    ("data=files", "data.train", "set data.train=PATH"),
    ("data=files data.train=", "data.train", "set data.train=PATH"),
    ("data=files data.train=/nope.jsonl", "data.train", "there is no file /nope.jsonl"),
    ("data.train=x.jsonl", "data.train", "the chosen data"),
    ("outputs=", "outputs", "give outputs=FOLDER"),
    ("outputs=null", "outputs", "needs a value"),
    ("outputs=/proc/nope", "outputs", "/proc/nope"),
    ("\"outputs='~/runs'\"", "outputs", "give the whole path"),
    # one bad job of many
    ("-m seed=0,x", "seed", "'x' is not a whole number"),
    ("-m seed=0,1 model.top_k=2,99", "model.top_k", "99"),
    ("-m router=switch,hash temperature=t2_0", "temperature", "router=hash"),
    ("-m ablation=none,no_quota", "ablation", "no_quota"),
    ("-m 'router=glob(*)'", "router", "cannot be listed"),
]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Experiments handed to training, which does not happen; outputs lie in a folder of the test."""
    import spectra_exp.training.execute as module

    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr("sys.argv", ["train.py"])
    started = []
    monkeypatch.setattr(module, "execute", lambda planned, hydra_config: started.append(planned) or "completed")
    return started


@pytest.mark.parametrize("line, key, words", BAD, ids=[line for line, _, _ in BAD])
def test_bad_input_is_one_line_and_status_2(line, key, words, launched, tmp_path, capfd):
    status = cli.main(shlex.split(line))
    out, err = capfd.readouterr()
    assert status == 2
    assert out == ""
    assert err.startswith(f"error: {key}: ") and err.count("\n") == 1
    assert words in err
    assert len(err) < 400
    for noise in ("Traceback", "full_key", "object_type", "hydra.cc", "Exception", "None"):
        assert noise not in err.replace("HydraConfig", "")
    assert not launched and not (tmp_path / "outputs").exists()


def test_an_outputs_folder_that_is_a_file_is_refused(launched, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert cli.main([f"outputs={tmp_path / 'file'}"]) == 2
    assert "outputs" in capfd.readouterr().err


def test_a_vocabulary_below_the_tokenizers_is_refused_before_any_run(launched, tmp_path, capfd):
    words = ["data.train_words=20000", "data.validation_words=8000", "data.vocabulary_size=300"]
    assert cli.main([*words, "model.vocabulary_size=10"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: model.vocabulary_size: ") and err.count("\n") == 1
    assert not launched and not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.parametrize("typed", ["study=" + "[" * 3000, f"trainer.max_steps={'a' * 5000}", "x y " * 2000])
def test_a_line_stays_short_whatever_was_typed(typed, launched, capfd):
    assert cli.main([typed]) == 2
    assert len(capfd.readouterr().err) < 1000


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE: 'abc' is set and is no number"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE: 2 is set, but not RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "WORLD_SIZE: 2 is set, but not MASTER_ADDR"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK: 0 is set, but not RANK"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK: '-1' is set and is no number"),
    ],
)
def test_ranks_that_nobody_started_are_one_line(environment, words, launched, monkeypatch, capfd):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main([]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: {words}") and err.count("\n") == 1


def test_a_root_without_a_configuration_is_one_line(launched, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SPECTRA_ROOT", str(tmp_path))
    assert cli.main([]) == 2
    assert capfd.readouterr().err.startswith(f"error: SPECTRA_ROOT: {tmp_path} holds no conf/config.yaml")


def test_the_module_runs_as_the_script_does(tmp_path):
    command = [sys.executable, "-m", "spectra_exp.cli", "router=swich"]
    environment = os.environ | {"PYTHONPATH": SOURCES}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and done.stderr.startswith("error: router: unknown name 'swich'")


@pytest.mark.parametrize(
    "line, runs",
    [
        ("seed=3", 1),
        ("seed='3'", 1),
        ("-m seed=0,1", 2),
        ("seed=0,1 -m router=switch", 2),
        ("-m router=switch,hash seed=range(0,2)", 4),
        ("osr.sinkhorn_iterations=8 ablation=no_osr", 1),
        ("'outputs=${oc.env:SPECTRA_OUTPUTS}'", 1),
        ("\"study='a b, c'\"", 1),
        ("force=yes", 1),
    ],
)
def test_good_input_reaches_training(line, runs, launched, capfd):
    small = ["data.train_words=20000", "data.validation_words=8000", "data.vocabulary_size=300"]
    cli.main([*shlex.split(line), *small])
    out, err = capfd.readouterr()
    assert err == (f"{runs} runs: {runs} completed\n" if "-m" in line else "")
    assert out.splitlines() == [str(planned.folder.path) for planned in launched]
    assert len({planned.identity.run_id for planned in launched}) == len(launched) == runs


@pytest.mark.parametrize(
    "line", ["--help", "-h", "--help osr", "router=switch --help", "--cfg job", "--cfg job --resolve"]
)
def test_listings_go_to_standard_output_with_status_0(line, launched, capfd):
    assert cli.main(shlex.split(line)) == 0
    out, err = capfd.readouterr()
    assert out and err == "" and not launched
    # Nothing is left of it that later runs of this process could read.
    assert not HydraConfig.initialized()


def test_cfg_shows_the_resolved_configuration(launched, capfd):
    import yaml

    cli.main(["--cfg", "job", "osr=paper", "seed=4"])
    shown = yaml.safe_load(capfd.readouterr().out)
    assert shown["seed"] == 4 and shown["selection"]["rule"] == "quota" and shown["osr"]["sinkhorn_epsilon"] == 0.05


# End to end, in processes of their own.

TINY = shlex.split(
    "debug=smoke model.hidden_size=16 model.num_layers=2 model.num_heads=2 model.expert_size=16 model.num_experts=4 "
    "router.dim=4 trainer.batch_size=4 data.sequence_length=32 data.train_words=20000 data.validation_words=8000 "
    "data.vocabulary_size=300 trainer.device=cpu"
)


@pytest.fixture
def train(tmp_path):
    """Runs train.py from an unrelated working directory; returns the finished process."""
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(project_root() / "train.py"), *TINY, *words]
        environment = {k: v for k, v in os.environ.items() if k != "SPECTRA_ROOT"}
        environment |= {"SPECTRA_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)

    return run


def folders(process: subprocess.CompletedProcess) -> list[Path]:
    return [Path(line) for line in process.stdout.splitlines()]


@pytest.mark.slow
def test_a_run_prints_its_folder_is_not_run_twice_and_can_be_forced(train, tmp_path, monkeypatch, capfd):
    first = train()
    assert first.returncode == 0, first.stderr
    (folder,) = folders(first)
    summary = folder / "summary.json"
    assert folder.parent == tmp_path / "outputs" / "runs" and summary.exists()
    assert not list((tmp_path / "elsewhere").iterdir())
    written = summary.stat().st_mtime_ns

    def again(*words: str) -> tuple[int, str, str]:
        """The status of the same command in this process, and what it printed."""
        status = cli.main([*TINY, *words])
        return status, *capfd.readouterr()

    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    status, out, err = again()
    assert (status, out) == (0, f"{folder}\n") and "Traceback" not in err
    assert f"{folder.name}: already completed; force=true runs it again" in err
    assert summary.stat().st_mtime_ns == written

    assert again("force=true")[:2] == (0, f"{folder}\n")
    assert summary.stat().st_mtime_ns > written

    shutil.rmtree(folder / ".hydra")
    (folder / ".hydra").write_text("mine")
    status, _, err = again()
    assert status == 1 and f"error: {folder / '.hydra'}: a folder belongs here" in err
