# syntax=docker/dockerfile:1
# The host in a small image: docker build -t pointsman . && docker run -p 7420:7420 -v pointsman:/data pointsman

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# The plugins are committed as components and embedded: no wasm target is needed here.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package pointsman \
    && install -D target/release/pointsman /out/pointsman

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends git ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin pointsman \
    && install -d -o pointsman -g pointsman -m 0700 /data
COPY --from=build /out/pointsman /usr/local/bin/pointsman
# Settings are variables here; a file may be mounted and named by POINTSMAN_CONFIG.
ENV POINTSMAN_DATA_DIR=/data \
    POINTSMAN_SERVER_BIND=0.0.0.0:7420 \
    POINTSMAN_LOG_FORMAT=json
USER pointsman
WORKDIR /data
VOLUME /data
EXPOSE 7420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["pointsman", "status"]
ENTRYPOINT ["pointsman"]
CMD ["up"]
