package web_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/web"
)

// On an address that others can reach every request needs the token.
func Example() {
	_, err := web.New(web.Config{Platform: &platform.Platform{}, Listen: "0.0.0.0:8800"})
	fmt.Println(err)

	site, err := web.New(web.Config{Platform: &platform.Platform{}, Listen: "0.0.0.0:8800",
		Token: "a long secret"})
	if err != nil {
		fmt.Println(err)
		return
	}
	request := httptest.NewRequest(http.MethodGet, "http://deploy.example/api/v1/openapi.json", nil)
	for _, authorization := range []string{"", "Bearer a long secret"} {
		request.Header.Set("Authorization", authorization)
		answer := httptest.NewRecorder()
		site.ServeHTTP(answer, request)
		fmt.Println(answer.Code, answer.Header().Get("Content-Type"))
	}
	// Output:
	// web: Config.Listen: address "0.0.0.0:8800": a token is required on an address that others can reach: set SLUICE_TOKEN
	// 401 application/problem+json
	// 200 application/json
}
