# A single page application: npm builds it, Nginx serves it. Packages are a layer of their own, installed again only when the lock
# file changes.
FROM docker.io/library/node:24@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc AS build
WORKDIR /src
COPY app/package.json app/package-lock.json /src/
RUN ["npm", "ci", "--ignore-scripts", "--cache=/tmp/npm"]
COPY app /src
RUN ["npm", "run", "build"]

FROM docker.io/nginxinc/nginx-unprivileged:1.28@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
LABEL org.opencontainers.image.title=ad_front
ENV PORT=8080
EXPOSE 8080
COPY --from=build /src/dist /usr/share/nginx/html
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
USER 101:101
# A directory that the user may write, for what envconfig remembers of its last start.
WORKDIR /run/envconfig
WORKDIR /
STOPSIGNAL SIGQUIT
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:8080/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "nginx", "-g", "daemon off;"]
