// Package assemble builds images in the calling process: no daemon, no root, no command executed.
//
// It implements [builder.Engine] for Dockerfiles without RUN: FROM (scratch, an image of a registry,
// a stage before), COPY and ADD of local files, of archives, of other stages and images, ENV, ARG,
// LABEL, WORKDIR, USER, EXPOSE, VOLUME, ENTRYPOINT, CMD, SHELL, STOPSIGNAL and HEALTHCHECK, with
// variables, patterns, links and .dockerignore as BuildKit treats them. An instruction that it lacks
// is a [builder.UnsupportedError] before anything is read or sent. docs/assemble.md lists every
// difference from BuildKit that is accepted; tests build the same Dockerfiles with both.
//
// The same input gives the same digest: times are SOURCE_DATE_EPOCH, owners of files of the context
// are 0:0 or --chown, and of the mode of such a file only "executable" counts (0755, else 0644),
// unless --chmod says more. The log names the files that others may read because of this. Files of
// another image keep owner and mode. The digest depends on the release of Go that compiled the engine
// too, because its compressor may change.
//
// A request for several platforms gives an index with an image for each, as Config.SBOM and
// Config.Provenance do for one; its digest is the version's.
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
