"""A running node: home, keys, network, node, chat, control API, console, put together here and taken apart again.

Used by `join` and `bootstrap`. Ctrl-C (exit 130), SIGTERM and the end of the console (exit 0) end it within 2 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from p2pnode import (
    Address,
    Config,
    InvalidConfigError,
    KeyInUse,
    KeyInUseError,
    Node,
    NodeEvent,
    NodeSettings,
    P2PError,
    PeerSpec,
    Ready,
    RealNetwork,
    StorageError,
)
from p2pnode.api.events import EventFeed
from p2pnode.api.server import ApiServer
from p2pnode.api.service import Service
from p2pnode.chat import MAX_TABLE_BYTES, Chat, ChatSettings, ChatStore, FileSettings, TableRow, parse_table
from p2pnode.cli.collecting import loaded
from p2pnode.cli.commands_run import settings_of
from p2pnode.cli.invocation import Invocation

if TYPE_CHECKING:
    from p2pnode.api.metrics_server import MetricsServer

__all__ = ["Entrance", "Stop", "loop_factory", "run_node", "signals", "watchdog_of"]

log = structlog.get_logger(__name__)

LEAVE_S = 1.9  # leaving may take 2 s; what hangs then (a name server, a disk) is cut off
TABLE_S = 2.0  # how long those of the table may take to answer before we are ready without them
FIND_S = 10.0  # how long `join NAME PEER` looks for PEER
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Entrance:
    """`join NAME PEER [PORT]`: an address to join through whose hall is entered (`where`), or a PEER (`peer`)."""

    where: tuple[str, int] | None = None
    peer: PeerSpec | None = None


class Stop:
    """Why and when to leave. `code` is the exit code; None while running."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.code: int | None = None

    def set(self, code: int) -> None:
        """Leave with `code`; the first reason counts, the second Ctrl-C leaves at once."""
        if self.code is not None:
            os._exit(_INTERRUPTED)
        self.code = code
        self.wanted.set()


def run_node(invocation: Invocation, config: Config, *, role: str, entrance: Entrance | None, console: str) -> int:
    """Run a node until it is stopped; return the exit code. Raise P2PError when it cannot start.

    `console`: `none` (JSON events on stdout), `plain` (line mode) or `auto` (the screen on a terminal).
    """
    settings = settings_of(
        config, role, network_secret=invocation.network_secret(config), records_db=str(invocation.home.records_db)
    )
    table = _table_of(config)
    invocation.set_up_log(config)
    invocation.home.lock()
    try:
        key, account = invocation.keys(config)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            program = _Program(invocation, settings, key, account, entrance, console, config, table)
            try:
                return runner.run(program.run())
            except asyncio.CancelledError:  # Ctrl-C where loops have no signal handlers (Windows)
                return _INTERRUPTED
    finally:
        invocation.home.unlock()


