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
