# SPDX-License-Identifier: Apache-2.0
"""Print what completes the command in a shell.

    source <(microvmi completion bash)        in ~/.bashrc
    source <(microvmi completion zsh)         in ~/.zshrc, after compinit

Where make install laid it down nothing has to be done. Subcommands, options and names of machines are completed; what
else could follow, paths are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.known import load, names
from libmicrovmi_py.command.parser import of_subcommand
from libmicrovmi_py.machine.listing import list_vms

BASH = r"""# bash completion of microvmi
_microvmi() {
    local IFS=$'\n'
    COMPREPLY=($(microvmi completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]// /\\ }")
}
complete -o default -F _microvmi microvmi
"""

ZSH = r"""#compdef microvmi
_microvmi() {
    local -a found
    found=("${(@f)$(microvmi completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found ]]; then compadd -a found; else _files; fi
}
if [[ $funcstack[1] == _microvmi ]]; then _microvmi "$@"; else compdef _microvmi microvmi; fi
"""

SHELLS = {"bash": BASH, "zsh": ZSH}
_WORDS = "words"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The shell; the rest is for what it calls."""
    text = "the shell; what is printed for it calls this with words and the words up to the cursor"
    parser.add_argument("shell", choices=[*SHELLS, _WORDS], help=text)
    parser.add_argument("words", metavar="WORD", nargs=argparse.REMAINDER, help="for words: those behind microvmi")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    if options.shell in SHELLS:
        sys.stdout.write(SHELLS[options.shell])
        return 0
    *before, begun = options.words or [""]
    for word in candidates(before, begun):
        print(word)
    return 0


def candidates(before: Sequence[str], begun: str) -> list[str]:
    """What the word could become that begins with ``begun`` and stands behind ``before``."""
    if not before:
        found = names()
    elif before[0] in names():
        found = list(_of_subcommand(before[0], before[1:], begun))
    else:
        found = []
    return [word for word in found if word.startswith(begun)]


def _of_subcommand(name: str, before: Sequence[str], begun: str) -> Iterator[str]:
    actions = of_subcommand(name, load(name))._actions
    options = {option: action for action in actions for option in action.option_strings}
    last = options.get(before[-1]) if before else None
    if last is not None and last.nargs != 0:
        yield from map(str, last.choices or ())
    elif begun.startswith("-"):
        yield from options
    else:
        yield from _of_place(actions, len(_places(before, options)))


def _places(before: Sequence[str], options: dict[str, argparse.Action]) -> list[str]:
    """The words that are no options, nor what belongs to one."""
    found, skipped = [], False
    for word in before:
        if not skipped and not word.startswith("-"):
            found.append(word)
        skipped = not skipped and word in options and options[word].nargs != 0
    return found


def _of_place(actions: Sequence[argparse.Action], place: int) -> Iterator[str]:
    """What can stand at the place of that number: names of machines, or what there is to choose from."""
    places = [action for action in actions if not action.option_strings]
    if place >= len(places):
        return
    if places[place].metavar in kit.MACHINES:
        yield from (machine.name for machine in list_vms() if machine.name and machine.abilities)
    yield from map(str, places[place].choices or ())
