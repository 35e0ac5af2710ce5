package assemble_test

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// BenchmarkChangedImage builds and pushes a Go service whose 8 MB binary changes each time, over
// the 4 MB of envconfig, which does not.
func BenchmarkChangedImage(b *testing.B) {
	host := serve(b)
	tmpl, err := builder.Default().Template("go-static")
	if err != nil {
		b.Fatal(err)
	}
	dockerfile, err := tmpl.Render(map[string]string{"CLUSTER_NAME": "hello_web"})
	if err != nil {
		b.Fatal(err)
	}
	// Half noise, half zeros compress about as well as machine code does.
	random := rand.New(rand.NewPCG(1, 2))
	binary := func(size int) []byte {
		code := make([]byte, size)
		for i := range size / 2 {
			code[i*2] = byte(random.Uint32())
		}
		return code
	}
	files := fstest.MapFS{"envconfig": {Data: binary(4 << 20)}, "app": {Data: binary(8 << 20)},
		"manifest.json": {}, "envs/_base/a": {}}
	engine := newEngine(b, assemble.Config{})
	n := 0
	for b.Loop() {
		n++
		copy(files["app"].Data, strconv.Itoa(n))
		res, err := engine.Build(b.Context(), builder.Request{
			Dockerfile: dockerfile, Context: files, Repository: host + "/hello_web", Tag: "v" +
				strconv.Itoa(n)})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(res.Uploaded), "sent-B")
	}
}
