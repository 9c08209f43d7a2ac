"""Operations on files: offer, list, accept, refuse, cancel."""

from __future__ import annotations

from collections.abc import Callable

from p2pnode import PeerId, UserId
from p2pnode.api import file_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.api.types import rfc3339
from p2pnode.chat import Party, Transfer
from p2pnode.chat.files.text import is_personal, state_text

__all__ = ["ROUTES", "file_info"]


def file_info(transfer: Transfer, display_name: Callable[[Party], str]) -> t.FileInfo:
    """Return a transfer as the API shows it."""
    party = transfer.party
    return t.FileInfo(
        id=transfer.id,
        direction="out" if transfer.outgoing else "in",
        peer=str(party) if transfer.outgoing and isinstance(party, PeerId) else str(transfer.author),
        user=str(party) if isinstance(party, UserId) else None,
        with_name=display_name(party),
        name=transfer.name,
        folder=transfer.folder,
        size=transfer.size,
        files=transfer.count,
        done=transfer.done,
        state=transfer.state,
        reason=transfer.reason,
        text=state_text(transfer),
        path=transfer.path or None,
        rate=round(transfer.rate, 1),
        eta_s=None if transfer.eta_s is None else round(transfer.eta_s, 1),
        created_at=rfc3339(transfer.created_at),
        changed_at=rfc3339(transfer.changed_at),
        room=None if is_personal(transfer) else str(party),
        receivers=[_receiver(each, display_name) for each in transfer.receivers],
    )


def _receiver(transfer: Transfer, display_name: Callable[[Party], str]) -> t.FileReceiver:
    who = transfer.receiver or transfer.party
    return t.FileReceiver(
        id=transfer.id,
        user=str(who),
        name=display_name(who),
        done=transfer.done,
        state=transfer.state,
        reason=transfer.reason,
        text=state_text(transfer),
        rate=round(transfer.rate, 1),
        eta_s=None if transfer.eta_s is None else round(transfer.eta_s, 1),
    )


async def send_file(service: Service, request: t.FileSend) -> t.FileInfo:
    """Offer a file or folder to somebody, or to each member of a room; it is looked through in the background."""
    party, addresses = await service.conversation(request.peer)
    transfer = await service.chat.files.send(party, request.path, addresses=addresses)
    return file_info(transfer, service.chat.display_name)


async def list_files(service: Service, request: t.FilesQuery) -> t.Files:
    """Return the newest transfers, and all that are not over."""
    found = await service.chat.files.transfers(request.limit)
    return t.Files([file_info(transfer, service.chat.display_name) for transfer in found])


async def show_file(service: Service, request: t.FileQuery) -> t.FileInfo:
    """Return one transfer, with rate and time to go."""
    return file_info(await service.chat.files.transfer(request.id), service.chat.display_name)


async def accept_file(service: Service, request: t.FileName) -> t.FileInfo:
    """Fetch what is offered; one that waits is tried again at once."""
    return file_info(await service.chat.files.accept(request.id), service.chat.display_name)


async def refuse_file(service: Service, request: t.FileName) -> t.FileInfo:
    """Do not take what is offered, or no longer."""
    return file_info(await service.chat.files.refuse(request.id), service.chat.display_name)


async def cancel_file(service: Service, request: t.FileName) -> t.FileInfo:
    """Take an offer back, or give up what is under way."""
    return file_info(await service.chat.files.cancel(request.id), service.chat.display_name)


ROUTES = [
    Route("POST", "/v1/files", "Offer a file or folder", send_file, t.FileSend, t.FileInfo),
    Route("GET", "/v1/files", "Transfers", list_files, t.FilesQuery, t.Files),
    Route("GET", "/v1/files/one", "One transfer", show_file, t.FileQuery, t.FileInfo),
    Route("POST", "/v1/files/accept", "Accept a file", accept_file, t.FileName, t.FileInfo),
    Route("POST", "/v1/files/refuse", "Refuse a file", refuse_file, t.FileName, t.FileInfo),
    Route("POST", "/v1/files/cancel", "Cancel a transfer", cancel_file, t.FileName, t.FileInfo),
]
