# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of the tests' own, with machines without KVM, and libvirt's own word about them.

It sees nothing of a libvirtd that the system has, nor is it seen: as the system's it runs within mounts of its own,
with all its folders in one of ours; as a session's it belongs to a user who has no other.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from xml.sax.saxutils import escape

from needs import missing

from libmicrovmi_py import Microvmi

from .guest import QEMU, SOCKET_SECONDS, Boot
from .initramfs import READY

QEMU_USER = 64055
SESSION_USER = 65534
"""One that every system knows, as libvirt looks it up."""

PACKERS = ("gzip", "bzip2", "xz", "lzop", "zstd")
"""Programs that it packs saved machines with, if they are there."""

_FOLDERS = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt"}
_FOLDERS |= {"log": "/var/log/libvirt"}

_SETUP = """
set -e
PATH={path}
{binds}
mount --bind {home}/passwd /etc/passwd
mount --bind {home}/group /etc/group
if [ -e /dev/kvm ]; then mount --bind {home}/no-kvm /dev/kvm; fi
PATH={home}/bin
exec {run}
"""
"""Without /dev/kvm, which libvirt may use and its QEMU may not: it would ask QEMU what it can at every start."""

_DAEMON = """
unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0777"
unix_sock_group = "root"
"""

_QEMU = """
security_driver = "none"
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""

_DOMAIN = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>{mib}</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>
  <features><acpi/><apic/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <serial type='file'><source path='{console}'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  {more}
</domain>
"""
_BOOT = "<kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{line}</cmdline>"


