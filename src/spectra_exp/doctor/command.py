"""`spectra-exp doctor`: whether a sparse model's routing is sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.bounds import LARGEST_SEED
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import write_json, write_text
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED

FINDINGS, PAGE = "findings.json", "index.html"


@dataclass(frozen=True)
class Options(VerbOptions):
    """What is examined, and on what."""

    model: str | None = option(
        None, "folder of a stock Hugging Face MoE model, or its name in the local cache", path=True
    )
    run: str | None = option(None, "instead of model: folder or id of a run", path=True)
    texts: str | None = option(None, "a .jsonl, .parquet or .txt file that a stock model is examined on", path=True)
    checks: tuple[str, ...] = option((), "which checks, separated by commas; all when left out")
    tokens: int | None = option(None, "tokens that loads are counted on; 4096 when left out", minimum=16, maximum=10**9)
    seed: int = option(0, "seed of what is drawn at random", minimum=0, maximum=LARGEST_SEED)
    out: str | None = option(
        None, "folder of findings.json and index.html; OUTPUTS/doctor/NAME when left out", path=True
    )
    device: str = option("auto", "where the model runs", choices=["auto", "cpu", "cuda"])


def examine(options: Options) -> int:
    """The exit status: 1 where a check found a fault; the table was printed, the files are written."""
    if (options.model is None) == (options.run is None):
        raise ConfigError("model", "give either model=FOLDER or run=ID", "see --help")
    if options.run is not None and options.texts is not None:
        raise ConfigError("texts", "a run is examined on its own held-out text", "drop it")
    from spectra_exp.doctor.examine import doctor
    from spectra_exp.doctor.opening import open_model, open_own
    from spectra_exp.doctor.page import page_of, text_of
    from spectra_exp.doctor.registry import chosen_checks
    from spectra_exp.runs.limits import chosen_device

    chosen_checks(options.checks)
    device, console = chosen_device(options.device), Console(stderr=True)
    if options.run is not None:
        opened = open_own(options.run, options.folder, options.tokens, options.seed, device)
    else:
        assert options.model is not None
        opened = open_model(options.model, options.texts, options.tokens, options.seed, device)
    folder = Path(options.out) if options.out else options.folder / "doctor" / opened.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("out", f"{folder} cannot be made ({error.strerror})", "give another folder") from error
    with console.status("examining") as shown:
        found = doctor(opened.model, opened.batches, checks=options.checks, say=lambda check: shown.update(check.title))
    made_with = {**found.made_with, "seed of the text": options.seed}
    report = replace(found, name=opened.name, notes=opened.notes, made_with=made_with)
    write_json(folder / FINDINGS, report.as_dict())
    write_text(folder / PAGE, page_of(report))
    print(text_of(report))
    print(folder / PAGE, flush=True)
    return FAILED if report.faults else DONE


def _checks_help() -> str:
    from spectra_exp.doctor.registry import checks

    return "\n".join(["Checks:", *(f"  {name:<22} {check.title}" for name, check in checks().items())])


main = Verb(
    "doctor",
    Options,
    examine,
    "Checks of a sparse model's routing; exit status 1 where one finds a fault (docs/doctor.md).",
    ("model=FOLDER_OF_OLMOE texts=validation.jsonl", "run=ID", "model=FOLDER checks=causality,cached_decoding"),
    more=_checks_help,
)
