# A statically linked Go service on an empty base. No RUN: every engine builds it, the one in process too.
FROM scratch
LABEL org.opencontainers.image.title=hello_web
ENV PORT=8080
EXPOSE 8080
USER 65532:65532
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /app
COPY --chmod=0755 envconfig /sbin/envconfig
COPY --chmod=0755 app /app/app
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$PORT/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "/app/app"]
