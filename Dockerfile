# memstore from source: a static binary, and nothing else in the image. Needs BuildKit.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=0.1.0 -t memstore/memstore:0.1.0 .
#
# Dockerfile.prebuilt makes the same image of a binary that is there already; what stands below "FROM scratch" is the same in both.

ARG RUST_VERSION=1.95

# The compiler runs on the machine that builds and makes code for the other architecture: emulated it would take hours.
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# It writes the list of dependencies into the binary, where scanners find it: trivy, grype, cargo audit bin.
ARG CARGO_AUDITABLE_VERSION=0.7.7
RUN cargo install --locked "cargo-auditable@${CARGO_AUDITABLE_VERSION}"

ARG TARGETARCH
# hadolint ignore=DL3008
RUN case "$TARGETARCH" in \
        amd64) machine=x86_64 package=x86-64 ;; \
        arm64) machine=aarch64 package=aarch64 ;; \
        *) echo "no static build for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    rustup target add "$machine-unknown-linux-gnu"; \
    linker=gcc; \
    if [ "$TARGETARCH" != "$(dpkg --print-architecture)" ]; then \
        linker=$machine-linux-gnu-gcc; \
        apt-get update; \
        apt-get install -y --no-install-recommends "gcc-$package-linux-gnu" "libc6-dev-$TARGETARCH-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    printf '[build]\ntarget = "%s"\n[target.%s]\nlinker = "%s"\nrustflags = ["-C", "target-feature=+crt-static"]\n' \
        "$machine-unknown-linux-gnu" "$machine-unknown-linux-gnu" "$linker" > "$CARGO_HOME/config.toml"; \
    echo "target/$machine-unknown-linux-gnu/image" > /built

WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo auditable build --locked --profile image -p memstore-proxy; \
    cp "$(cat /built)/memstore" /memstore

FROM scratch
COPY --from=build --chmod=0555 /memstore /memstore

# A number, for there is no /etc/passwd, and Kubernetes refuses names where runAsNonRoot is set.
USER 65532:65532
# Where Redis clients expect a server, and where probes and metrics are served: on the loopback address only, unless
# admin_address says otherwise.
EXPOSE 6379 9121
STOPSIGNAL SIGTERM
# "ready", not "alive": what waits for a healthy container wants to send requests. It asks no shard unless ready_min_healthy
# is set. Who restarts unhealthy containers and has that set should take "alive": a new proxy does not heal a shard.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/memstore", "ready"]
ENTRYPOINT ["/memstore"]
CMD ["serve", "-c", "/etc/memstore/memstore.yml"]

ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=https://github.com/memstore/memstore
LABEL org.opencontainers.image.title="memstore" \
      org.opencontainers.image.description="A sharding proxy for Redis, Valkey and memcached" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
