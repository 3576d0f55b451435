# SPDX-License-Identifier: Apache-2.0
"""Bugs of scans and of upstream's names: machines that are told twice or never, matches that are missed."""

from __future__ import annotations

from mutants.mutant import Mutant

SCAN = "libmicrovmi_py/tools/scan"
FLEET, CALLS, JOB, LOOK = f"{SCAN}/fleet.py", f"{SCAN}/calls.py", f"{SCAN}/job.py", f"{SCAN}/look.py"
PATTERNS, PIECES = f"{SCAN}/patterns.py", f"{SCAN}/pieces.py"
PARAMS, MACHINE, STREAMS = (
    "libmicrovmi_py/params.py",
    "libmicrovmi_py/machine/microvmi.py",
    "libmicrovmi_py/compat/streams.py",
)

BOOKS = "tests/tools/test_scan_books.py::test_"
FOUND = "tests/tools/test_scan_patterns.py::test_"
JOBS = "tests/tools/test_scan_job.py::test_"
URIS = "tests/test_params.py::test_"
NAMES = "tests/compat/test_upstream_names.py::test_"

MUTANTS = (
    Mutant(
        CALLS,
        '            self._end(call, Failed("its worker ended", lost=True))\n',
        '            self._end(call, Failed("its worker ended"))\n',
        "machines of a worker that ended are not done again",
        (f"{BOOKS}the_machine_of_a_worker_that_ended_is_done_again_by_another_of_its_host",),
    ),
    Mutant(
        FLEET,
        "        if isinstance(answer, Failed) and answer.lost and self._tries[target.identity] < TRIES:\n",
        "        if isinstance(answer, Failed) and answer.lost:\n",
        "a machine that ends its workers ends all of them",
        (f"{BOOKS}a_machine_that_ends_its_workers_is_given_up_and_the_others_are_scanned",),
    ),
    Mutant(
        FLEET,
        "            elif now - self._left.setdefault(where, now) >= self._patience:\n",
        "            elif False:\n",
        "a scan waits for ever for a host that is gone",
        (f"{BOOKS}machines_of_a_host_without_a_worker_wait_for_one_and_no_longer_than_may_be",),
    ),
    Mutant(
        FLEET,
        "        self.missed.discard(where)\n",
        "",
        "a host is told as missed that is not, and listed three times",
        (f"{BOOKS}each_machine_is_scanned_by_a_worker_of_its_host",),
    ),
    Mutant(
        LOOK,
        "    if len(told) > LONGEST:\n",
        "    if False:\n",
        "a worker's text has any length",
        (f"{BOOKS}a_worker_that_does_not_say_where_it_is_is_not_used",),
    ),
    Mutant(
        JOB,
        "    if not isinstance(answer, bytes) or len(answer) > job.most + ROOM:\n",
        "    if not isinstance(answer, bytes):\n",
        "a worker's answer has any length",
        (f"{BOOKS}what_is_no_answer_is_an_error_of_that_machine",),
    ),
    Mutant(
        JOB,
        "        if target.process_id and (process is None or process.start_time != target.started):\n",
        "        if False:\n",
        "a machine of the same name is taken for one that ended",
        (f"{JOBS}a_machine_that_cannot_be_read_is_told_with_its_reason",),
    ),
    Mutant(
        JOB,
        "    for machine in machines:\n        machine.close()\n",
        "",
        "a scan that is ended leaves machines paused",
        (f"{JOBS}a_scan_that_is_ended_has_its_machines_closed_and_opens_no_more",),
    ),
    Mutant(
        JOB,
        "        left -= len(text) + 2\n",
        "        left = most\n",
        "what a function yields takes all memory",
        (f"{JOBS}items_are_taken_until_there_are_more_than_may_be",),
    ),
    Mutant(
        PATTERNS,
        "            if start >= own:\n                return\n",
        "",
        "matches at the edges of pieces are told twice",
        (f"{FOUND}matches_at_the_edges_of_pieces_and_of_memory_are_found_once",),
    ),
    Mutant(
        PIECES,
        "        begin, last = max(at - around, start), min(hole + around, end)\n",
        "        begin, last = at, hole\n",
        "matches that reach into zeros are missed",
        (f"{FOUND}matches_reach_into_holes",),
    ),
    Mutant(
        PARAMS,
        '    return {**values, REPEATED: ",".join(filter(None, items))} if items else values\n',
        "    return {**values, REPEATED: items[0]} if items else values\n",
        "of the connector's arguments but one is lost",
        (f"{URIS}texts_that_name_a_machine",),
    ),
    Mutant(
        MACHINE,
        "            self._streams = [ref for ref in self._streams if ref() is not None] + [weak(stream)]\n",
        "",
        "a stream reads a machine that was closed",
        ("tests/test_microvmi.py::test_streams_of_the_caller_s_own_are_closed_with_the_machine",),
    ),
    Mutant(
        STREAMS,
        "    def close(self) -> None:\n",
        "    def finish(self) -> None:\n",
        "what closes the stream of upstream's machine has none any more",
        (f"{NAMES}streams_are_readable_after_they_were_closed",),
    ),
)
