"""What does the router in front of me do? RFC 5780-style probes on the Network interface, so on both worlds."""
