"""NAT64 prefixes and addresses: RFC 6052's own examples, RFC 7050's search, hosts that have IPv6 alone."""

import ipaddress

import pytest

from p2pnode.core.address import Address
from p2pnode.nat.nat64 import Nat64, prefix_of_answers

# RFC 6052, section 2.4, "Text Representation": 192.0.2.33 behind a prefix of each length.
EXAMPLES = {
    "2001:db8::/32": "2001:db8:c000:221::",
    "2001:db8:100::/40": "2001:db8:1c0:2:21::",
    "2001:db8:122::/48": "2001:db8:122:c000:2:2100::",
    "2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
    "2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100:0",
    "2001:db8:122:344::/96": "2001:db8:122:344::c000:221",
    "64:ff9b::/96": "64:ff9b::c000:221",
}


def made(prefix: str) -> Nat64:
    return Nat64(ipaddress.IPv6Network(prefix), is_public=lambda ip: not ip.startswith("192.168."))


@pytest.mark.parametrize(("prefix", "ip"), EXAMPLES.items())
def test_addresses_as_in_the_specification(prefix: str, ip: str) -> None:
    """There and back; the port is the same."""
    nat64, outside = made(prefix), Address("192.0.2.33", 4747)
    inside = Address.of(ip, 4747)
    assert nat64.outward(outside) == inside
    assert nat64.inward(inside) == outside


@pytest.mark.parametrize("prefix", EXAMPLES)
def test_the_prefix_is_found_in_what_dns_says(prefix: str) -> None:
    """Each length, by either of the two known addresses; what else DNS says tells nothing."""
    for known in ("192.0.0.170", "192.0.0.171"):
        answer = made(prefix).outward(Address(known, 1)).ip
        assert prefix_of_answers(["2001:db8::1", "nonsense", answer]) == ipaddress.IPv6Network(prefix)
    assert prefix_of_answers(["2001:db8::1", "64:ff9b::808:808"]) is None
    assert prefix_of_answers([]) is None


def test_what_is_not_meant_for_everybody_is_left_alone() -> None:
    """Private IPv4, all other IPv6, and forms that nobody could have made."""
    nat64 = made("2001:db8:122:344::/64")
    for address in (Address("192.168.1.1", 1), Address("2a00::1", 1)):
        assert nat64.outward(address) == address
        assert nat64.inward(address) == address
    private = Address("64:ff9b::c0a8:101", 1)  # 192.168.1.1
    assert made("64:ff9b::/96").inward(private) == private
    # A suffix that is not zero, and byte 8 that is not.
    for ip in ("2001:db8:122:344:c0:2:2100:1", "2001:db8:122:344:1c0:2:2100:0", "fe80::1%eth0"):
        assert nat64.inward(Address.of(ip, 1)) == Address.of(ip, 1)


def test_a_prefix_of_no_such_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32, 40, 48"):
        made("2001:db8::/33")
