"""The static table: people at fixed addresses, found without any discovery (`join --peers FILE`)."""
