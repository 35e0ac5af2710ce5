# A Python service. Dependencies are a layer of their own, installed again only when requirements.txt changes.
FROM docker.io/library/python:3.14-slim@sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
LABEL org.opencontainers.image.title=price_model
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=8080
EXPOSE 8080
COPY app/requirements.txt /tmp/requirements.txt
RUN ["python", "-m", "pip", "install", "--no-cache-dir", "--require-hashes", "-r", "/tmp/requirements.txt"]
USER 10001:10001
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /app
COPY --chown=10001:10001 app /app
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$PORT/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "python", "-m", "service"]
