# A PHP service behind FastCGI. No RUN: every engine builds it, the one in process too.
FROM docker.io/library/php:8.4-fpm@sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
LABEL org.opencontainers.image.title=car_forum
EXPOSE 9000
USER 33:33
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /var/www/html
COPY app /var/www/html
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
# php-fpm ends open requests at SIGQUIT and cuts them at SIGTERM; process_control_timeout bounds the wait.
STOPSIGNAL SIGQUIT
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "tcp://127.0.0.1:9000"]
ENTRYPOINT ["/sbin/envconfig", "--", "php-fpm", "--nodaemonize"]
