"""TLS links in words, for `status` and `peers -v`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode.cli.output import age, size, table

if TYPE_CHECKING:
    from p2pnode.api.types import LinkInfo, LinkSummary

__all__ = ["link_line", "links_line", "links_table"]


def links_line(links: LinkSummary) -> str:
    """Return, for `status`, `3 to public nodes, 1 punched, 2 of them through a proxy: 12.0 kB`."""
    counts = ((links.ours, "to public nodes"), (links.theirs, "of others to us"), (links.punched, "punched"))
    text = ", ".join(f"{count} {what}" for count, what in counts if count)
    if not text:
        return "none"
    proxied = f", {links.proxied} through a proxy" if links.proxied else ""
    return f"{text}{proxied}: {size(links.bytes_sent + links.bytes_received)}"


def link_line(link: LinkInfo) -> str:
    """Return what `peers -v` says of the link that carries a session."""
    proxy = " through the proxy" if link.proxy else ""
    return f"by TLS to {link.address}{proxy}: {size(link.bytes_sent)} sent, {size(link.bytes_received)} received"


def links_table(links: list[LinkInfo]) -> list[str]:
    """Return a line for each link, below headings."""
    rows = [("TLS LINK", "PEER", "ADDRESS", "PROXY", "OPEN", "SENT", "RECEIVED")]
    rows += [
        (
            link.kind,
            link.peer or "-",
            link.address,
            "yes" if link.proxy else "no",
            age(link.age_s),
            size(link.bytes_sent),
            size(link.bytes_received),
        )
        for link in links
    ]
    return list(table(rows))
