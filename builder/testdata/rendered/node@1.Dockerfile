# A Node service. Dependencies are a layer of their own, installed again only when the lock file changes.
FROM docker.io/library/node:24@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
LABEL org.opencontainers.image.title=chat_front
ENV NODE_ENV=production PORT=8080
EXPOSE 8080
USER 1000:1000
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /app
COPY --chown=1000:1000 app/package.json app/package-lock.json /app/
RUN ["npm", "ci", "--omit=dev", "--ignore-scripts", "--cache=/tmp/npm"]
COPY --chown=1000:1000 app /app
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$PORT/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "node", "/app/server.js"]
