"""`spectra-exp paper`: the runs of the paper's results, block by block, and the folder that is made of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.devices import SHARES
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED
from spectra_exp.reporting.campaign import Campaign, chosen_blocks
from spectra_exp.reporting.paper.blocks import check_text, read_blocks
from spectra_exp.reporting.paper.interpreted import interpret_models
from spectra_exp.reporting.paper.publish import ARCHIVE, PAGE, publish, results_folder
from spectra_exp.reporting.paper.scored import check_items, score_models, without_scores

# Of outputs/, where the runs of the paper lie apart from others.
RUNS = "paper"


@dataclass(frozen=True)
class PaperOptions(VerbOptions):
    """What is run and published."""

    status: bool = option(False, "how far it is and how long the rest will take here; runs nothing")
    run: bool = option(True, "false makes the page, tables and figures of the archive and what has finished")
    text: str | None = option(None, "the folder of the real text: train.jsonl and validation.jsonl", path=True)
    downstream: str | None = option(None, "the folder of the downstream tasks' items, such as qasc.jsonl", path=True)
    blocks: tuple[str, ...] = option((), "only these blocks, separated by commas")
    processes: int = option(2, "runs at once; on a GPU they share it", minimum=1, maximum=SHARES)
    to: str | None = option(None, "the folder that is published; docs/results/paper unless set", path=True)


def make_paper(options: PaperOptions) -> int:
    """Make what is missing of each block in its order; publish after each. 1 where something is still missing."""
    text, blocks = check_text(options.text), chosen_blocks(read_blocks(), options.blocks, "blocks")
    items = check_items(options.downstream)
    folder = Path(options.to) if options.to else results_folder()
    campaign = Campaign(options.folder / RUNS, folder / ARCHIVE)
    if options.status:
        print(campaign.words(blocks, text, options.processes))
        return DONE
    if not options.run:
        _score(campaign, items)
        return _publish(campaign, folder)
    whole = True
    for block in blocks:
        whole &= campaign.make(block, text, options.processes)
        scored = _score(campaign, items)
        is_published = campaign.is_packed and (folder / PAGE).is_file() and not scored
        if (campaign.outputs / "runs").is_dir() and not is_published:
            _publish(campaign, folder)
    if items is None and (left := without_scores(read_blocks(), campaign.known)):
        print(f"{len(left)} runs have no downstream scores; give downstream=FOLDER", file=sys.stderr)
    print(campaign.words(blocks, text, options.processes))
    return DONE if whole else FAILED


def _score(campaign: Campaign, items: Path | None) -> bool:
    """Score what has no downstream scores yet, where items are given; whether there was any."""
    if items is None or not (left := without_scores(read_blocks(), campaign.known)):
        return False
    score_models(left, items)
    return True


def _publish(campaign: Campaign, folder: Path) -> int:
    """Put what has finished into the archive and make the folder of it. Raises SpectraError without any run."""
    interpret_models(read_blocks(), campaign.known, folder)
    archive = campaign.pack("make paper")
    publish(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{folder / PAGE}: {len(archive.run_ids)} runs, {len(files)} files, {size / 1e6:.1f} MB")
    return DONE


main = Verb(
    "paper",
    PaperOptions,
    make_paper,
    "The runs of the paper's results that are missing, block by block, and docs/results/paper made of them.",
    ("status=true", "text=FOLDER", "text=FOLDER blocks=a,b", "run=false"),
)
