# SPDX-License-Identifier: Apache-2.0
"""Bugs of the Python side of regions, of when pages are kept, and of who undoes what."""

from mutants.mutant import Mutant

DIRECT = "libmicrovmi_py/memory/direct.py"
STALE = "tests/memory/test_stale_streams.py"
FAILURES = "tests/contract/test_contract_failures.py"
CHILD = "tests/test_microvmi.py::test_the_end_of_the_process_resumes_but_not_that_of_a_child"

MUTANTS = (
    Mutant(
        DIRECT,
        "        if code:\n            raise read_error(code, address, len(buffer), done)\n\n    def _read(",
        "        if code:\n            raise read_error(code, address, len(buffer), 0)\n\n    def _read(",
        "completed of a failed padded read is 0",
        (f"{FAILURES}::test_errors_of_python_tell_the_same[qemu-running]",),
    ),
    Mutant(
        DIRECT,
        "    return Result(done, read_error(code, address, memoryview(buffer).nbytes, done))",
        "    return Result(done, read_error(code, address, memoryview(buffer).nbytes, 0))",
        "batch: an error of one request says that nothing was read",
        (f"{FAILURES}::test_so_do_results_of_a_batch[qemu-running]",),
    ),
    Mutant(
        DIRECT,
        "            del target  # the error's traceback holds this frame: see _address()\n",
        "",
        "an error of a stream that is kept crashes the host",
        (
            f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected[qemu-running]",
            f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected[qemu-paused]",
        ),
    ),
    Mutant(
        "libmicrovmi_py/machine/keeping.py",
        "physical.keep_pages(size if wanted else 0)",
        "physical.keep_pages(size)",
        "pages are still served from the cache after the machine runs",
        (f"{STALE}::test_a_stream_follows_pause_and_resume",),
    ),
    Mutant(
        "libmicrovmi_py/machine/release.py",
        "for machine, pid in list(_touched.values()) if pid == os.getpid()], timeout)",
        "for machine, pid in list(_touched.values())], timeout)",
        "a forked Python child undoes at its exit what its parent did",
        (CHILD,),
        "each machine asks by itself whether what was done is this process's (is_ours)",
    ),
)
