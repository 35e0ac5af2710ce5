# A Tomcat service. The code is fetched from the build machine, not sent with the context.
FROM registry.example.com/base/tomcat:9@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
LABEL org.opencontainers.image.title=car_detail
RUN yum install -y rsync && yum clean all
# What envconfig remembers of its last start; the service's user must be able to write it.
RUN install -d -o 10001 -g 10001 /run/envconfig
EXPOSE 8080
WORKDIR /home/work/service
COPY --chmod=0755 startup.sh /sbin/startup.sh
# Everything above is shared by many images and cached. A new CACHE makes the fetch, and what follows it, run again:
# the RUN is what reads the new value, so it must come before the next COPY.
ARG CACHE=1
RUN rsync -ac rsync://10.1.2.3:873/builds/b000042/output/ /home/work/service/ && chown -R 10001:10001 /home/work/service
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
USER 10001:10001
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:8080/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "sh", "/sbin/startup.sh"]
