"""The options of `spectra-exp interpret`."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.config.verb import VerbOptions
from spectra_exp.foundations.bounds import LARGEST_SEED
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import option


@dataclass(frozen=True)
class Options(VerbOptions):
    """What is looked at, and with what."""

    run: str | None = option(
        None, "folder or id of a finished run, or folder of a stock Hugging Face MoE model", path=True
    )
    study: str | None = option(None, "instead of run: the newest finished run of each method of this study")
    against: str | None = option(
        None, "a second one to compare with; results then go to analysis/against-NAME/", path=True
    )
    parts: tuple[str, ...] = option((), "which parts, separated by commas; all when left out")
    text: str | None = option(None, 'a text to follow token by token; quote it: text="..."', any_text=True)
    texts: str | None = option(
        None, "a .jsonl, .parquet or .txt file of such texts; for a stock model also what it is looked at on", path=True
    )
    tokens: int | None = option(
        None, "held-out tokens to look at; 32768 or what the run was scored on when left out", minimum=1, maximum=10**9
    )
    seed: int = option(0, "seed of samples, permutations and maps", minimum=0, maximum=LARGEST_SEED)
    out: str | None = option(None, "folder of the results, in place of analysis/ in the run's folder", path=True)
    device: str = option("auto", "where the model runs", choices=["auto", "cpu", "cuda"])


def check_options(options: Options) -> None:
    """Raise ConfigError for keys that do not go together."""
    if (options.run is None) == (options.study is None):
        raise ConfigError("run", "give either run=PATH or study=NAME", "see --help")
    if options.study is not None and (options.out or options.against):
        raise ConfigError("study", "goes with neither out nor against", "analyse one run: run=PATH")
