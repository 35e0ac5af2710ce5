// Package assemble builds images in the calling process: no daemon, no root, no command executed.
//
// It implements [builder.Engine] for Dockerfiles of one stage without RUN: FROM (scratch, or an
// image of a registry), COPY, ADD of local files, ENV, ARG, LABEL, WORKDIR, USER, EXPOSE, VOLUME,
// ENTRYPOINT, CMD, SHELL, STOPSIGNAL and HEALTHCHECK, with variables, patterns, links and
// .dockerignore as BuildKit treats them. An instruction that it lacks is a
// [builder.UnsupportedError] before anything is read or sent.
//
// The same input gives the same digest: times are SOURCE_DATE_EPOCH, owners are 0:0 or --chown, and
// of a file's mode only "executable" counts (0755, else 0644), unless --chmod says more.
// Directories that are made above a destination have 0755 even then, while newer releases of
// BuildKit give them the mode of the file. The digest depends on the release of Go that compiled
// the engine too, because its compressor may change.
//
// A base image named by tag is resolved when the build starts and recorded in Result.Base and in
// the labels org.opencontainers.image.base.name and .digest. To know where its links lead and which
// directories it has, its layers are read once and remembered.
//
// Layers are spooled to Config.TempDir, uncompressed and compressed, while a build runs. A layer
// that the repository has is not sent again, nor one that another repository of the registry has
// that this engine pushed to or Config.Repositories names. The registry's own list of tags has no
// conditional write: two builds of one [Engine] never overwrite each other's tag, two processes
// might in the moment between look and write, and the one that lost sees it when it reads the tag
// back.
package assemble