class Libvirtd:
    """From ``with`` on until the end of the block, with all machines that it made. As root it is the system's."""

    _process: subprocess.Popen[bytes]

    def __init__(self, user: int | None = None, *, more: str = "") -> None:
        """``user`` is whose session's it is; ``None`` for the system's, or for our own session if we are not root.

        ``more`` are settings for its QEMUs.
        """
        self._more = more
        for program in ("libvirtd", "virsh", "setpriv", "unshare"):
            _program(program)
        self.user = user if user is not None else os.geteuid()
        self.home = Path(tempfile.mkdtemp(prefix="microvmi-libvirt-"))
        self.domains: list[Domain] = []
        self.is_system = self.user == 0
        for name in (*_FOLDERS, "sockets", "bin", "session"):
            (self.home / name).mkdir()
        for place in (self.home, *self.home.iterdir()):
            place.chmod(0o755)
            os.chown(place, self.user, -1)
        (self.home / "open").mkdir()
        (self.home / "open").chmod(0o777)
        (self.home / "bin" / QEMU).symlink_to(_program(QEMU))
        for name in PACKERS:
            if found := shutil.which(name):
                (self.home / "bin" / name).symlink_to(found)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return (self.home / "sockets" if self.is_system else self.home / "session" / "libvirt") / "libvirt-sock"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What tells the programs of its user where it is."""
        names = {"XDG_RUNTIME_DIR": "session", "XDG_CONFIG_HOME": "etc", "XDG_CACHE_HOME": "cache"}
        folders = {name: str(self.home / folder) for name, folder in names.items()}
        return {**folders, "HOME": str(self.home), "PATH": f"{self.home}/bin"}

    def start(self) -> None:
        """Start it, or start it again after its end, and wait until it answers."""
        if hasattr(self, "_process") and self._process.poll() is None:
            raise RuntimeError(f"libvirtd runs already, as process {self.pid}")
        log = (self.home / "messages").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command(), env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        end = time.monotonic() + SOCKET_SECONDS
        while self.virsh("list", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.home / "messages").read_text())
            time.sleep(0.05)

    def _command(self) -> list[str]:
        limits = [
            _absolute("sh"),
            "-c",
            'ulimit -n 1024; exec "$@"',
            "sh",
        ]  # it closes all that it may have, one by one
        limits += [_program("setpriv"), "--pdeathsig", "KILL"]
        return limits + (self._as_system() if self.is_system else self._as_session())

    def _as_session(self) -> list[str]:
        settings = self.home / "etc" / "libvirt"
        settings.mkdir(exist_ok=True)
        (settings / "qemu.conf").write_text('stdio_handler = "file"\n' + self._more)
        (self.home / "session").chmod(0o700)
        become = []
        if os.geteuid() == 0:
            os.chown(settings, self.user, -1)
            become = ["--reuid", str(self.user), "--regid", str(self.user), "--clear-groups"]
        return [*become, _program("libvirtd")]

    def _as_system(self) -> list[str]:
        (self.home / "etc" / "libvirtd.conf").write_text(_DAEMON.format(sockets=self.home / "sockets"))
        (self.home / "etc" / "qemu.conf").write_text(_QEMU + self._more)
        for name, line in (("passwd", f"{QEMU_USER}:{QEMU_USER}::/:/bin/false"), ("group", f"{QEMU_USER}:")):
            known = [row for row in Path("/etc", name).read_text().splitlines() if not row.startswith("libvirt-qemu:")]
            (self.home / name).write_text("\n".join([*known, f"libvirt-qemu:x:{line}", ""]))
        (self.home / "no-kvm").touch(0o600)
        for place in _FOLDERS.values():
            Path(place).mkdir(parents=True, exist_ok=True)
        binds = "\n".join(f"mount --bind {self.home / name} {place}" for name, place in _FOLDERS.items())
        run = f"{_program('libvirtd')} -f {self.home}/etc/libvirtd.conf -p {self.home}/pid"
        script = _SETUP.format(path=os.environ["PATH"], home=self.home, binds=binds, run=run)
        return [_program("unshare"), "-m", _absolute("sh"), "-c", script]

    def virsh(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of virsh."""
        done = subprocess.run(self.virsh_command(*words), capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def virsh_command(self, *words: str) -> list[str]:
        """It, as virsh is to be started."""
        kind = "system" if self.is_system else "session"
        return [_program("virsh"), "-q", "-c", f"qemu+unix:///{kind}?socket={self.socket}", *words]

    def restart(self, more: str = "") -> None:
        """End it and start it with these settings for its QEMUs; its machines go on, and are its own again."""
        self._more = more
        self.kill()
        self.start()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and wait for its end if that ends it."""
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()

    def __enter__(self) -> Libvirtd:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for domain in self.domains:
            domain.end()
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class Domain:
    """A machine of libvirt's."""

    def __init__(
        self, libvirtd: Libvirtd, name: str, boot: Boot | None = None, *, mib: int = 256, more: str = ""
    ) -> None:
        """``more`` goes into the domain's description."""
        self.libvirtd = libvirtd
        self.name = name
        self._console = libvirtd.home / f"console-{name}"
        self._console.touch()
        self._console.chmod(0o666)
        text = _DOMAIN.format(
            name=name, mib=mib, boot=self._boot(boot), emulator=_program(QEMU), more=more, console=self._console
        )
        description = libvirtd.home / f"{name}.xml"
        description.write_text(text)
        libvirtd.domains.append(self)
        libvirtd.virsh("create", str(description), *([] if boot else ["--paused"]))
        self.uuid = libvirtd.virsh("domuuid", name).stdout.strip()
        self.pid = _process_of(self.uuid)
        end = time.monotonic() + 120
        while boot and READY not in self._console.read_text(errors="replace"):
            assert time.monotonic() < end, self._console.read_text()[-2000:]
            time.sleep(0.05)

    def _boot(self, boot: Boot | None) -> str:
        """A kernel where QEMU's user may read it."""
        if boot is None:
            return ""
        for source, name in ((boot.kernel, "kernel"), (boot.initrd, "initrd")):
            shutil.copyfile(source, self.libvirtd.home / name)
            (self.libvirtd.home / name).chmod(0o644)
        line = f"console=ttyS0 quiet panic=-1 nokaslr live_name={self.name} "
        return _BOOT.format(
            kernel=self.libvirtd.home / "kernel", initrd=self.libvirtd.home / "initrd", line=escape(line)
        )

    def open(self, name: str = "", *, socket: str = "", timeout: float = 10) -> Microvmi:
        """Open it, by its name and its libvirtd if nothing else is given."""
        place = socket or self.libvirtd.socket
        return Microvmi(name or self.name, driver="qemu", libvirt=place, timeout=timeout)

    def events(self, act: Callable[[], object]) -> list[str]:
        """What libvirt tells of its life while something is done."""
        with _Listener(self) as listener:
            act()
            lines = listener.heard()
        return [line.rpartition(": ")[2] for line in lines if "'lifecycle'" in line]

    def state(self) -> str:
        """What libvirt says that it does, and why."""
        return self.libvirtd.virsh("domstate", "--reason", self.name).stdout.strip()

    def human(self, line: str) -> str:
        """A command of the human monitor, by libvirt."""
        return self.libvirtd.virsh("qemu-monitor-command", "--hmp", self.name, "--cmd", line).stdout.replace(
            "\r\n", "\n"
        )

    def end(self) -> None:
        """End its QEMU."""
        for pid in _processes_of(getattr(self, "uuid", "")):
            os.kill(pid, signal.SIGKILL)


class _Listener:
    """A virsh that prints what libvirt tells of a domain, from the begin of a block on.

    Marks of our own, changes of the domain's description, say when it has begun to listen, and that it has heard all.
    It prints on a terminal, as it keeps what it prints anywhere else.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._text = ""

    def __enter__(self) -> _Listener:
        self._terminal, theirs = os.openpty()
        command = self._domain.libvirtd.virsh_command("event", "--domain", self._domain.name, "--all", "--loop")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            self._await_mark("urn:before")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def heard(self) -> list[str]:
        """Its lines until now."""
        self._await_mark("urn:after")
        return self._text.rpartition("urn:before")[2].partition("urn:after")[0].splitlines()

    def _await_mark(self, mark: str) -> None:
        """Make it, again and again, until it is heard."""
        end = time.monotonic() + SOCKET_SECONDS
        while mark not in self._text:
            assert time.monotonic() < end, f"libvirt tells no event: {self._text}"
            self._domain.libvirtd.virsh("metadata", self._domain.name, mark, "--key", "mark", "--set", "<mark/>")
            while select.select([self._terminal], [], [], 0.2)[0]:
                self._text += os.read(self._terminal, 4096).decode()

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


def _process_of(uuid: str) -> int:
    (pid,) = _processes_of(uuid)
    return pid


def _processes_of(uuid: str) -> Sequence[int]:
    """The QEMUs of that UUID that libvirt started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if uuid and uuid.encode() in words and b"socket,id=charmonitor" in b" ".join(words):
            found.append(int(place.name))
    return found


def _absolute(name: str) -> str:
    return shutil.which(name) or f"/bin/{name}"


def _program(name: str) -> str:
    """Where a program is; those of administrators are not on everybody's path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        missing(f"no {name}: apt-get install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt0")
    return found
