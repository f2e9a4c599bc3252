"""docs/reference/: every option and command, made of the schemas: `python tools/reference_pages.py` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spectra_exp.cli import VERBS
from spectra_exp.completion.query import verbs_of
from spectra_exp.config.help import default_options, group_options, option_settings
from spectra_exp.config.register import group_schemas
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.config.tree import project_root
from spectra_exp.foundations.files import write_text
from spectra_exp.foundations.options import describe_fields
from spectra_exp.presentation.text import markdown_text

MADE = "Made from the schemas by `python tools/reference_pages.py`; a test holds it current.\n"
KEY_HEADS = ("key", "type", "unless set", "meaning")


def options_page() -> str:
    """Every group with its options and keys, and the keys outside the groups."""
    parts = [f"# Options of a run\n\n{MADE}\n`spectra-exp run --help GROUP` prints the same.\n"]
    parts += [f"\n## Outside the groups\n\n{_keys(describe_fields(RootKeys), '')}"]
    parts += [_group(group, default_options()[group]) for group in GROUPS]
    return "".join(parts)


def commands_page() -> str:
    """The help of every verb."""
    parts = [
        f"# Commands\n\n{MADE}\n`spectra-exp VERB key=value ...`; exit status: 0 done, 1 something asked for did not "
        "come out, 2 wrong input, 130 stopped.\n\n",
        _table(("verb", "what it does"), [(_code(name), markdown_text(said)) for name, (_, said) in VERBS.items()]),
    ]
    for name in VERBS:
        parts += [f"\n## {verb.name}\n\n```text\n{verb.help()}```\n" for verb in verbs_of(name)]
    return "".join(parts)


def _group(group: str, default: str) -> str:
    rows = [
        (
            _code(f"{group}={name}") + (" (default)" if name == default else ""),
            markdown_text(meaning),
            _code(option_settings(group, name)),
        )
        for name, meaning in group_options(group).items()
    ]
    text = f"\n## {group}\n\n{GROUPS[group].capitalize()}.\n\n{_table(('option', 'meaning', 'sets'), rows)}"
    for node, schema in group_schemas(group).items():
        label = node.removeprefix("schema").lstrip("_")
        if keys := describe_fields(schema):
            title = f"Keys of `{group}{'=' if label else ''}{label}`"
            text += f"\n### {title}\n\n{_keys(keys, f'{group}.')}"
    return text


def _keys(rows: list[dict[str, str]], prefix: str) -> str:
    cells = []
    for row in rows:
        default = "" if row["default"] == "None" else row["default"]
        told = markdown_text(row["told"])
        cells.append((_code(prefix + row["name"]), markdown_text(row["type"]), _code(default), told))
    return _table(KEY_HEADS, cells)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


PAGES = {"options.md": options_page, "commands.md": commands_page}


if __name__ == "__main__":
    for name, made in PAGES.items():
        write_text(project_root() / "docs" / "reference" / name, made())
