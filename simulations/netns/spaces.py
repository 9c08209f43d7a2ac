"""Network namespaces without names: each lives as long as a file descriptor of ours, or a process inside.

Nothing is left behind by a crash, since there is nothing but descriptors: no /run/netns, no holder processes.
A thread enters a namespace alone (setns works per thread), so one process has sockets in all of them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

from p2pnode.simulations.netns.errors import LabError

__all__ = ["Space", "check_possible", "find_tool"]

T = TypeVar("T")

# Fixed by the kernel (sched.h, if_tun.h)
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000

# What the laboratory runs, and the Debian package it comes in
_TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
}
# Only some kinds of routers need these
_EXTRA_TOOLS = {"miniupnpd": "miniupnpd-nftables"}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # absent from the search path of ordinary users
_TUN_DEVICE = "/dev/net/tun"
# No router solicitations, and addresses usable at once: nobody else has them
_QUIET_IPV6 = {f"{which}/{name}": "0" for which in ("all", "default") for name in (
    "accept_ra", "router_solicitations", "accept_dad", "dad_transmits", "autoconf",
)}  # fmt: skip


class Space:
    """One network namespace, with loopback up and nothing else."""

    def __init__(self, *, ipv6: bool = False) -> None:
        """`ipv6`: with IPv6; addresses and routes are given, none are made up. Raise LabError without the privilege."""
        try:
            self._fd = _in_thread(_new_namespace)
            settings = _QUIET_IPV6 if ipv6 else {"all/disable_ipv6": "1"}
            for name, value in settings.items():
                self.write(f"ipv6/conf/{name}", value)
            self.ip("link set lo up")
        except OSError as exc:
            raise _not_possible(exc) from exc

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread of its own inside, and return its result: sockets that it opens stay inside."""
        return _in_thread(lambda: self._entered(function))

    def enter(self) -> None:
        """Move the calling thread inside, for good."""
        setns(self._fd)

    def _entered(self, function: Callable[[], T]) -> T:
        self.enter()
        return function()

    @property
    def path(self) -> str:
        """Where other programs find it (`nsenter --net=PATH`) while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def ip(self, *commands: str) -> None:
        """Run commands of iproute2, in one process. Raise LabError."""
        self._tool(["ip", "-batch", "-"], "\n".join(commands))

    def nft(self, ruleset: str) -> None:
        """Load nftables rules. Raise LabError."""
        self._tool(["nft", "-f", "-"], ruleset)

    def _tool(self, argv: list[str], text: str) -> None:
        program = find_tool(argv[0])
        done = self.run(
            lambda: subprocess.run(  # noqa: S603 - our own words, no shell
                [program, *argv[1:]], input=text.encode(), capture_output=True, timeout=20, check=False
            )
        )
        if done.returncode != 0:
            first = (done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"])[0]
            raise LabError(f"{argv[0]} refuses to set up the laboratory: {first[:300]}")

    def write(self, name: str, value: str) -> None:
        """Set /proc/sys/net/NAME. Raise OSError."""

        def write() -> None:
            with open(f"/proc/sys/net/{name}", "w") as file:
                file.write(value)

        self.run(write)

    def read(self, name: str) -> str:
        """Return /proc/sys/net/NAME. Raise OSError."""

        def read() -> str:
            with open(f"/proc/sys/net/{name}") as file:
                return file.read().strip()

        return self.run(read)

    def udp_socket(self, ip: str = "0.0.0.0", port: int = 0) -> socket.socket:
        """Return a bound UDP socket inside."""

        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
            try:
                made.bind((ip, port))
            except OSError:
                made.close()
                raise
            return made

        return self.run(bind)

    def tun(self, name: str) -> int:
        """Make a TUN device inside and return its descriptor, non-blocking; packets carry no extra header."""

        def make() -> int:
            fd = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))
            except OSError:
                os.close(fd)
                raise
            return fd

        try:
            return self.run(make)
        except OSError as exc:
            raise _not_possible(exc) from exc

    def close(self) -> None:
        """Let go of it; it ends with the last process inside. Twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check_possible() -> None:
    """Raise LabError with what is missing: Linux, a tool (and its package), the privilege, the TUN device."""
    if not hasattr(socket, "AF_NETLINK"):
        raise LabError("The laboratory needs Linux: its hosts and routers are network namespaces.")
    for tool in _TOOLS:
        find_tool(tool)
    space = Space()
    try:
        os.close(space.tun("probe0"))
    finally:
        space.close()


def find_tool(name: str) -> str:
    """Return the path of a program. Raise LabError with the package to install."""
    path = shutil.which(name) or shutil.which(name, path=_SBIN)
    if path is None:
        package = {**_TOOLS, **_EXTRA_TOOLS}.get(name, name)
        raise LabError(f"The program {name} is missing; install it: apt-get install {package}")
    return path


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace that `fd` refers to."""
    _libc("setns", fd, _CLONE_NEWNET)


def _new_namespace() -> int:
    _libc("unshare", _CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _libc(name: str, *arguments: int) -> None:
    # os.unshare and os.setns come with Python 3.12
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def _in_thread(function: Callable[[], T]) -> T:
    """Call in a thread of its own, whose namespace ends with it."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller
            errors.append(exc)

    thread = threading.Thread(target=call, daemon=True)  # a Ctrl-C does not wait for what is under way
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _not_possible(exc: OSError) -> LabError:
    if exc.filename == _TUN_DEVICE:
        return LabError(
            f"The laboratory's wire needs {_TUN_DEVICE} ({exc.strerror}): run as root, load the module tun,"
            " or give users access to the device."
        )
    if exc.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return LabError(
            "The laboratory makes network namespaces, which this system allows neither to you nor in a user namespace"
            f" ({exc.strerror}); run it as root."
        )
    return LabError(f"The kernel cannot make the laboratory's network namespaces: {exc.strerror}.")
