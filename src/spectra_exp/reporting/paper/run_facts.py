"""How many runs an archive holds, where and how long they were made, and which of the declared ones it lacks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

from spectra_exp.archive.file import Archive
from spectra_exp.config.resolved import Resolved, resolved_config
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.paper.blocks import Block, read_blocks
from spectra_exp.reporting.paper.progress import LaunchProgress, known_runs, progress
from spectra_exp.reporting.paper.published_tables import NOTHING
from spectra_exp.studies.view import duration

# Words of a launch that are the same for all on its text, or change no result.
SAME = ("data.train=", "data.validation=", "data.domain_field=", "trainer.cpu_threads=")


class RunFacts:
    """What the page says of the runs of an archive, in words."""

    def __init__(self, archive: Archive):
        self._archive = archive

    @cached_property
    def counted(self) -> str:
        """How many runs of how many configurations and seeds, and how many of each status."""
        summaries = self._summaries
        ends = Counter(summary["status"].replace("_", " ") for summary in summaries)
        cells = {summary.get("cell_id") for summary in summaries}
        seeds = {summary.get("seed") for summary in summaries}
        words = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        return f"{len(summaries)} runs ({words}) of {len(cells)} configurations on {len(seeds)} seeds"

    @cached_property
    def hardware(self) -> str:
        """The processors that the runs were made on, and the versions of the code."""
        processors = Counter(run.processor or "unknown processor" for run in self._archive.runs().values())
        codes = Counter(str(s.get("fingerprints", {}).get("code")) for s in self._summaries)
        words = [", ".join(f"{count} runs on {name}" for name, count in processors.most_common())]
        return "; ".join([*words, ", ".join(f"{count} by code {code}" for code, count in codes.most_common())])

    @cached_property
    def time(self) -> str:
        """Hours of a core of all runs together, and the time of the middle run."""
        timings = [s.get("timings") or {} for s in self._summaries]
        # Runs from before sessions were added up have their last one's.
        walls = sorted(w for t in timings if (w := t.get("total_wall_s", t.get("wall_s"))))
        if not walls:
            return NOTHING
        return f"{duration(sum(walls))} in all, {duration(walls[len(walls) // 2])} for the middle run"

    @cached_property
    def tokens(self) -> str:
        """Tokens that runs were trained on, from the smallest to the largest."""
        configs = [run.config for run in self._archive.runs().values() if run.config]
        counts = [
            math.prod(config["trainer"][key] for key in ("max_steps", "batch_size", "accumulation"))
            * config["data"]["sequence_length"]
            for config in configs
        ]
        return " to ".join(dict.fromkeys(f"{count:,}" for count in (min(counts), max(counts)))) if counts else NOTHING

    @cached_property
    def progress(self) -> str:
        """A table of the blocks: how many runs each has."""
        lines = ["| block | runs (those that studies share, in each) | what |", "|---|---|---|"]
        for block, own in self._progress:
            done, whole = sum(one.done for one in own), sum(len(one.states) for one in own)
            lines.append(f"| {block.name} | {done} of {whole} | {block.title} |")
        return "\n".join(lines)

    @cached_property
    def missing(self) -> str:
        """What has not been run, a line a launch, with the command that runs it."""
        lines = []
        for block, own in self._progress:
            for one in own:
                if one.is_done:
                    continue
                left = f"{len(one.states) - one.done} of {len(one.states)} runs" if one.states else one.unmade
                text = " TEXT=FOLDER" if one.launch.needs_text else ""
                words = " ".join(w for w in one.launch.typed if not w.startswith(SAME))
                command = f"make paper BLOCKS={block.name}{text}"
                lines.append(f"- block {block.name}, `{one.launch.study}` ({words}): {left}; `{command}`")
        return "\n".join(lines) or "Nothing: every declared run is there."

    def apart(self, key: str, metric: str) -> str:
        """How far runs of one seed that differ in one option alone end apart in a metric, whichever is ahead."""
        found: dict[tuple[str, int], dict[Any, float]] = {}
        for run in self._archive.runs().values():
            summary = run.required_summary
            values = dict(resolved_config(run.config).values) if run.config else {}
            if key in values and metric in summary["metrics"]:
                own = values.pop(key)
                others = found.setdefault((Resolved(values, {}).signature, summary["seed"]), {})
                others[own] = summary["metrics"][metric]
        gaps = [max(values.values()) - min(values.values()) for values in found.values() if len(values) > 1]
        if not gaps:
            return NOTHING
        return f"{number_text(fmean(gaps))} in the mean and {number_text(max(gaps))} at most ({len(gaps)} pairs)"

    @cached_property
    def _progress(self) -> list[tuple[Block, list[LaunchProgress]]]:
        # Of the archive alone, wherever the page is made.
        blocks = read_blocks()
        found = progress(blocks, known_runs(None, self._archive), None)
        return [(block, found[block.name]) for block in blocks]

    @cached_property
    def _summaries(self) -> Sequence[dict[str, Any]]:
        return [run.required_summary for run in self._archive.runs().values()]
