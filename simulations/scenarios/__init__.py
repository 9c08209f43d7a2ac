"""The scenarios that come with p2pnode; one file each, found by name."""
