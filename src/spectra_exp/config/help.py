"""`python train.py --help` and `--help GROUP`: groups, options, keys, with the meanings that the files declare."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spectra_exp.config.register import group_schemas
from spectra_exp.config.rules import preset_values
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.config.tree import option_files, project_root, read_yaml, train_words
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import describe_fields

EXAMPLES = (
    ("python train.py", "SPECTRA on the embedded data"),
    ("python train.py router=spectra ablation=no_gru seed=1", "one ablation, another seed"),
    ("python train.py baseline=switch_top2 model.num_experts=16", "a baseline with more experts"),
    ("python train.py -m osr.sinkhorn_epsilon=0.03,0.05,0.1,0.2", "four runs, one after another"),
    (
        "python train.py -m seed=0,1,2 launch=parallel data=files data.train=TRAIN.jsonl",
        "three seeds side by side, own text",
    ),
)


def option_meaning(path: Path) -> str:
    """The first comment line of an option's file that is not a package directive."""
    for line in path.read_text().splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""


def group_options(group: str) -> dict[str, str]:
    """Options of a group and their meanings, in the order of their names."""
    return {name: option_meaning(path) for name, path in option_files(group).items()}


def option_settings(group: str, name: str) -> str:
    """The values and options that an option's file sets over the defaults of the schemas."""
    path = option_files(group)[name]
    values, options = preset_values(group, name)
    if "@package _global_" not in path.read_text():
        values = {f"{group}.{key}": value for key, value in read_yaml(path).items() if key != "defaults"}
    return ", ".join(f"{key}={value}" for key, value in (options | values).items())


def print_help(topics: list[str]) -> None:
    """The whole help, or the keys and options of the groups named. ConfigError for a group that does not exist."""
    console = Console(highlight=False, soft_wrap=True)
    for topic in topics:
        ConfigError.refuse_unknown("--help", [topic], GROUPS)
        _print_group(console, topic)
    if not topics:
        _print_all(console)


def _print_all(console: Console) -> None:
    train = " ".join(train_words())
    console.print("Train a Mixture-of-Experts language model under a chosen router and measure its routing.\n")
    console.print(Text(f"usage: {train} [-m] [group=option ...] [group.key=value ...]"))
    console.print("  -m, --multirun   run every combination of comma-separated values")
    console.print("  --help GROUP     the keys of one group: type, default, meaning")
    console.print("  --cfg job        print the resolved configuration and stop\n")
    console.print("Groups and options (* = default):")
    defaults = default_options()
    for group in GROUPS:
        console.print(Text(f"  {group}: {GROUPS[group]}"))
        for name, meaning in group_options(group).items():
            console.print(Text(f"    {'*' if defaults[group] == name else ' '} {name:<14} {meaning}"))
    console.print("\nKeys outside the groups:")
    for row in describe_fields(RootKeys):
        console.print(Text(f"    {row['name']:<16} {row['meaning']}"))
    console.print("\nExamples:")
    for command, meaning in EXAMPLES:
        console.print(Text(f"  {command.replace('python train.py', train)}\n      {meaning}"))
    console.print(
        "\nThe last line on standard output is the run's folder. A finished run is not run again (force=true does);"
    )
    console.print("an unfinished one goes on from its last checkpoint.")


def _print_group(console: Console, group: str) -> None:
    console.print(Text(f"{group}: {GROUPS[group]}"))
    for name, meaning in group_options(group).items():
        console.print(Text(f"  {group}={name:<14} {meaning}"))
        if settings := option_settings(group, name):
            console.print(Text(f"      sets {settings}"))
    for node, schema in group_schemas(group).items():
        rows = describe_fields(schema)
        if not rows:
            continue
        label = node.removeprefix("schema").lstrip("_")
        table = Table(title=f"keys of {group}" + (f"={label}" if label else ""), box=box.SIMPLE, title_justify="left")
        for column in ("key", "type", "unless set"):
            table.add_column(column, no_wrap=True)
        table.add_column("meaning", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, (f"{group}.{row['name']}", row["type"], row["default"], row["told"])))
        console.print(table)


def default_options() -> dict[str, str]:
    """The option that each group has when nothing is typed."""
    entries = read_yaml(project_root() / "conf" / "config.yaml")["defaults"]
    return {k: v for entry in entries if isinstance(entry, dict) for k, v in entry.items()}
