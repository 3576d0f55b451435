# SPDX-License-Identifier: Apache-2.0
"""A host that is a Python itself and uses the library through ctypes. Run by any Python 3, silent when it works.

host.py LIBRARY works|refused|locked|leaves URI|interrupted URI
"""

import ctypes
import datetime
import os
import signal
import sys
import threading
import time

FAKE = b"vmi://fake/"
STARTUP = 13


def load(path: str, loader: "type[ctypes.CDLL]" = ctypes.CDLL) -> ctypes.CDLL:
    library = loader(path)
    pointer = ctypes.POINTER(ctypes.c_char_p)
    library.microvmi_open.restype = ctypes.c_void_p
    library.microvmi_open.argtypes = [ctypes.c_char_p, pointer]
    library.microvmi_destroy.argtypes = [ctypes.c_void_p]
    library.microvmi_read_physical.restype = ctypes.c_bool
    library.microvmi_read_physical.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_uint64),
    ]
    for name in ("microvmi_last_error", "microvmi_version", "microvmi_build_info"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def use(library: ctypes.CDLL, frame: int) -> None:
    """Open the fake machine and read one of its frames, which holds its own number over and over."""
    error = ctypes.c_char_p()
    machine = library.microvmi_open(FAKE, ctypes.byref(error))
    assert machine, error.value
    buffer = ctypes.create_string_buffer(4096)
    count = ctypes.c_uint64()
    assert library.microvmi_read_physical(machine, frame << 12, buffer, 4096, ctypes.byref(count))
    assert buffer.raw == frame.to_bytes(8, "little") * 512
    library.microvmi_destroy(machine)


def use_in_threads(library: ctypes.CDLL) -> None:
    """Sixteen threads make the first call."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(16)

    def run(frame: int) -> None:
        barrier.wait()
        try:
            use(library, frame)
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=run, args=(frame,)) for frame in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def touch_capsules() -> None:
    """Give the type of capsules a version tag, as any look-up of an attribute does before Python 3.12."""
    capsule = vars(datetime)["datetime_CAPI"]
    for _ in range(2000):
        assert not hasattr(capsule, "no_such_attribute")
        capsule.__class__.__name__  # noqa: B018


def state() -> object:
    """What belongs to the host."""
    return (
        list(sys.path),
        list(sys.meta_path),
        list(sys.path_hooks),
        signal.getsignal(signal.SIGINT),
        os.getcwd(),
        dict(os.environ),
        sys.excepthook,
        sys.stderr,
    )


def works(path: str) -> None:
    touch_capsules()
    before = state()
    library = load(path)
    use_in_threads(library)
    use(library, 3)
    assert state() == before


def refused(path: str) -> None:
    library = load(path)
    for _ in range(2):
        error = ctypes.c_char_p()
        assert not library.microvmi_open(FAKE, ctypes.byref(error))
        text = (error.value or b"").decode()
        assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in text, text
        assert library.microvmi_last_error_code() == STARTUP
    assert library.microvmi_version()
    assert library.microvmi_build_info()


def locked(path: str) -> None:
    """Callers that hold the GIL, as an extension module may: none waits for a thread that needs it."""
    use_in_threads(load(path, ctypes.PyDLL))


def leaves(path: str, uri: str) -> None:
    """End with a paused machine."""
    library = load(path)
    library.microvmi_pause.restype = ctypes.c_bool
    library.microvmi_pause.argtypes = [ctypes.c_void_p]
    assert library.microvmi_pause(library.microvmi_open(uri.encode(), None))


def interrupted(path: str, uri: str) -> None:
    """Ctrl-C while a slow call is under way: the call fails, and the program gets its interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    library = load(path)
    machine = library.microvmi_open(uri.encode(), None)
    buffer = ctypes.create_string_buffer(1 << 20)  # five seconds, if nothing comes between
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        done = library.microvmi_read_physical(machine, 0, buffer, 1 << 20, None)
        assert not done
        time.sleep(5)
    except KeyboardInterrupt:
        library.microvmi_destroy(machine)
        return
    raise AssertionError("the interrupt was lost")


if __name__ == "__main__":
    if sys.argv[2] in ("leaves", "interrupted"):
        {"leaves": leaves, "interrupted": interrupted}[sys.argv[2]](sys.argv[1], sys.argv[3])
    else:
        {"works": works, "refused": refused, "locked": locked}[sys.argv[2]](sys.argv[1])
