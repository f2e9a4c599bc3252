"""`spectra-exp replications`: effects that others published, looked for again; their verdicts, and a page of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.archive.file import read_archive
from spectra_exp.config.tree import named_files, project_root
from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.devices import SHARES
from spectra_exp.foundations.files import write_text
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED
from spectra_exp.presentation.text import interval_text, markdown_table, number_text
from spectra_exp.reporting.campaign import Campaign, chosen_blocks
from spectra_exp.reporting.declared import study_effects
from spectra_exp.reporting.make_tables import replications_table, write_table
from spectra_exp.reporting.material import Material, gather
from spectra_exp.reporting.paper.blocks import Block, Launch, check_text, text_words
from spectra_exp.reporting.paper.published_tables import section_words
from spectra_exp.reporting.published import RULE, Finding, findings, together
from spectra_exp.statistics.intervals import Interval
from spectra_exp.studies.definition import Study, load_study

KIND = "replications"
HEAD = """# Published effects, looked for again

Made by `make replications` from [replications.parquet](replications.parquet), an archive of the runs. Each effect is a
study in `replications/`, which names its source, the figure there, the direction and a tolerance. The models are tiny
and trained for minutes: an effect that is not there at this size may well be there at the source's.

"""


@dataclass(frozen=True)
class ReplicationOptions(VerbOptions):
    """What is run and written."""

    status: bool = option(False, "how far it is and how long the rest will take here; runs nothing")
    run: bool = option(True, "false makes the page of the archive and what has finished")
    text: str | None = option(
        None, "the folder of the real text: train.jsonl and validation.jsonl; generated text unless set", path=True
    )
    studies: tuple[str, ...] = option((), "only these, separated by commas")
    runs: tuple[str, ...] = option(
        (), "archives, separated by commas: runs that studies share with them are taken, not made", path=True
    )
    processes: int = option(2, "runs at once; on a GPU they share it", minimum=1, maximum=SHARES)
    to: str | None = option(None, "the folder of page and archive; docs/results unless set", path=True)
    overrides: tuple[str, ...] = ()


def make_replications(options: ReplicationOptions) -> int:
    """Make what is missing of each study; write the page after each. 1 where something is still missing."""
    text = check_text(options.text)
    beside = (*(text_words() if text else ()), *options.overrides)
    blocks = [Block(name, load_study(name).title, (Launch(name, beside),)) for name in named_files(KIND)]
    blocks = chosen_blocks(blocks, options.studies, "studies")
    folder = Path(options.to) if options.to else project_root() / "docs" / "results"
    campaign = Campaign(options.folder / KIND, folder / f"{KIND}.parquet")
    for name in options.runs:
        print(f"{name}: {campaign.take(read_archive(Path(name)), blocks, text)} runs taken", file=sys.stderr)
    if options.status:
        print(campaign.words(blocks, text, options.processes))
        return DONE
    whole = True
    for block in blocks if options.run else ():
        whole &= campaign.make(block, text, options.processes)
        if block is not blocks[-1] and (campaign.outputs / "runs").is_dir() and not campaign.is_packed:
            _write(campaign, folder)
    print(_write(campaign, folder))
    return DONE if whole else FAILED


def _write(campaign: Campaign, folder: Path) -> Path:
    """The page and the table, made of the archive alone; the page's path."""
    campaign.pack("make replications")
    material = gather(campaign.outputs, runs=[str(campaign.path)], kinds=[KIND])
    write_table(replications_table(material), campaign.outputs / "tables")
    path = folder / f"{KIND}.md"
    write_text(path, page_text(material))
    return path


def page_text(material: Material) -> str:
    """The page, of replications alone: the verdicts, then each effect with its source's figure beside ours."""
    found = {name: findings(study_effects(study), material.sections[name]) for name, study in material.studies.items()}
    verdicts = [
        [material.studies[name].title, section_words(group[0].section.title), f"**{together(group)}**"]
        for name, groups in found.items()
        for group in groups
    ]
    parts = [_part(material.studies[name], groups) for name, groups in found.items()]
    return HEAD + markdown_table(["effect", "data", "verdict"], verdicts) + f"\n{RULE}\n" + "".join(parts)


def _part(study: Study, groups: Sequence[Sequence[Finding]]) -> str:
    lines = [f"\n## {study.title}\n\n{study.question}\n"]
    for group in groups:
        lines.append(f"\n{section_words(group[0].section.title)}: **{together(group)}**\n\n")
        lines.append(
            markdown_table(["there", "here", "claim", "difference", "n", "p", "null hypothesis", "says"], _rows(group))
        )
        lines += [f"\n{finding.comparison}: {finding.reason}.\n" for finding in group if finding.reason]
    return "".join(lines)


def _rows(group: Sequence[Finding]) -> list[list[str]]:
    rows = []
    for found in group:
        effect, test = found.effect, found.test
        bounds = None if test.difference is None else Interval(test.n, test.difference, test.ci_low, test.ci_high)
        rows.append(
            [
                f"{effect.figure} ({effect.source})",
                f"{effect.metric}, {found.comparison}",
                f"{effect.claim}, tolerance {effect.tolerance:g}",
                interval_text(bounds),
                str(test.n),
                number_text(found.decision.p if found.decision else None),
                found.decision.null if found.decision else "",
                found.outcome,
            ]
        )
    return rows


main = Verb(
    "replications",
    ReplicationOptions,
    make_replications,
    "Effects that others published, looked for again: the runs that are missing, and docs/results/replications.md.",
    (
        "status=true",
        "text=FOLDER runs=docs/results/paper/runs.parquet",
        "studies=rmoe_recurrence seed=0..2",
        "run=false",
    ),
)
