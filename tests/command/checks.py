# SPDX-License-Identifier: Apache-2.0
"""What every subcommand does, as checks of a stand with its machines: of those made up, and of real guests."""

from __future__ import annotations

import argparse
import json
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from command.running import at_terminal, interrupted, one_line, piped
from command.stand import Stand

from libmicrovmi_py.command import known
from libmicrovmi_py.command.parser import of_subcommand

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
PROGRESS = re.compile(r"\r[^\n]*\r")
"""A line that is written anew, and is gone in the end."""


def check_pipe(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    """What is asked for is on standard output, and there is nothing but lines there and on standard error."""
    done = piped(name, *_filled(stand.words, places))
    assert done.code == 0, done
    assert re.search(stand.shows, done.out), done
    assert not CONTROL.search(done.out + done.err), done
    lines = [line for line in done.err.splitlines() if not line.startswith("microvmi: ")]
    assert all(stand.tells and re.fullmatch(stand.tells, line) for line in lines), done


def check_terminal(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    """The same at a terminal; what tells how far it is leaves nothing behind."""
    done = at_terminal(name, *_filled(stand.words, places))
    assert done.code == 0, done
    text = PROGRESS.sub("", done.out)
    assert re.search(stand.shows, text), done
    assert not CONTROL.search(text), done


def check_json(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    """One JSON document, in a pipe and at a terminal."""
    if stand.document is None:
        assert piped(name, *_filled(stand.words, places), "--json").out == "" or stand.no_json
        return
    words = _filled(stand.words, places)
    place = _place(name, words)
    done = piped(name, *words[:place], "--json", *words[place:])
    assert done.code == 0, done
    assert stand.document(json.loads(done.out)), done


def _place(name: str, words: list[str]) -> int:
    """Where --json is put: behind the first word, unless what follows that belongs to another program."""
    actions = of_subcommand(name, known.load(name))._actions
    return (
        0
        if words[0].startswith("-") or any(action.nargs in (argparse.REMAINDER, argparse.PARSER) for action in actions)
        else 1
    )


def check_error(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    """One line on standard error, and exit code 1; what is wrong usage is 2."""
    if stand.wrong:
        done = piped(name, *_filled(stand.wrong, places))
        assert done.code == 1, done
        last = done.err.splitlines(keepends=True)[-1]
        assert re.search(stand.says, one_line(last)), done
    usage = piped(name, "--no-such-option")
    assert (usage.code, usage.out) == (2, ""), usage
    one_line(usage.err)


def check_interrupt(
    name: str, stand: Stand, places: Mapping[str, str], number: signal.Signals, slow: Callable[[], bool], **more: str
) -> None:
    """It ends by the signal, with no more than lines of its own; the caller looks at the machine."""

    def begun(text: str) -> bool:
        return bool(re.search(stand.begun, text)) if stand.begun else slow()

    done = interrupted(number, [name, *_filled(stand.lasting, places)], begun, **more)
    assert done.code == -number, done
    assert "Traceback" not in done.out, done
    assert "microvmi: a defect" not in done.out, done


def places_in(folder: Path, vm: str, watched: str, dump: str) -> dict[str, str]:
    """What stands put into their words."""
    return {"folder": str(folder), "vm": vm, "watched": watched, "dump": dump}


def _filled(words: tuple[str, ...], places: Mapping[str, str]) -> list[str]:
    return [word.format(**places) for word in words]
