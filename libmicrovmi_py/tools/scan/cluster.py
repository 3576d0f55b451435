# SPDX-License-Identifier: Apache-2.0
"""Workers of Dask distributed: those of a scheduler, or as many processes of this host as are asked for."""

from __future__ import annotations

import importlib.util
import logging
import queue
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from libmicrovmi_py.errors import DriverUnavailableError, escaped
from libmicrovmi_py.tools.scan.calls import Failed
from libmicrovmi_py.tools.scan.keys import keys

PRELOAD = "libmicrovmi_py.tools.scan.worker"
_GATHER = 30.0
"""Seconds that an outcome may take to come over, once it is there."""


def library() -> Any | None:
    """Dask distributed, ``None`` if it is not installed. Raises ``DriverUnavailableError`` if it cannot be imported."""
    if importlib.util.find_spec("distributed") is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("distributed")
    except ImportError as err:
        raise DriverUnavailableError(f"Dask distributed cannot be imported: {escaped(str(err))}") from err


class _Call:
    """A future that one worker makes."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def outcome(self) -> object:
        future, self._future = self._future, None
        try:
            return future.result(_GATHER)
        except Exception as err:  # the function's own, or what Dask has for a worker that is gone
            lost = future.status != "error" or type(err).__name__ == "KilledWorker"
            return Failed(escaped(f"{type(err).__name__}: {err}"), lost)
        finally:
            future.release()

    def cancel(self) -> None:
        self._future.cancel()


class Cluster:
    """The engine that its workers are."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._ended: queue.SimpleQueue[_Call] = queue.SimpleQueue()

    def workers(self) -> Mapping[str, int]:
        """Raises ``DriverUnavailableError`` when the scheduler is gone."""
        try:
            return dict(self._client.nthreads())
        except Exception as err:
            raise DriverUnavailableError(f"the scheduler does not answer any more: {escaped(str(err))}") from err

    def call(self, worker: str, function: Callable[..., object], *given: object) -> _Call:
        future = self._client.submit(function, *given, workers=[worker], allow_other_workers=False, pure=False)
        call = _Call(future)
        future.add_done_callback(lambda _: self._ended.put(call))
        return call

    def done(self, seconds: float) -> Iterator[_Call]:
        try:
            yield self._ended.get(timeout=seconds)
            while True:
                yield self._ended.get_nowait()
        except queue.Empty:
            return


@contextmanager
def connected(
    distributed: Any, scheduler: str | None, workers: int, timeout: float, scan: str = ""
) -> Iterator[Cluster]:
    """The workers of that scheduler; without one so many processes of this host, which end with the block.

    With it the machines are closed that they have open for ``scan``.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _client(distributed, scheduler, workers, timeout) as client:
            _wait(client, scheduler, timeout)
            with _ended_with_workers(client, scan):
                yield Cluster(client)


@contextmanager
def _ended_with_workers(client: Any, scan: str) -> Iterator[None]:
    """A worker that ends in order, and all of them at the end of the block, close what they have open for the scan."""
    from libmicrovmi_py.tools.scan.worker import Ending  # which needs Dask

    ending = Ending(scan)
    client.register_plugin(ending)
    try:
        yield
    finally:
        with suppress(Exception):  # the scheduler is gone, and with it its workers
            client.unregister_worker_plugin(ending.name)


def _local(distributed: Any, workers: int, security: Any) -> Any:
    """So many processes of this host."""
    return distributed.LocalCluster(
        preload=PRELOAD,
        memory_limit=0,
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        protocol="tls://",
        security=security,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )


@contextmanager
def _client(distributed: Any, scheduler: str | None, workers: int, timeout: float) -> Iterator[Any]:
    if scheduler is None:
        with (
            keys(distributed) as security,
            _local(distributed, workers, security) as made,
            distributed.Client(made, security=security, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=timeout, set_as_default=False)
    except Exception as err:
        raise DriverUnavailableError(f"there is no scheduler at {scheduler}: {escaped(str(err))}") from err
    with client:
        yield client


def _wait(client: Any, scheduler: str | None, timeout: float) -> None:
    """Until there is a worker. Raises ``DriverUnavailableError``."""
    try:
        client.wait_for_workers(1, timeout=timeout)
    except Exception as err:
        where = scheduler or "localhost"
        raise DriverUnavailableError(
            f"no worker came to the scheduler within {timeout:g} s: dask worker {where}"
        ) from err
