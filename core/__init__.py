"""What every layer shares: keys and ids, signed envelopes, addresses, errors, the Network interface."""
