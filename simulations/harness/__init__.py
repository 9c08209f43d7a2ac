"""Running scenarios: one, many in parallel, with progress and a report."""
