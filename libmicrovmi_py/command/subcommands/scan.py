# SPDX-License-Identifier: Apache-2.0
"""Run one function over all machines of one host, or of many.

FUNCTION is one of

  pattern WORD...     where texts are, or bytes: hex:4D5A??00
  hashes              a hash of each page that holds something
  vol PLUGIN...       the rows of a plugin of volatility, on Linux guests without a symbol file
  FILE.py:FUNCTION    your own: it gets an open machine and the arguments, and returns or yields what JSON can say
  MODULE:FUNCTION     the same, from a module that is installed where the machines are

Each machine is one line of JSON, as soon as it is done, with "result" or "error". With --scheduler the machines are
those of all hosts on which a worker of Dask runs (dask worker ADDRESS, with this package installed). Without, they
are this host's, and as many processes scan them as there are CPUs; one is the command itself. Machines are read as
they run, unless --pause or --snapshot is given. Options stand before FUNCTION. The exit code is 1 if a machine could
not be scanned.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.optional import need
from libmicrovmi_py.export.view import View
from libmicrovmi_py.tools.scan import functions
from libmicrovmi_py.tools.scan.alone import Alone
from libmicrovmi_py.tools.scan.calls import Engine
from libmicrovmi_py.tools.scan.cluster import connected, library
from libmicrovmi_py.tools.scan.fleet import Fleet
from libmicrovmi_py.tools.scan.job import Job

_MOST = 1 << 20
_LIMIT = 3600.0
_TIMEOUT = 30.0
_MOST_WORKERS = 1024


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to run, where, and how much may come of it."""
    add = parser.add_argument
    add("--scheduler", metavar="ADDRESS", help="Dask's scheduler, as in tcp://HOST:8786; its workers scan their hosts")
    add("--workers", metavar="N", type=_count, help="without a scheduler: how many processes scan (default: the CPUs)")
    add("--driver", metavar="NAME", help="the machines of this driver alone")
    add("--only", metavar="NAMES", default="*", help="machines whose names match, as in web-*")
    add("--machine", metavar="VM", action="append", help="this one, and none that is listed; may be given again")
    add("--most", metavar="SIZE", type=kit.size, default=_MOST, help="bytes that a result may take (default 1M)")
    add("--limit", metavar="SECONDS", type=kit.seconds, default=_LIMIT, help="how long one machine may take")
    add("--timeout", metavar="SECONDS", type=kit.seconds, default=_TIMEOUT, help="how long to wait for workers")
    parser.set_defaults(view=View.LIVE)
    views = parser.add_mutually_exclusive_group()
    for view in (View.PAUSE, View.SNAPSHOT):
        text = f"read each machine {'while it is paused' if view is View.PAUSE else 'from a copy of one moment'}"
        views.add_argument(f"--{view.value}", dest="view", action="store_const", const=view, help=text)
    add("function", metavar="FUNCTION", help="what to run on each machine: see above")
    add("words", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="what the function gets")


def run(options: argparse.Namespace) -> int:
    """Print the lines; how many machines there were, and how many of them were scanned, is said at the end."""
    wanted = functions.wanted(options.function, options.words)
    job = Job(wanted, options.view.value, options.most, options.limit, uuid.uuid4().hex)
    with _engine(options, job.scan) as engine:
        fleet = Fleet(engine, job, kit.say)
        for uri in options.machine or ():
            fleet.add(uri)
        if not options.machine:
            fleet.find(options.driver, options.only)
        failed = _lines(fleet)
    kit.say(f"{len(fleet) - failed} of {len(fleet)} machines scanned")
    return 1 if failed or fleet.missed else 0


def _lines(fleet: Fleet) -> int:
    failed = 0
    with _meter(len(fleet)) as report:
        for at, document in enumerate(fleet.run(), 1):
            failed += "error" in document
            print(json.dumps(document), flush=True)
            report(at)
    return failed


def _meter(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """How far it is, where the lines go elsewhere: at a terminal they tell it."""
    if sys.stdout.isatty():
        return nullcontext(lambda done: None)
    return kit.progress(total, "scanned", "machines")


@contextmanager
def _engine(options: argparse.Namespace, scan: str) -> Iterator[Engine]:
    """Who scans: workers, or this process where there is to be one at a time."""
    if options.scheduler:
        need("distributed")
    workers = options.workers or min(len(os.sched_getaffinity(0)), len(options.machine or ()) or _MOST_WORKERS)
    distributed = library() if options.scheduler or workers > 1 else None
    if distributed is None:
        if workers > 1:
            kit.say("one machine after the other; for several at a time: pip install distributed")
        yield Alone()
        return
    with connected(distributed, options.scheduler, workers, options.timeout, scan) as cluster:
        yield cluster


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes from 1 to {_MOST_WORKERS}")
    return int(text)
