//go:build linux

package assemble_test

import (
	"io/fs"
	"testing/fstest"
)

// difference is a Dockerfile that BuildKit and this package build, alike unless differs says
// otherwise. The differences that are accepted stand in docs/assemble.md.
type difference struct {
	name, dockerfile string
	files            fstest.MapFS
	args             map[string]string
	// differs is compare's kind, and why the reason for it.
	differs, why string
}

func text(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o644} }

func withMode(f *fstest.MapFile, mode fs.FileMode) *fstest.MapFile {
	f.Mode = mode
	return f
}

func symlink(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
}

var some = fstest.MapFS{"a": text("A"), "b.conf": text("B"), "d/x": text("X"), "d/sub/y": text("Y"),
	"run.sh": withMode(text("#!/bin/sh\n"), 0o755), "link": symlink("d/x"), "dirlink": symlink("d"),
	"dangling": symlink("nothing"), "in/abs": symlink("/etc/passwd"), "in/up": symlink("../a")}

var differences = []difference{
	{name: "scratch", dockerfile: "FROM scratch\nLABEL a=b\n"},
	{name: "base alone", dockerfile: "FROM BASE\nLABEL a=b\n"},
	{name: "file to name", dockerfile: "FROM scratch\nCOPY a /x/y/z\n", files: some},
	{name: "file into directory", dockerfile: "FROM scratch\nCOPY a /x/\n", files: some},
	{name: "tree", dockerfile: "FROM scratch\nCOPY d /x\nCOPY . /all/\n", files: some},
	{name: "pattern", dockerfile: "FROM scratch\nCOPY *.conf d/* /x/\n", files: some},
	{name: "links in the context", dockerfile: "FROM scratch\nCOPY link /l\nCOPY dirlink /d\n" +
		"COPY in /in/\n", files: some},
	{name: "executable", dockerfile: "FROM scratch\nCOPY run.sh /\n", files: some},
	{name: "heredoc", dockerfile: "FROM scratch\nARG V=1\nCOPY <<A <<\"B\" /t/\nv $V\nA\nv $V\n" +
		"B\n"},
	{name: "relative destination", dockerfile: "FROM BASE\nCOPY a .\nCOPY a new/\nWORKDIR sub\n" +
		"COPY a x\n", files: some},
	{name: "workdir of root", dockerfile: "FROM BASE\nWORKDIR /w/x\n"},
	{name: "workdir of a number", dockerfile: "FROM BASE\nUSER 12:13\nWORKDIR /w/x\n"},
	{name: "workdir of a name", dockerfile: "FROM BASE\nUSER work\nWORKDIR /w/x\n"},
	{name: "workdir of an unknown name", dockerfile: "FROM BASE\nUSER nobody\nWORKDIR /w/x\n",
		differs: "refused", why: "BuildKit takes user 0 for a name that the image does not have"},
	{name: "workdir with a slash at its end", dockerfile: "FROM BASE\nWORKDIR /w/\n"},
	{name: "user number alone", dockerfile: "FROM BASE\nUSER 1000\nWORKDIR /w\n"},

	{name: "argument after env", dockerfile: "FROM scratch\nENV E=env\nARG E=arg\nLABEL e=$E\n"},
	{name: "given argument after env", dockerfile: "FROM scratch\nENV E=env\nARG E\nLABEL e=$E\n",
		args: map[string]string{"E": "given"}},
	{name: "argument without value after env", dockerfile: "FROM scratch\nENV E=env\nARG E\n" +
		"LABEL e=$E\n"},
	{name: "env after argument", dockerfile: "FROM scratch\nARG E=arg\nENV E=env\nLABEL e=$E\n"},
	{name: "argument over the base's env", dockerfile: "FROM BASE\nARG E=arg\nLABEL e=$E\n"},
	{name: "argument again", dockerfile: "FROM scratch\nARG E=1\nLABEL a=$E\nARG E=2\n" +
		"LABEL b=$E\n"},
	{name: "argument of the file", dockerfile: "ARG O=outer\nFROM scratch\nARG O\nLABEL o=$O\n"},
	{name: "platform arguments", dockerfile: "FROM scratch\nARG TARGETPLATFORM\nARG TARGETOS\n" +
		"ARG TARGETARCH\nARG TARGETVARIANT\nLABEL a=$TARGETPLATFORM b=$TARGETOS c=$TARGETARCH " +
		"d=[$TARGETVARIANT]\n"},
	{name: "platform of the builder", dockerfile: "FROM scratch\nARG BUILDPLATFORM\nARG BUILDOS\n" +
		"ARG BUILDARCH\nARG BUILDVARIANT\nLABEL a=$BUILDPLATFORM b=$BUILDOS c=$BUILDARCH " +
		"d=[$BUILDVARIANT]\n"},
	{name: "target stage", dockerfile: "FROM scratch AS app\nARG TARGETSTAGE\n" +
		"LABEL a=[$TARGETSTAGE]\n"},
	{name: "target stage without name", dockerfile: "FROM scratch\nARG TARGETSTAGE\n" +
		"LABEL a=[$TARGETSTAGE]\n"},
	{name: "predefined argument without ARG", dockerfile: "FROM scratch\nLABEL a=[$TARGETOS]\n"},
	{name: "predefined argument given", dockerfile: "FROM scratch\nARG TARGETOS\n" +
		"LABEL a=[$TARGETOS]\n",
		args: map[string]string{"TARGETOS": "plan9"}},
	{name: "from an argument", dockerfile: "ARG B=BASE\nFROM $B\nLABEL a=b\n"},
	{name: "substitution", dockerfile: "FROM scratch\nARG A=x.tar.gz\n" +
		"LABEL a=${A%.gz} b=${A%%.*} " +
		"c=${A#x.} d=${A/tar/zip} e=${N:-none} f=${A:+set} g=$$A h='$A' i=\\$A\n"},

	{name: "settings", dockerfile: "FROM BASE\nENV A=1 B=\"two words\" E=new\nENV C $A-$B\n" +
		"LABEL l=\"$C\" base=no\nEXPOSE 80 53/udp 8000-8002\nVOLUME /v [\"/w\"]\n" +
		"VOLUME [\"/x\", \"/y\"]\nUSER work:staff\nMAINTAINER team\n" +
		"SHELL [\"/bin/sh\", \"-ec\"]\n" +
		"ENTRYPOINT exec tool\nCMD [\"a\", \"$A\"]\n"},
	{name: "entrypoint resets the base's command", dockerfile: "FROM BASE\n" +
		"ENTRYPOINT [\"tool\"]\n"},
	{name: "command, then entrypoint", dockerfile: "FROM BASE\nCMD [\"x\"]\n" +
		"ENTRYPOINT [\"tool\"]\n"},
	{name: "empty entrypoint", dockerfile: "FROM BASE\nENTRYPOINT []\nCMD []\n"},
	{name: "health check", dockerfile: "FROM BASE\nHEALTHCHECK --interval=5s --timeout=2s " +
		"--start-period=1m --start-interval=500ms --retries=4 CMD curl -f http://127.0.0.1/\n"},
	{name: "health check of one program", dockerfile: "FROM BASE\n" +
		"HEALTHCHECK CMD [\"tool\", \"-x\"]\n"},
	{name: "no health check", dockerfile: "FROM BASE\nHEALTHCHECK NONE\n"},
	{name: "stop signal", dockerfile: "FROM BASE\nSTOPSIGNAL SIGTERM\n"},
	{name: "stop signal without SIG", dockerfile: "FROM BASE\nSTOPSIGNAL quit\n"},
	{name: "stop signal by number", dockerfile: "FROM BASE\nSTOPSIGNAL 9\n"},
	{name: "real-time signal", dockerfile: "FROM BASE\nSTOPSIGNAL SIGRTMIN+3\n"},
	{name: "unknown signal", dockerfile: "FROM BASE\nSTOPSIGNAL SIGNOPE\n"},
	{name: "signal zero", dockerfile: "FROM BASE\nSTOPSIGNAL 0\n"},
	{name: "signal of a variable", dockerfile: "FROM BASE\nARG S=USR1\nSTOPSIGNAL SIG$S\n"},

	{name: "file over a link", dockerfile: "FROM BASE\nCOPY a /etc/link\n", files: some},
	{name: "file over an absolute link", dockerfile: "FROM BASE\n" +
		"COPY a /etc/absolute\n", files: some},
	{name: "file over a chain of links", dockerfile: "FROM BASE\nCOPY a /etc/chain\n", files: some},
	{name: "file over a dangling link", dockerfile: "FROM BASE\n" +
		"COPY a /etc/dangling\n", files: some},
	{name: "file over a link to nowhere", dockerfile: "FROM BASE\nCOPY a /etc/lost\n", files: some},
	{name: "file into a linked directory", dockerfile: "FROM BASE\nCOPY a /bin/\nCOPY a /var/data\n",
		files: some},
	{name: "heredoc over a link", dockerfile: "FROM BASE\nCOPY <<A /etc/link\nx\nA\n"},
	{name: "added file over a link", dockerfile: "FROM BASE\nADD a /etc/link\n", files: some},
	{name: "tree with a file over a link", dockerfile: "FROM BASE\nCOPY etc /etc/\n",
		files: fstest.MapFS{"etc/link": text("new"), "etc/dangling": text("new")}},
	{name: "tree with a directory over a linked directory", dockerfile: "FROM BASE\nCOPY root /\n",
		files: fstest.MapFS{"root/bin/x": text("x")}},
	{name: "tree with a link over a file", dockerfile: "FROM BASE\nCOPY etc /etc/\n",
		files: fstest.MapFS{"etc/passwd": symlink("target"), "etc/link": symlink("passwd")}},
	{name: "tree with a link over a directory", dockerfile: "FROM BASE\nCOPY root /\n",
		files: fstest.MapFS{"root/data": symlink("etc")}},
	{name: "file over a directory", dockerfile: "FROM BASE\nCOPY root /\n",
		files: fstest.MapFS{"root/data": text("x")}},
	{name: "directory over a file", dockerfile: "FROM BASE\nCOPY root /\n",
		files: fstest.MapFS{"root/etc/passwd/x": text("x")}},
	{name: "directory keeps its mode", dockerfile: "FROM BASE\nCOPY root /\n",
		files: fstest.MapFS{"root/data/new": text("x")}},
	{name: "file over a file", dockerfile: "FROM BASE\nCOPY a /etc/target\n", files: some},

	{name: "owner by number", dockerfile: "FROM BASE\nCOPY --chown=3:4 d /x/y\n" +
		"COPY --chown=3 a /z\n",
		files: some},
	{name: "owner by name", dockerfile: "FROM BASE\nCOPY --chown=work:staff a /x/\n" +
		"COPY --chown=work a /y/\nCOPY --chown=www:0 a /z/\n" +
		"ADD --chown=work a /added\n", files: some},
	{name: "group alone", dockerfile: "FROM BASE\nCOPY --chown=:staff a /x/\n", files: some},
	{name: "unknown owner", dockerfile: "FROM BASE\nCOPY --chown=nobody a /x/\n", files: some,
		differs: "refused", why: "BuildKit takes user 0 for a name that the image does not have"},
	{name: "owner by name on scratch", dockerfile: "FROM scratch\n" +
		"COPY --chown=work a /x/\n", files: some},
	{name: "mode in octal", dockerfile: "FROM BASE\nCOPY --chmod=0640 d /x/\n" +
		"COPY --chmod=4755 a /y\n",
		files: some},
	{name: "symbolic mode", dockerfile: "FROM BASE\nCOPY --chmod=u=rwX,go=rX d /x/\n" +
		"COPY --chmod=a+x a /y\nCOPY --chmod=go-r,u+s run.sh /z\n", files: some},
	{name: "mode of directories made above", dockerfile: "FROM BASE\nCOPY --chmod=0600 a /m/n/o\n",
		files:   some,
		differs: "files", why: "directories above a destination have 0755: BuildKit gives them the mode of the file"},
	{name: "private file", dockerfile: "FROM BASE\nCOPY key /key\n",
		files:   fstest.MapFS{"key": withMode(text("k"), 0o600)},
		differs: "files", why: "a file's mode counts as executable or not"},
	{name: "set-user-ID file", dockerfile: "FROM BASE\nCOPY tool /tool\n",
		files:   fstest.MapFS{"tool": withMode(text("k"), 0o755|fs.ModeSetuid)},
		differs: "files", why: "a file's mode counts as executable or not"},

	{name: "second stage", dockerfile: "FROM BASE AS b\nCOPY a /made/\nFROM scratch\n" +
		"COPY --from=b /made /x\nCOPY --from=b /etc/passwd /etc/target /y/\n", files: some},
	{name: "stage by number", dockerfile: "FROM BASE\nCOPY run.sh /r\nFROM scratch\n" +
		"COPY --from=0 /r /r\n",
		files: some},
	{name: "stage on a stage", dockerfile: "FROM BASE AS b\nENV X=1\nCOPY a /a\nFROM b\n" +
		"COPY d /d\n",
		files: some},
	{name: "unused stage", dockerfile: "FROM BASE AS b\nCOPY a /a\nFROM scratch\nCOPY d /d\n",
		files: some},
	{name: "copy from an image", dockerfile: "FROM scratch\nCOPY --from=BASE /usr/bin/tool /t\n" +
		"COPY --from=BASE /data /d\n"},
	{name: "links of a stage", dockerfile: "FROM BASE AS b\nFROM scratch\n" +
		"COPY --from=b /etc/link /l\n" +
		"COPY --from=b /var /v\nCOPY --from=b /bin/tool /t\n"},
	{name: "owner and mode of a stage", dockerfile: "FROM BASE AS b\nFROM BASE\n" +
		"COPY --from=b --chown=work:staff --chmod=0700 /etc /e\n"},
	{name: "stage of another case of letters", dockerfile: "FROM BASE AS Build\nCOPY a /a\n" +
		"FROM scratch\nCOPY --from=bUILD /a /a\n", files: some},
	{name: "two stages of one name", dockerfile: "FROM scratch AS b\nCOPY a /a\n" +
		"FROM scratch AS b\n" +
		"COPY b.conf /a\nFROM scratch\nCOPY --from=b /a /a\n", files: some},
	{name: "stage with the name of an image", dockerfile: "FROM BASE AS scratch\nCOPY a /a\n" +
		"FROM scratch\nLABEL a=b\n", files: some},
	{name: "argument of each stage", dockerfile: "ARG V=1\nFROM BASE AS b\nARG V\nENV W=$V\n" +
		"FROM b\nLABEL v=[$V] w=$W\n"},
	{name: "command of another stage", dockerfile: "FROM BASE AS b\nCMD [\"x\"]\nFROM b\n" +
		"ENTRYPOINT [\"y\"]\n"},
	{name: "stage by its own number", dockerfile: "FROM BASE\nCOPY --from=0 /etc /e\n"},
	{name: "stage that comes later", dockerfile: "FROM BASE\nCOPY --from=later /etc /e\n" +
		"FROM BASE AS later\n"},
	{name: "directory made for a file of a stage", dockerfile: "FROM BASE AS b\nFROM scratch\n" +
		"COPY --from=b /etc/target /made/\n"},
	{name: "pattern in a stage", dockerfile: "FROM BASE AS b\nFROM scratch\n" +
		"COPY --from=b /etc/p* /etc/group /x/\n"},
	{name: "root of a stage", dockerfile: "FROM BASE AS b\nFROM scratch\nCOPY --from=b / /\n"},
	{name: "missing file of a stage", dockerfile: "FROM BASE AS b\nFROM scratch\n" +
		"COPY --from=b /nothing /x\n"},
	{name: "path above the root of a stage", dockerfile: "FROM BASE AS b\nFROM scratch\n" +
		"COPY --from=b ../../etc/passwd /x\n"},
	{name: "linked copy", dockerfile: "FROM BASE\nCOPY --link a /x/\n", files: some},
	{name: "linked copy over a link", dockerfile: "FROM BASE\nCOPY --link a /bin/\n" +
		"COPY --link a /etc/link\nADD --link d /data/\n", files: some},
	{name: "linked copy with owner by name", dockerfile: "FROM BASE\n" +
		"COPY --link --chown=work a /x/\n",
		files: some},
	{name: "copy with exclusions", dockerfile: "FROM BASE\n" +
		"COPY --exclude=*.conf --exclude=d/sub d2 " +
		"/x/\n" +
		"COPY --exclude=** --exclude=!sub/y d2/d /y/\n", files: fstest.MapFS{"d2/a.conf": text("1"),
		"d2/b": text("2"), "d2/d/x": text("3"), "d2/d/sub/y": text("4"), "d2/d/c.conf": text("5")}},
	{name: "exclusion of the file itself", dockerfile: "FROM BASE\n" +
		"COPY --exclude=a a /x/\n", files: some},
	{name: "copy with parents", dockerfile: "FROM BASE\nCOPY --parents d/sub/y /x/\n", files: some,
		differs: "refused", why: "--parents is not built"},
	{name: "onbuild", dockerfile: "FROM BASE\nONBUILD LABEL a=b\n", differs: "refused",
		why: "ONBUILD acts in the builds of other images"},
	{name: "file that does not match", dockerfile: "FROM BASE\nCOPY *.nothing /x/\n", files: some,
		differs: "refused", why: "a pattern without a match is a mistake as a rule"},
	{name: "path above the context", dockerfile: "FROM BASE\nCOPY ../a /x\n", files: some,
		differs: "refused", why: "BuildKit takes ../a for a"},
	{name: "absolute link of the context", dockerfile: "FROM BASE\nCOPY in/abs /x\n",
		files:   fstest.MapFS{"in/abs": symlink("/a"), "a": text("A")},
		differs: "refused", why: "BuildKit takes an absolute link for one inside the context"},
	{name: "link out of the context", dockerfile: "FROM BASE\nCOPY up /x\n",
		files: fstest.MapFS{"up": symlink("../../etc/hostname")}},
	{name: "deleted name", dockerfile: "FROM BASE\nCOPY .wh.passwd /etc/\n",
		files:   fstest.MapFS{".wh.passwd": text("x")},
		differs: "refused", why: "BuildKit loses the file: layers keep such names for deleted files"},
	{name: "several to a name", dockerfile: "FROM BASE\nCOPY a b.conf /x\n", files: some,
		differs: "refused", why: "BuildKit keeps the last of them"},
	{name: "pattern of several to a name", dockerfile: "FROM BASE\nCOPY d/* /x\n",
		files:   fstest.MapFS{"d/1": text("1"), "d/2": text("2")},
		differs: "refused", why: "BuildKit keeps the last of them"},
	{name: "published port", dockerfile: "FROM BASE\nEXPOSE 80:8080\n", differs: "refused",
		why: "a host's port means nothing in an image"},
	{name: "name that is not UTF-8", dockerfile: "FROM BASE\nCOPY d /x/\n",
		files: fstest.MapFS{"d/\xd6\xd0.txt": text("GBK")}},
	{name: "ignored files", dockerfile: "FROM BASE\nCOPY . /x/\n", files: fstest.MapFS{
		".dockerignore": text("*.log\nsecret\n!secret/public\n**/tmp\n/root.txt\n"),
		"a.log":         text("1"), "secret/key": text("2"), "secret/public": text("3"),
		"d/tmp/x": text(
			"4",
		), "d/root.txt": text("5"), "root.txt": text("6"), "d/a.log": text("7")}},
	{name: "archives", dockerfile: "FROM BASE\nADD a.tar /plain\n" +
		"ADD a.tar.gz b.tar.bz2 a.tar.zst /z/\n" +
		"ADD --chown=work:staff a.tar /owned/\n" +
		"ADD --unpack=false a.tar.gz /kept\n", files: archives},
	{name: "archive over the image", dockerfile: "FROM BASE\nADD over.tar /\n", files: archives},
	{name: "archive with a mode", dockerfile: "FROM BASE\n" +
		"ADD --chmod=0600 a.tar /x/\n", files: archives},
	{name: "archive in a directory", dockerfile: "FROM BASE\nADD d /x/\nCOPY a.tar /y/\n",
		files: archives},
	{name: "file that only looks like an archive", dockerfile: "FROM BASE\n" +
		"ADD text.gz cut.gz /x/\n",
		files: archives},
	{name: "archive that is cut off", dockerfile: "FROM BASE\nADD cut.tar /x/\n", files: archives},
	{name: "archive that leaves its directory", dockerfile: "FROM BASE\nADD out.tar /x/\n",
		files: archives, differs: "refused", why: "BuildKit takes ../out for out"},
	{name: "archive packed with xz", dockerfile: "FROM BASE\nADD b.tar.xz /x/\n", files: archives,
		differs: "refused", why: "xz is not read"},
	{name: "archive with a device", dockerfile: "FROM BASE\nADD device.tar /x/\n", files: archives,
		differs: "refused", why: "a service's image has no devices"},
	{name: "hard links of the base", dockerfile: "FROM BASE AS b\nFROM scratch\n" +
		"COPY --from=b /etc/hard /h\n"},
	{name: "platform of the target", dockerfile: "FROM --platform=$TARGETPLATFORM BASE\n" +
		"LABEL a=b\n"},
	{name: "platform of another machine", dockerfile: "FROM --platform=linux/s390x scratch\n" +
		"LABEL a=b\n",
		differs: "refused", why: "an image is for one platform"},
}
