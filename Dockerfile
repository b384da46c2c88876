# The image holds one static binary and the certificate authorities: no shell, no libc, no passwd.
#
#   docker build --build-arg GVR_COMMIT="$(git rev-parse HEAD)" -t git-volume-reloader:0.1.0 .
#
# For another architecture, the build stage runs on that architecture (buildx --platform).

FROM rust:1-bookworm AS build
# Debian's archive keeps only the newest version of a package, so a pinned one would break the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The commit that --version and gvr_build_info name, because the build context has no .git.
ARG GVR_COMMIT=unknown
ENV GVR_COMMIT=$GVR_COMMIT
# With --target, the flags do not apply to build scripts and procedural macros, which crt-static breaks.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --locked --release --bin git-volume-reloader --target "$target" \
    && mkdir -p /image/etc/ssl/certs \
    && cp "target/$target/release/git-volume-reloader" /image/git-volume-reloader \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
ARG GVR_COMMIT=unknown
ARG VERSION=0.1.0
# The address of the repository that the image is built from.
ARG SOURCE=
LABEL org.opencontainers.image.title="git-volume-reloader" \
      org.opencontainers.image.description="Keeps a directory on a volume equal to a git ref" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$GVR_COMMIT" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=build /image/ /
USER 65533:65533
ENTRYPOINT ["/git-volume-reloader"]
