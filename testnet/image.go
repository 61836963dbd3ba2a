//go:build linux

package testnet

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing/fstest"

	"github.com/cloudless-project/cloudless/container/archive/build"
)

// WebImage is the usual reference of the image that WriteWebImage writes.
const WebImage = "cloudless.test/web:1"

// WriteWebImage writes an image archive, called ref, with a web server whose
// page names the replica that answers, on port 8080. ballast is the size of a
// file of noise, different for each ref, that makes the image as large as real
// ones are.
func WriteWebImage(path, ref string, ballast int) error {
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
		files["www/ballast"] = &fstest.MapFile{Mode: 0o644, Data: noise(ref, ballast)}
	}
	return writeImage(path, ref, files, "/bin/httpd", "-f", "-vv", "-p", "8080", "-h", "/www")
}

func writeImage(path, ref string, files fs.FS, cmd ...string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = build.Image(f, ref, files, build.Config{Cmd: cmd, Arch: runtime.GOARCH})
	return errors.Join(err, f.Close())
}

// IperfImage is the reference of the image that WriteIperfImage writes.
const IperfImage = "cloudless.test/iperf3:1"

// WriteIperfImage writes an image archive with the machine's iperf3, as a
// server on port 5201, and the libraries that it is linked against.
func WriteIperfImage(ctx context.Context, path string) error {
	iperf, err := lookPath("iperf3")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", iperf).Output()
	if err != nil {
		return fmt.Errorf("list the libraries of iperf3: %w", err)
	}
	dir := &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	files := fstest.MapFS{"tmp": {Mode: fs.ModeDir | fs.ModeSticky | 0o777}, "proc": dir, "dev": dir, "sys": dir, "etc": dir}
	paths := []string{iperf}
	for field := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(field, "/") {
			paths = append(paths, field)
		}
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files[strings.TrimPrefix(p, "/")] = &fstest.MapFile{Mode: 0o755, Data: data}
	}
	return writeImage(path, IperfImage, files, iperf, "-s", "-p", "5201")
}

// noise returns bytes that do not compress, the same for the same seed.
func noise(seed string, n int) []byte {
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed)) // never fails
	x := h.Sum64() | 1
	b := make([]byte, n)
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
