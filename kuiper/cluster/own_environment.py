"""Variables of the user's own shell, which win over `setup_commands` in a simulation on this machine.

There the user's shell is the environment of the run, and `setup_commands` are written for hosts: where both set
KUIPER_DATA, say, the value at hand is meant, and it is what `check` has looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ENVIRONMENTS = (
    "PATH", "LD_*", "MANPATH", "PKG_CONFIG_PATH", "CPATH", "LIBRARY_PATH", "PYTHON*", "VIRTUAL_ENV*", "CONDA*", "_CE_*",
    "MODULE*", "LOADEDMODULES", "_LMFILES_", "LMOD*", "_ModuleTable*", "__LMOD*",
    "HOME", "PWD", "OLDPWD", "SHLVL", "PS1", "_", "BASH*", "KUIPER_RUN", "KUIPER_PROCESS", "KUIPER_ATTEMPT",
    "KUIPER_LISTENER", "KUIPER_QUEUED",
)  # fmt: skip
"""What activating an environment or loading a module changes, what a shell keeps for itself, and what is ours."""

_KEEP = """declare -A kuiper_own; for kuiper_name in $(compgen -e); do case $kuiper_name in {but}) ;; \
*) kuiper_own[$kuiper_name]=${{!kuiper_name}};; esac; done"""
# A list that a setup command has added to, such as FLAGS=$FLAGS:more, keeps what was added.
_RESTORE = """for kuiper_name in "${!kuiper_own[@]}"; do case ":${!kuiper_name}:" in \
*":${kuiper_own[$kuiper_name]}:"*) ;; *) export "$kuiper_name=${kuiper_own[$kuiper_name]}";; esac; done"""


def guarded(commands: Sequence[str], ours: Iterable[str]) -> list[str]:
    """Setup commands between two of ours, of which the second gives the user's variables their values back.

    Args:
        ours: names of variables that kuiper sets for the process.
    """
    if not commands:
        return []
    return [_KEEP.format(but="|".join([*ENVIRONMENTS, *ours])), *commands, _RESTORE]


def unguarded(commands: Sequence[str]) -> list[str]:
    """The user's own setup commands, of those that an agent is given."""
    return list(commands[1:-1] if commands and commands[-1] == _RESTORE else commands)
