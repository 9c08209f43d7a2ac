"""All fuzz targets by name."""

from __future__ import annotations

from targets import (
    api,
    chat,
    core,
    devices,
    dht,
    dht_node,
    files,
    gossip,
    history,
    ice,
    lan,
    links,
    mail,
    nat,
    networks,
    node,
    portmap,
    quic,
    relay,
    rooms,
    strangers,
)  # fmt: skip
from targets.base import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        core,
        dht,
        dht_node,
        nat,
        ice,
        quic,
        node,
        lan,
        links,
        networks,
        portmap,
        relay,
        chat,
        devices,
        files,
        gossip,
        history,
        mail,
        rooms,
        strangers,
        api,
    )
    for target in module.TARGETS
}
