"""Routers as a pure model: NAT mapping, filtering, ports, lifetimes, port mapping protocols, firewalls."""
