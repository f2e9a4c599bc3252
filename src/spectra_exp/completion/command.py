"""`spectra-exp completion install`: Tab completes in bash, and in zsh through its bashcompinit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import one_line_errors, write_text
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE

# Bash breaks a word at "=" and wants what follows alone.
SCRIPT = """\
_spectra_exp() {
    local IFS=$'\\n' line="${COMP_LINE:0:$COMP_POINT}"
    local word="${line##* }" before=""
    [[ "$word" == *=* ]] && before="${word%=*}="
    COMPREPLY=($(spectra-exp completion query "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o nospace -o default -F _spectra_exp spectra-exp
"""


@dataclass(frozen=True)
class ShowOptions:
    """Nothing to choose."""


@dataclass(frozen=True)
class InstallOptions:
    """Where the shell begins."""

    file: str = option("~/.bashrc", "the file that the shell reads when it starts", path=True)


def _show(options: ShowOptions) -> int:
    print(SCRIPT, end="")
    return DONE


def _install(options: InstallOptions) -> int:
    """Write the script beside the shell's file, and a line that reads it into that; once."""
    start = Path(options.file).expanduser()
    if start.exists() and not start.is_file():
        raise ConfigError("file", f"{start} is no file", "give the file that the shell reads when it starts")
    script = start.with_name(".spectra-exp-completion.bash")
    write_text(script, SCRIPT)
    line = f'source "{script}"'
    with one_line_errors(start):
        # Whatever else it holds, in whatever encoding.
        kept = start.read_bytes() if start.exists() else b""
        if line.encode() not in kept.splitlines():
            # Appended, for the file may be a link or have rights of its own.
            with start.open("ab") as file:
                file.write((b"" if kept.endswith(b"\n") or not kept else b"\n") + f"{line}\n".encode())
    print(f"{start}: {line}")
    return DONE


COMMANDS = {
    verb.name.split()[1]: verb
    for verb in (
        Verb(
            "completion install",
            InstallOptions,
            _install,
            "Tab completes verbs, keys and options in every bash that starts from now on.",
            ("", "file=~/.bash_profile"),
        ),
        Verb("completion show", ShowOptions, _show, "The script, for a shell that is set up in another way."),
    )
}
