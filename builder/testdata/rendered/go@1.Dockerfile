# A Go service, compiled here. Modules are a layer of their own, fetched again only when go.mod or go.sum change.
FROM docker.io/library/golang:1.26@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff AS build
ENV CGO_ENABLED=0
WORKDIR /src
COPY app/go.mod app/go.sum /src/
RUN ["go", "mod", "download"]
COPY app /src
RUN ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", "/out/service", "example.com/hello/cmd/hello"]

FROM scratch
LABEL org.opencontainers.image.title=hello_web
ENV PORT=8080
EXPOSE 8080
USER 65532:65532
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /app
COPY --from=build /out/service /app/service
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$PORT/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "/app/service"]
