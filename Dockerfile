# A node in a container: not root, nothing writable but its home. docs/docker.md says how to run it.
#
#   docker build -t p2pnode .                          the node
#   docker build -t p2pnode-router --target router .   a NAT router, for simulations/docker/compose.yaml
#
# Any base with Python 3.11 or later serves, and any builder (no BuildKit needed). Where a build reaches no package
# index, scripts/wheelhouse fills .wheelhouse first, and nothing is fetched here.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1 PYTHONPATH=/opt/tools
# The pattern may match nothing: a plain name would be an error then.
COPY pyproject.toml .wheelhous[e] /wheelhouse/
# Exact versions, as in pyproject.toml: what was tested is what is installed. First without the sources, which change more
# often than these. The wheelhouse brings pip where the base has none.
RUN set -eu; \
    if [ -n "$(find /wheelhouse -name '*.whl')" ]; then \
        printf '[global]\nno-index = true\nfind-links = /wheelhouse\n' >/etc/pip.conf; \
        python3 -m zipfile -e /wheelhouse/pip-*.whl /opt/tools; \
    fi; \
    python3 -c 'import tomllib; p = tomllib.load(open("/wheelhouse/pyproject.toml", "rb")); \
    write = lambda name, lines: open("/wheelhouse/" + name, "w").write("\n".join(lines)); \
    write("build.txt", p["tool"]["uv"]["build-constraint-dependencies"]); \
    write("constraints.txt", p["tool"]["uv"]["constraint-dependencies"]); \
    write("requirements.txt", p["project"]["dependencies"] + p["project"]["optional-dependencies"]["fast"])'; \
    python3 -m venv --without-pip /opt/p2pnode; \
    python3 -m pip install -q --target /opt/tools -r /wheelhouse/build.txt; \
    python3 -m pip --python /opt/p2pnode/bin/python install -q -c /wheelhouse/constraints.txt \
        -r /wheelhouse/requirements.txt
COPY . /source
RUN python3 -m pip wheel -q --no-deps --no-build-isolation --wheel-dir /wheel /source && \
    python3 -m pip --python /opt/p2pnode/bin/python install -q --no-deps --no-index /wheel/*.whl

# A router of simulations/docker/compose.yaml: the same program, and nft.
FROM ${BASE} AS router
RUN command -v nft >/dev/null || { apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends nftables && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/p2pnode /opt/p2pnode
ENTRYPOINT ["/opt/p2pnode/bin/python", "-m", "p2pnode.simulations.docker.router"]

FROM ${BASE} AS node
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="p2pnode" \
      org.opencontainers.image.description="A peer or bootstrap node: computers find and reach each other by public key" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The numbers are fixed, so that the owner of a volume stays right when the image changes.
RUN groupadd --gid 10001 p2pnode && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/p2pnode --shell /usr/sbin/nologin p2pnode && \
    install -d -o 10001 -g 10001 -m 0700 /var/lib/p2pnode
COPY --from=build /opt/p2pnode /opt/p2pnode
ENV PATH=/opt/p2pnode/bin:$PATH \
    P2PNODE_HOME=/var/lib/p2pnode \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/p2pnode
# Keys and messages: with a read-only root file system this is all that a node writes.
VOLUME /var/lib/p2pnode
EXPOSE 4747/udp
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["p2pnode", "status", "--json"]
ENTRYPOINT ["p2pnode"]
CMD ["bootstrap"]