def _table_of(config: Config) -> tuple[TableRow, ...]:
    """Read the file of `--peers`. Raise InvalidConfigError, which names file and line."""
    path: Path | None = config["peers"]
    if path is None:
        return ()
    place = config.settings["peers"].place
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TABLE_BYTES + 1)
    except OSError as exc:
        why = exc.strerror or "not a file"
        raise InvalidConfigError(f"{place}: {path} cannot be read: {why}.", key="peers") from exc
    if len(data) > MAX_TABLE_BYTES:
        raise InvalidConfigError(f"{place}: {path} is larger than {MAX_TABLE_BYTES // 1024} KiB.", key="peers")
    try:
        return parse_table(data.decode(), str(path))
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise InvalidConfigError(f"{path}, line {line}: not UTF-8 text.", file=str(path), line=line) from exc


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Program:
    def __init__(
        self,
        invocation: Invocation,
        settings: NodeSettings,
        key: Any,
        account: Any,
        entrance: Entrance | None,
        console: str,
        config: Config,
        table: tuple[TableRow, ...] = (),
    ) -> None:
        self.table = table
        self.metrics: Address | None = config["metrics"]
        self.downloads = config["downloads"] or invocation.home.path / "downloads"
        self.auto_accept: int = config["auto-accept"]
        self.claim_name: bool = config["claim-name"] and not config["relay-only"]
        self.tell_contacts: bool = config["tell-contacts"]
        self.on_message: str = config["on-message"]
        self.read_receipts: bool = config["read-receipts"]
        self.keep_days: int = config["keep-days"]
        self.bell: bool = config["bell"]
        self.desktop: str = config["desktop-notices"]
        self.invocation = invocation
        self.settings = settings
        self.entrance = entrance
        self.console = console
        self.key = key
        self.account = account
        self.network = RealNetwork()

    async def run(self) -> int:
        stop = Stop()
        with signals(stop):
            store = await ChatStore.open(
                self.invocation.home.chat_db,
                run_blocking=self.network.run_blocking,
                key=self.invocation.database_key(self.key),
            )
            node = Node(
                key=self.key,
                account=self.account,
                settings=self.settings,
                network=self.network,
                state_path=self.invocation.home.state,
            )
            chat = Chat(node, store, self._chat_settings())
            service = Service(node, chat)
            api = ApiServer(service, self.invocation.home)
            feed = EventFeed(service) if self.console == "none" else None
            metrics = None if self.metrics is None else _metrics_server(node, self.metrics)
            hook = asyncio.ensure_future(_hook(chat, node, self.on_message)) if self.on_message else None
            watchdog: threading.Timer | None = None
            try:
                in_use = _stop_when_key_in_use(node, stop)
                work = asyncio.ensure_future(self._work(service, api, feed, stop, metrics))
                waiting = asyncio.ensure_future(stop.wanted.wait())
                await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                watchdog = watchdog_of(stop.code or 0)
                if not work.done():
                    work.cancel()
                await asyncio.gather(work, waiting, return_exceptions=True)
                if not work.cancelled() and (error := work.exception()) is not None:
                    raise error
                if in_use.is_set():
                    raise KeyInUseError(
                        f"Another process has begun to use the key of {node.peer_id}, from a copy of this home perhaps:"
                        " this one has stopped. Run one of them only; for a further device use p2pnode id link."
                    )
                return stop.code or 0
            finally:
                watchdog = watchdog or watchdog_of(1)
                if hook is not None:
                    hook.cancel()
                    await asyncio.gather(hook, return_exceptions=True)
                if feed is not None:
                    feed.close()
                    self._event({"event": "stopping"})
                await self._leave(node, chat, api, metrics, store)
                watchdog.cancel()

    def _chat_settings(self) -> ChatSettings:
        peer = self.settings.role == "peer"  # a bootstrap node is nobody to write to
        files = FileSettings(self.downloads.absolute() if peer else None, self.auto_accept)
        return ChatSettings(
            hall=peer, files=files, table=self.table if peer else (), keep_days=self.keep_days,
            claim_name=peer and self.claim_name, tell_contacts=self.tell_contacts, read_receipts=self.read_receipts,
        )  # fmt: skip

    async def _work(
        self, service: Service, api: ApiServer, feed: EventFeed | None, stop: Stop, metrics: MetricsServer | None
    ) -> None:
        """Start everything, then serve until the console ends or for ever."""
        node, chat = service.node, service.chat
        if metrics is not None:
            await metrics.start()  # first: a port that is taken is known before anybody hears of us
            self.invocation.note(f"Metrics: http://{metrics.address}/metrics")
        await chat.start()
        ready = await node.start()
        await api.start()
        loaded()
        if self.entrance is not None:
            await self._enter(service)
            ready = Ready.of(node)  # whoever came in through somebody is not alone
        if self.table:
            await chat.table.first_round(TABLE_S)
            ready = Ready.of(node)
        if feed is not None:
            # Before the event: whoever waits for that finds what is said to people already there.
            if ready.alone and self.settings.role == "peer":
                self.invocation.note(ready.waiting_sentence())
            if self.settings.role == "bootstrap" and ready.bootstrap:
                self.invocation.note(f"Hand this out: {ready.bootstrap}")
            self._ready_event(node, ready, api)
            async for event in feed:
                self._event(msgspec.to_builtins(event))
            return
        stop.set(130 if await self._console(node, chat, ready) else 0)

    async def _enter(self, service: Service) -> None:
        """Do what PEER [PORT] says: join through it, and enter its hall. Raise P2PError when nobody is there."""
        if self.entrance is None:
            return
        node, chat = service.node, service.chat
        if self.entrance.where is not None:
            chat.enter_hall(await node.join_through(*self.entrance.where))
            return
        spec = self.entrance.peer
        if spec is None:
            return
        for host, port in spec.hosts:
            with contextlib.suppress(P2PError):
                await node.join_through(host, port)
        target = await service.target(spec.text)
        for device in await service.devices(target, timeout=FIND_S):
            chat.enter_hall(device, target.addresses)

    async def _console(self, node: Node, chat: Chat, ready: Ready) -> bool:
        from p2pnode.cli.console import run_console
        from p2pnode.cli.inspection import NodeInspector
        from p2pnode.cli.notices import Calls

        port = _own_port(node)
        return await run_console(
            chat,
            own_port=port,
            addresses=ready.addresses,
            bootstrap=ready.bootstrap,
            alone=ready.alone,
            plain=self.console == "plain",
            inspector=NodeInspector(node),
            input_fd=self.invocation.stdin.fileno(),
            output=self.invocation.stdout,
            hold_log=self.invocation.log_held,
            calls=Calls(self.bell, self.desktop),
        )

    def _ready_event(self, node: Node, ready: Ready, api: ApiServer) -> None:
        self._event(
            {
                "event": "ready",
                "peer_id": str(node.peer_id),
                "user_id": str(node.user_id),
                "addresses": list(ready.addresses),
                "bootstrap": ready.bootstrap,
                "api": api.url,
                "peers": ready.peers,
                "seconds": round(time.monotonic() - self.invocation.started_at, 3),
                "alone": ready.alone,
                "name": self.settings.name,
            }
        )

    def _event(self, event: dict[str, Any]) -> None:
        try:
            self.invocation.line(msgspec.json.encode(event).decode())
        except BrokenPipeError:  # whoever read our events has gone; a service goes on without
            log.warning("event_reader_gone")
            self.invocation.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends

    async def _leave(
        self, node: Node, chat: Chat, api: ApiServer, metrics: MetricsServer | None, store: ChatStore
    ) -> None:
        """Stop in the order in which nothing is lost; each part even when another failed."""
        first = [api.stop(), chat.stop(), *([metrics.stop()] if metrics is not None else [])]
        results: list[object] = [*await asyncio.gather(*first, return_exceptions=True)]
        results += await asyncio.gather(node.stop(), return_exceptions=True)
        results += await asyncio.gather(store.close(), return_exceptions=True)
        for error in results:
            if isinstance(error, StorageError):
                self.invocation.note(f"p2pnode: {error.message}")
            elif isinstance(error, Exception):
                log.error("stop_failed", exc_info=error)


