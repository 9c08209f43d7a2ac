"""Which addresses a node calls its own."""

from p2pnode.addresses import own_addresses
from p2pnode.core.address import Address, Realm
from p2pnode.core.network import Interface

INTERFACES = [
    Interface("lo", ("127.0.0.1", "::1")),
    Interface("eth0", ("192.168.1.7", "fe80::1", "2a00::7")),
    Interface("doc", ("203.0.113.7",)),
]


def test_wildcard_stands_for_every_interface_of_its_family() -> None:
    """Each realm gets its own addresses, link-local and documentation ones are left out."""
    own = own_addresses([Address("0.0.0.0", 4747), Address("::", 4748)], INTERFACES)
    assert own == {
        Realm.LOOPBACK: (Address("127.0.0.1", 4747), Address("::1", 4748)),
        Realm.PRIVATE: (Address("192.168.1.7", 4747),),
        Realm.PUBLIC: (Address("2a00::7", 4748),),
    }


def test_bound_address_stands_for_itself() -> None:
    """A node bound to one loopback address has just that."""
    assert own_addresses([Address("127.0.0.3", 5)], INTERFACES) == {Realm.LOOPBACK: (Address("127.0.0.3", 5),)}


def test_laboratories_may_use_documentation_addresses() -> None:
    """With the setting they are public; IPv4 comes first."""
    own = own_addresses([Address("::", 1), Address("0.0.0.0", 1)], INTERFACES, allow_documentation=True)
    assert own[Realm.PUBLIC] == (Address("203.0.113.7", 1), Address("2a00::7", 1))


def test_vpn_and_container_addresses_are_not_ours_to_tell() -> None:
    """A wildcard does not stand for them; binding to one of them does."""
    interfaces = [*INTERFACES, Interface("docker0", ("172.17.0.1",)), Interface("tun0", ("10.8.0.2", "2a05::1"))]
    bound = [Address("0.0.0.0", 4747), Address("::", 4748)]
    assert own_addresses(bound, interfaces) == own_addresses(bound, INTERFACES)
    assert own_addresses([Address("10.8.0.2", 1)], interfaces) == {Realm.PRIVATE: (Address("10.8.0.2", 1),)}


def test_host_with_nothing_but_a_tunnel_still_has_addresses() -> None:
    """A laboratory's host or a container may have just that."""
    interfaces = [INTERFACES[0], Interface("tun0", ("8.8.8.8",))]
    assert own_addresses([Address("0.0.0.0", 1)], interfaces)[Realm.PUBLIC] == (Address("8.8.8.8", 1),)
