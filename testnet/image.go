//go:build linux

package testnet

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing/fstest"

	"github.com/cloudless-project/cloudless/container/archive/build"
)

// WebImage is the reference of the image that WriteWebImage writes.
const WebImage = "cloudless.test/web:1"

// WriteWebImage writes an image archive with a web server whose page names the
// replica that answers, on port 8080. ballast is the size of a file of noise
// that makes the image as large as real ones are.
func WriteWebImage(path string, ballast int) (err error) {
	busybox, err := lookPath("busybox")
	if err != nil {
		return err
	}
	files, err := build.Busybox(busybox)
	if err != nil {
		return err
	}
	delete(files, "www/index.html") // httpd then asks the script
	files["www/cgi-bin"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	files["www/cgi-bin/index.cgi"] = &fstest.MapFile{Mode: 0o755, Data: []byte(
		"#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho \"hello from ${CLOUDLESS_REPLICA:-$(hostname)}\"\n")}
	if ballast > 0 {
		files["www/ballast"] = &fstest.MapFile{Mode: 0o644, Data: noise(ballast)}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = build.Image(f, WebImage, files, build.Config{
		Cmd: []string{"/bin/httpd", "-f", "-p", "8080", "-h", "/www"}, Arch: runtime.GOARCH,
	})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// noise returns bytes that do not compress and are the same every time.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(0x9e3779b97f4a7c15)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 24)
	}
	return b
}

// WebManifest is the workload that runs the image: replicas that avoid each
// other, at home rather than in the cloud while there is room.
func WebManifest(name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: cloudless/v1
kind: Workload
metadata: {name: %s, labels: {app: web}}
spec:
  image: %s
  replicas: %d
  resources: {cpu: 50m, memory: 32Mi}
  placement:
    affinity: [{key: zone, operator: NotIn, values: [cloud], weight: 80}]
    antiAffinity: [{topology: node, required: true}]
  ports: [{name: http, port: 80, target: 8080}]
  probes:
    readiness: {http: {path: /, port: 8080}, period: 500ms, failures: 2}
`, name, WebImage, replicas)
}
