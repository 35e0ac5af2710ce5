# A Spring Boot service, its jar extracted into layers: a change of the code sends the last layer only.
FROM docker.io/library/eclipse-temurin:21-jre@sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
LABEL org.opencontainers.image.title=ad_search
ENV SERVER_PORT=8080
EXPOSE 8080
USER 10001:10001
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /app
COPY app/dependencies /app
COPY app/spring-boot-loader /app
COPY app/snapshot-dependencies /app
COPY app/application /app
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$SERVER_PORT/actuator/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "java", "-XX:MaxRAMPercentage=70", "-XX:+ExitOnOutOfMemoryError", "-jar", "/app/app.jar"]
