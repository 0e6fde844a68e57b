# The image of a gateway: the program, ONNX Runtime, the libraries they need, and no shell. It needs BuildKit.
#
#   docker build -t bailiwick .                              builds everything in containers
#   scripts/env deploy/image/collect made && docker build -t bailiwick --build-arg PROGRAM=outside .
#                                                            takes the program that was built outside (make demo)
#   docker build --target symbols --output symbols .         the program's symbols, for a debugger
#   docker build -t bailiwick-tools --target tools .         a shell with the program, for certificates and loads
#
# docs/deploy.md says more.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim
# Where the program comes from: `built` here, or `outside`.
ARG PROGRAM=built

# The program, built here. ONNX Runtime comes from where scripts/setup says, with the hash that it pins.
FROM ${RUST_IMAGE} AS built
WORKDIR /source
ENV BAILIWICK_CACHE=/cache CARGO_TARGET_DIR=/cache/target
COPY scripts/setup scripts/env scripts/
RUN scripts/setup runtime
COPY . .
ARG COMMIT=unknown
RUN --mount=type=cache,target=/cache/target --mount=type=cache,target=/usr/local/cargo/registry \
    BAILIWICK_COMMIT="$COMMIT" scripts/env cargo build --release --locked --bin bailiwick \
    && scripts/env deploy/image/collect /made

# The program, built outside: deploy/image/collect puts it there.
FROM scratch AS outside
COPY made /made

# hadolint ignore=DL3006
FROM ${PROGRAM} AS program

# What the image holds, as a tree.
FROM ${DEBIAN_IMAGE} AS root
COPY --from=program /made /made
COPY LICENSE NOTICE /source/
COPY policies /source/policies
COPY deploy/image/root /made/root
RUN /made/root /made /tree /source && mkdir -p /state/bailiwick

FROM scratch AS symbols
COPY --from=program /made/bailiwick.debug /

# A shell with the program: it makes certificates and sends the examples' data (docker-compose.yml). No gateway runs in it.
FROM ${DEBIAN_IMAGE} AS tools
COPY --from=root /tree/usr/bin/bailiwick /usr/bin/bailiwick
COPY deploy/certs deploy/load /usr/local/bin/
# A new volume takes the owner and the mode of the folder that it is mounted on.
RUN install -d -o 65532 -g 65532 -m 0700 /secrets/authority /secrets/gateway-1 /secrets/gateway-2 /secrets/load \
    && install -d -o 65532 -g 65532 -m 0750 /secrets/watch
USER 65532:65532

FROM scratch AS gateway
ARG VERSION=0.1.0
ARG COMMIT=unknown
ARG CREATED=
LABEL org.opencontainers.image.title="bailiwick" \
      org.opencontainers.image.description="A streaming edge gateway: one binary per region; only aggregates leave" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=root /tree /
# The journal's place. A new volume takes its owner and mode.
COPY --from=root --chown=65532:65532 --chmod=0700 /state /var/lib
ENV ORT_DYLIB_PATH=/usr/lib/bailiwick/libonnxruntime.so
USER 65532:65532
WORKDIR /etc/bailiwick
VOLUME /var/lib/bailiwick
EXPOSE 7400 7401
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["/usr/bin/bailiwick", "health", "--ready"]
ENTRYPOINT ["/usr/bin/bailiwick"]
CMD ["run"]
