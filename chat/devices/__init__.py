"""All devices of a user: the signed list of them, linking and revoking, and what they tell each other."""
