# The image that builds run in. sluice-build is built by
#   CGO_ENABLED=0 go build -trimpath -o sluice-build github.com/sluice-deploy/sluice/builder/kubejob/cmd/sluice-build
FROM moby/buildkit:v0.34.2
COPY sluice-build /usr/bin/
ENTRYPOINT []
