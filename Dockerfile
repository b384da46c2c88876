# One static binary and the certificate authorities, nothing else: no shell, no libc, no passwd.
#
#   docker build --build-arg GVR_COMMIT="$(git rev-parse HEAD)" -t git-volume-reloader:0.1.0 .
#
# For another architecture the build stage runs as that architecture (buildx --platform).

FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The commit that --version and gvr_build_info name: the build context has no .git.
ARG GVR_COMMIT=unknown
ENV GVR_COMMIT=$GVR_COMMIT
# --target keeps crt-static away from build scripts and procedural macros, which it breaks.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --locked --release --bin git-volume-reloader --target "$target" \
    && mkdir -p /image/etc/ssl/certs \
    && cp "target/$target/release/git-volume-reloader" /image/git-volume-reloader \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=build /image/ /
USER 65533:65533
ENTRYPOINT ["/git-volume-reloader"]
