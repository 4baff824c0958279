"""Which addresses are of the public Internet."""

import ipaddress
import random
from ipaddress import ip_address

import pytest

from unimodal.serve.addresses import is_public

INTERNAL = """
    0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.192 192.0.2.1 192.168.1.1 198.18.0.1 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1
    255.255.255.255 100.100.100.200 168.63.129.16
    :: ::1 ::127.0.0.1 fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 2001:db8::1 2001::1 3fff::1
    100::1 64:ff9b:1::1 5f00::1 4000::1
    ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1
    2002:7f00:1::1 2002:a9fe:a9fe::1 2002:c0a8:101::1
    64:ff9b::127.0.0.1 64:ff9b::169.254.169.254 64:ff9b::10.0.0.1
""".split()
PUBLIC = """
    8.8.8.8 1.1.1.1 172.32.0.1 100.128.0.1 169.253.0.1 192.0.3.1 223.255.255.255 168.63.129.17
    2606:4700:4700::1111 2001:4860:4860::8888 ::ffff:8.8.8.8 2002:808:808::1 64:ff9b::8.8.8.8
""".split()


@pytest.mark.parametrize("text", INTERNAL)
def test_internal_addresses_are_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are(text: str) -> None:
    assert is_public(ip_address(text))


def test_what_is_public_is_global_to_the_standard_library() -> None:
    chance = random.Random(0)
    found = 0
    for network in ("0.0.0.0/0", "2000::/3", "2001::/16", "::/96", "fc00::/6", "::/0"):
        given = ipaddress.ip_network(network)
        for _ in range(2000):
            address = given[chance.randrange(given.num_addresses)]
            if is_public(address):
                found += 1
                assert address.is_global and not address.is_multicast, address
                assert not address.is_reserved and not address.is_link_local, address
    assert found > 3000
