"""docs/families.md, made of what the reader of stock models finds: `python tests/moe/family_page.py` writes it."""

from __future__ import annotations

import torch
import transformers
from sparse_families import DECODERS, ENCODERS_TOO, UNREADABLE, VOCABULARY, sparse_model

from spectra_exp import RoutingMonitor
from spectra_exp.config.tree import project_root
from spectra_exp.foundations.errors import SpectraError

PAGE = project_root() / "docs" / "families.md"
HEAD = """# Stock sparse models that can be read

What `RoutingMonitor` and the interpretation, which share one reader, find in a tiny random model of every sparse
decoder family of transformers {version}, and in two with an encoder. A test compares each with hooks written apart from
the reader, and this page with what is found; `python tests/moe/family_page.py` writes it.

- *Scores*: what the router makes of its logits. The distribution over experts is the scores over their sum; without it
  there is no routing entropy and no score gap.
- *Router's rows*: whether the router has a row of weights for each expert (Gram metrics).
- *Outputs*: whether experts can be run by themselves (metrics of their mean outputs).
- A family that is not here is read if its experts are called on (hidden states, indices, weights), or are a list beside
  a gate of which the top k run. What cannot be read ends in an error that says so; it is never called dense.
- Counted is what was executed: LongCat's experts that do nothing count as experts, and Zaya's tokens that go to none
  have none. JetMoe has two sparse layers in each block, its attention's experts and its MLPs.
- The interpretation opens decoders; the monitor also reads models with an encoder, whose layers count the encoder's
  tokens and the decoder's.

| model_type | class | scores | router's rows | outputs |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole text."""
    rows = [_row(model_type) for model_type in sorted([*DECODERS, *ENCODERS_TOO, *UNREADABLE])]
    return HEAD.format(version=transformers.__version__) + "\n".join(rows) + "\n"


@torch.no_grad()
def _row(model_type: str) -> str:
    model = sparse_model(model_type)
    ids = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    named = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    head = f"| `{model_type}` | {type(model).__name__} |"
    try:
        with RoutingMonitor(model) as monitor:
            model(input_ids=ids, **named)
        stats = monitor.statistics()
    except SpectraError as error:
        return f"{head} cannot be read: {_reason(error)} | | |"
    scores = {block.scores for stream in monitor.streams for block in stream.layers if block.scores}
    known = all(layer.entropy_sum is not None for layer in stats)
    cells = ["/".join(sorted(scores)) if known else "not known"]
    for name in ("representation_ED", "output_mean_ED"):
        cells.append("yes" if all(getattr(layer, name) is not None for layer in stats) else "no")
    return f"{head} {' | '.join(cells)} |"


def _reason(error: SpectraError) -> str:
    text = str(error)
    return "its experts run on other tokens than its router chose" if "ran on" in text else text.split(": ")[-1]


if __name__ == "__main__":
    PAGE.write_text(page())
