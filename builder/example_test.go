package builder_test

import (
	"fmt"

	"github.com/sluice-deploy/sluice/builder"
)

func ExampleTemplate_Render() {
	template, err := builder.Default().Template("go-static")
	if err != nil {
		fmt.Println(err)
		return
	}
	dockerfile, err := template.Render(map[string]string{"CLUSTER_NAME": "hello_web",
		"BINARY": "hello"})
	fmt.Printf("%s%v\n", dockerfile, err)

	_, err = template.Render(map[string]string{"CLUSTER_NAME": "x\nUSER root"})
	fmt.Println(err)
	// Output:
	// # A statically linked Go service on an empty base. No RUN: every engine builds it, the one in process too.
	// FROM scratch
	// LABEL org.opencontainers.image.title=hello_web
	// ENV PORT=8080
	// EXPOSE 8080
	// USER 65532:65532
	// # Directories that the user may write: what envconfig remembers of its last start, then the service's own.
	// WORKDIR /run/envconfig
	// WORKDIR /app
	// COPY --chmod=0755 envconfig /sbin/envconfig
	// COPY --chmod=0755 hello /app/hello
	// COPY envs /etc/envconfig/envs
	// COPY manifest.json /etc/envconfig/manifest.json
	// HEALTHCHECK --start-period=60s CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$PORT/health"]
	// ENTRYPOINT ["/sbin/envconfig", "--", "/app/hello"]
	// <nil>
	// template go-static@1: Dockerfile line 3: parameter CLUSTER_NAME: the value has a newline at byte 2
}

func ExampleLint() {
	for _, f := range builder.Lint(
		[]byte("FROM scratch\nARG CACHE=1\nCOPY code /code\nUSER 1000\n")) {
		fmt.Println(f)
	}
	// Output:
	// line 2: error: ARG CACHE rebuilds nothing: a RUN that fetches the code must follow it before the next COPY or ADD (cache-arg)
}
