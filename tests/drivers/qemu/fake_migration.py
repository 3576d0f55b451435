# SPDX-License-Identifier: Apache-2.0
"""Migrations of the program that looks like QEMU: into a descriptor that was handed over, and what is set for them.

``-fake migration=WHAT`` spoils them: ``refused``, ``early`` (it fails before it lets the machine run again), ``cut``
(it fails after a few pages), ``holes`` (a page is missing), ``slow``. ``-fake version=N`` is QEMU's version, 7 if not
given.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from drivers.qemu.device_states import state
from drivers.qemu.fake_vcpus import Vcpus
from drivers.qemu.migration_stream import PAGE, head, over, page, part

PARAMETERS = {"max-bandwidth": 1 << 27, "tls-creds": ""}


class Migrations:
    """What the machine does with them. ``blocks`` are those of its memory, by the names in the stream."""

    def __init__(self, fakes: list[str], vcpus: Vcpus, run: Callable[[bool], None]) -> None:
        self.fakes = dict(fake.split("=", 1) for fake in fakes if "=" in fake)
        self.vcpus = vcpus
        self.run = run
        self.blocks: Mapping[str, bytes] = {}
        self.capabilities = {"xbzrle": False, "events": False, "background-snapshot": False}
        self.status = ""

    def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        """The answer of a command that is about migrations; ``None`` if it is about something else."""
        how = self.fakes.get("migration", "")
        if command == "query-version":
            return {"qemu": {"major": int(self.fakes.get("version", 7)), "minor": 2, "micro": 0}}
        if command == "query-migrate" and self.status:
            return {"status": self.status, **({"downtime": 3} if self.status == "completed" else {})}
        if command == "query-migrate-capabilities":
            return [{"capability": name, "state": on} for name, on in self.capabilities.items()]
        if command == "query-migrate-parameters":
            return PARAMETERS
        if command == "migrate-set-capabilities":
            assert self.status != "active"
            self.capabilities |= {item["capability"]: item["state"] for item in arguments["capabilities"]}
            return {}
        if command == "migrate":
            if how == "refused":
                raise LookupError("State blocked by a device")
            return self.migrate(arguments["uri"], how)
        return None

    def migrate(self, uri: str, how: str) -> dict[str, Any]:
        if uri.startswith("fd:"):
            fd = self.vcpus.named.pop(uri.removeprefix("fd:"))
        else:
            fd = os.dup(self.vcpus.sets[int(uri.removeprefix("file:/dev/fdset/"))][0])
        assert self.capabilities["background-snapshot"]
        self.status = "active"
        threading.Thread(target=self.write, args=(fd, how), daemon=True).start()
        return {}

    def write(self, fd: int, how: str) -> None:
        """All of the stream, at the pace that is asked for."""
        os.write(fd, head({name: len(content) for name, content in self.blocks.items()}) + over())
        self.run(False)
        if how != "early":
            registers = state(self.vcpus.vcpus)[8:]
            self.run(True)
            self.write_pages(fd, how)
            if how != "cut":
                os.write(fd, registers)
        self.status = "failed" if how in ("early", "cut") else "completed"
        os.close(fd)

    def write_pages(self, fd: int, how: str) -> None:
        os.write(fd, part())
        for name, content in self.blocks.items():
            for at in range(0, 2 * PAGE if how == "cut" else len(content), PAGE):
                if how == "holes" and at == 5 * PAGE:
                    continue
                os.write(fd, page(at, content[at : at + PAGE], name))
                if how == "slow" and at % (8 * PAGE) == 0:
                    time.sleep(0.02)
        os.write(fd, over())
