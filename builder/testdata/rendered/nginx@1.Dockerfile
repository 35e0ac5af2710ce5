# An Nginx with a configuration of its own: a proxy, a gateway. No RUN: every engine builds it, the one in process too.
FROM docker.io/nginxinc/nginx-unprivileged:1.28@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
LABEL org.opencontainers.image.title=gateway
ENV PORT=8080
EXPOSE 8080
COPY nginx /etc/nginx
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
USER 101:101
# A directory that the user may write, for what envconfig remembers of its last start.
WORKDIR /run/envconfig
WORKDIR /
# Nginx answers open requests at SIGQUIT and cuts them at SIGTERM.
STOPSIGNAL SIGQUIT
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:8080/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "nginx", "-g", "daemon off;"]