def _stop_when_key_in_use(node: Node, stop: Stop) -> asyncio.Event:
    """Leave when a newer process has our key; the event says that it was so."""
    in_use = asyncio.Event()

    def heard(event: NodeEvent) -> None:
        if isinstance(event, KeyInUse) and stop.code is None:
            in_use.set()
            stop.set(1)

    node.subscribe(heard)
    return in_use


async def _hook(chat: Chat, node: Node, command: str) -> None:
    from p2pnode.cli.message_hook import MessageHook

    await MessageHook(chat, node.peer_id, command).run()


def _metrics_server(node: Node, address: Address) -> MetricsServer:
    from p2pnode.api.metrics_server import MetricsServer

    return MetricsServer(node, address)


@contextlib.contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to leave."""
    loop = asyncio.get_running_loop()
    wanted = {"SIGINT": _INTERRUPTED, "SIGTERM": 0, "SIGHUP": 0}
    installed: list[int] = []
    for name, code in wanted.items():
        number = getattr(signal, name, None)
        if number is None or threading.current_thread() is not threading.main_thread():
            continue
        try:
            loop.add_signal_handler(number, stop.set, code)
        except NotImplementedError:  # Windows: Runner turns Ctrl-C into a cancellation
            continue
        installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


def watchdog_of(code: int) -> threading.Timer:
    """End the process when leaving takes too long: a thread, since the loop itself may be what hangs.

    Nothing is lost by it: what was acknowledged is on the disk (SQLite, synchronous=FULL).
    """

    def end() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(LEAVE_S, end)
    timer.daemon = True
    timer.start()
    return timer


def _own_port(node: Node) -> int:
    """Return the port that others dial, IPv4's when both families have one."""
    return next((local.port for local in node.mux.local), 0)
