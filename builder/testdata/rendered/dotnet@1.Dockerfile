# A .NET service as dotnet publish leaves it. No RUN: every engine builds it, the one in process too.
FROM mcr.microsoft.com/dotnet/aspnet:10.0@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
LABEL org.opencontainers.image.title=pricing
ENV ASPNETCORE_HTTP_PORTS=8080
EXPOSE 8080
USER 1654:1654
# Directories that the user may write: what envconfig remembers of its last start, then the service's own.
WORKDIR /run/envconfig
WORKDIR /app
COPY publish /app
COPY --chmod=0755 envconfig /sbin/envconfig
COPY envs /etc/envconfig/envs
COPY manifest.json /etc/envconfig/manifest.json
HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:8080/health"]
ENTRYPOINT ["/sbin/envconfig", "--", "dotnet", "/app/Pricing.dll"]
