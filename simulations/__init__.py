"""The test bed: virtual-time networks, the laboratory of network namespaces, docker, scenarios and reports."""
