"""Addresses of the public Internet, told from those that a client must not reach through a server
(server-side request forgery, CWE-918).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address

# IANA's registry of special-purpose IPv4 addresses (RFC 6890), multicast and what is reserved. A
# table of our own: what `ipaddress.is_global` says differs between versions of Python.
SPECIAL_V4 = tuple(
    IPv4Network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # looks public, and is the host of a virtual machine at Azure
    )
)  # fmt: skip
GLOBAL_V6 = IPv6Network("2000::/3")  # all that is global unicast today (RFC 4291, 2.4)
SPECIAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052; its local sibling 64:ff9b:1::/48 is never public


def is_public(address: IPAddress) -> bool:
    """Return whether an address is of the public Internet, and so is the IPv4 address within it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_V4)
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    return address in GLOBAL_V6 and not any(address in network for network in SPECIAL_V6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to: mapped (RFC 4291), 6to4 (RFC 3056) or
    by NAT64 (RFC 6052).
    """
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
