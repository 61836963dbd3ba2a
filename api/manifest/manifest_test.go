package manifest

import (
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

var rewrite = flag.Bool("rewrite", false, "write what Decode says now into testdata")

// TestErrors replays testdata/errors.txt: after "===" a name and a manifest
// (with "-·-" between documents), after "---" what a person reads.
func TestErrors(t *testing.T) {
	const file = "testdata/errors.txt"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, block := range strings.Split(string(data), "=== ")[1:] {
		name, rest, _ := strings.Cut(block, "\n")
		input, want, _ := strings.Cut(rest, "---\n")
		_, err := Decode(strings.NewReader(strings.ReplaceAll(input, "-·-", "---")), "web.yaml")
		got := render(err)
		out.WriteString("=== " + name + "\n" + input + "---\n" + got)
		if got != want && !*rewrite {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// render prints errors as the command line does.
func render(err error) string {
	if err == nil {
		return "no error\n"
	}
	var b strings.Builder
	for _, e := range flatten(err) {
		b.WriteString("[" + string(e.Kind) + "] " + e.Error() + "\n")
		if s := Snippet(e); s != "" {
			b.WriteString(s + "\n")
		}
		if e.Hint != "" {
			b.WriteString("hint: " + e.Hint + "\n")
		}
	}
	return b.String()
}

// full is the manifest of the command line's contract, without what comes later.
const full = `
apiVersion: cloudless/v1
kind: Workload
metadata: {name: web, labels: {app: web}}
spec:
  image: docker.io/library/web:1.2
  command: ["httpd"]
  args: ["-f", "-p", "8080"]
  env: {MODE: fast, WORKERS: "4"}
  replicas: 3
  resources: {cpu: 250m, memory: 128Mi, storage: 1Gi, bandwidth: 5Mbps}
  placement:
    strategy: spread
    spreadBy: zone
    affinity: [{key: zone, operator: In, values: [home-a], weight: 50}]
    antiAffinity: [{workload: web, topology: node, required: true}]
    tolerations: [{key: gpu, effect: NoSchedule}]
  ports: [{name: http, port: 80, target: 8080, protocol: tcp}]
  probes:
    readiness: {http: {path: /, port: 8080}, period: 2s, timeout: 1s, failures: 3}
    liveness:  {tcp: {port: 8080}, period: 5s}
  restart: {policy: always, backoff: {initial: 1s, max: 60s}}
  update: {minAvailable: 2, maxSurge: 1, order: start-first, minHealthy: 5s, healthyDeadline: 5m}
  onDisconnect: {mode: replace, after: 30s}
  security: {runAsNonRoot: true, readOnlyRootfs: true, capabilities: {add: [NET_BIND_SERVICE]}, sandbox: default}
`

func TestFullManifest(t *testing.T) {
	docs, err := Decode(strings.NewReader(full), "-")
	if err != nil {
		t.Fatal(err)
	}
	two, yes := 2, true
	sec := func(n int) api.Duration { return api.Duration(time.Duration(n) * time.Second) }
	want := Document{Kind: "Workload", Name: "web", Labels: map[string]string{"app": "web"}, Line: 2, Workload: &api.WorkloadSpec{
		Image: "docker.io/library/web:1.2", Command: []string{"httpd"}, Args: []string{"-f", "-p", "8080"},
		Env: map[string]string{"MODE": "fast", "WORKERS": "4"}, Replicas: 3,
		Resources: api.ResourceSpec{CPU: 250, Memory: 128 << 20, Storage: 1 << 30, Bandwidth: 5e6, PIDs: api.DefaultPIDs},
		Placement: api.Placement{Strategy: "spread", SpreadBy: "zone",
			Affinity:     []api.Affinity{{Key: "zone", Operator: "In", Values: []string{"home-a"}, Weight: 50}},
			AntiAffinity: []api.AntiAffinity{{Workload: "web", Topology: "node", Required: true}},
			Tolerations:  []api.Toleration{{Key: "gpu", Effect: "NoSchedule"}}},
		Ports: []api.Port{{Name: "http", Port: 80, Target: 8080, Protocol: "tcp"}},
		Probes: api.Probes{
			Readiness: &api.Probe{HTTP: &api.HTTPProbe{Path: "/", Port: 8080}, Period: sec(2), Timeout: sec(1), Failures: 3},
			Liveness:  &api.Probe{TCP: &api.TCPProbe{Port: 8080}, Period: sec(5), Timeout: sec(1), Failures: 3}},
		Restart:      api.RestartPolicy{Policy: "always", Backoff: api.Backoff{Initial: sec(1), Max: sec(60)}},
		Update:       api.UpdatePolicy{MinAvailable: &two, MaxSurge: 1, Order: "start-first", MinHealthy: sec(5), HealthyDeadline: sec(300)},
		OnDisconnect: api.OnDisconnect{Mode: "replace", After: sec(30)},
		Security: api.SecuritySpec{RunAsNonRoot: true, ReadOnlyRootfs: &yes, Sandbox: "default",
			Capabilities: api.Capabilities{Add: []string{"NET_BIND_SERVICE"}}},
	}}
	if len(docs) != 1 || !reflect.DeepEqual(docs[0], want) {
		t.Errorf("got  %+v\nwant %+v", docs, want)
	}
}

func TestScalars(t *testing.T) {
	for in, want := range map[string]api.ResourceSpec{
		"{cpu: 2, memory: 1.5Gi}":                      {CPU: 2000, Memory: 3 << 29},
		"{cpu: 1.5, memory: 134217728}":                {CPU: 1500, Memory: 128 << 20},
		`{"cpu": "0.25", "memory": "100M"}`:            {CPU: 250, Memory: 1e8},
		"{cpu: 1, memory: 2000000000, pids: 1000}":     {CPU: 1000, Memory: 2e9, PIDs: 1000},
		"{cpu: 1, memory: 64Mi, limits: {cpu: 1500m}}": {CPU: 1000, Memory: 64 << 20, Limits: &api.LimitSpec{CPU: 1500}},
	} {
		docs, err := Decode(strings.NewReader(one("image: web\nresources: "+in)), "")
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if want.PIDs == 0 {
			want.PIDs = api.DefaultPIDs
		}
		if got := docs[0].Workload.Resources; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", in, got, want)
		}
	}
}

// one wraps the lines of a spec into a manifest.
func one(spec string) string {
	return "apiVersion: cloudless/v1\nkind: Workload\nmetadata: {name: web}\nspec:\n  " + strings.ReplaceAll(spec, "\n", "\n  ") + "\n"
}

func TestReplicas(t *testing.T) {
	for spec, want := range map[string]int{"image: web": 1, "image: web\nreplicas: 0": 0, "image: web\nreplicas: 7": 7} {
		docs, err := Decode(strings.NewReader(one(spec)), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := docs[0].Workload.Replicas; got != want {
			t.Errorf("%q: got %d replicas, want %d", spec, got, want)
		}
	}
}

func TestJSONAndAnchors(t *testing.T) {
	for _, in := range []string{
		"{\n\t\"apiVersion\": \"cloudless/v1\",\n\t\"kind\": \"Workload\",\n\t\"metadata\": {\"name\": \"web\"},\n\t\"spec\": {\n\t\t\"image\": \"web\",\n\t\t\"env\": {\"A\": \"x\"}\n\t}\n}\n",
		"\uFEFF" + one("image: web\r\nenv: {A: x}\r"),
		one("image: web\nenv: &e {A: x}\nprobes: {liveness: &p {tcp: {port: 1}}, readiness: *p}"),
		"---\n# a comment\n---\n" + one("image: web\nenv: {A: x}") + "---\n",
	} {
		docs, err := Decode(strings.NewReader(in), "")
		if err != nil {
			t.Errorf("%s\n%s", in, render(err))
			continue
		}
		if len(docs) != 1 || docs[0].Workload.Env["A"] != "x" {
			t.Errorf("%s: got %+v", in, docs)
		}
	}
}

func TestSeveralDocuments(t *testing.T) {
	docs, err := Decode(strings.NewReader(one("image: web")+"---\n"+strings.Replace(one("image: db"), "name: web", "name: db", 1)), "")
	if err != nil || len(docs) != 2 || docs[0].Line != 1 || docs[1].Name != "db" || docs[1].Line != 7 {
		t.Errorf("got %+v, %v", docs, err)
	}
}

// hostile inputs have to be refused without much memory or time.
func hostile() map[string]string {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		was, now := string(rune('0'+i-1)), string(rune('0'+i))
		bomb += "a" + now + ": &a" + now + " [" + strings.TrimSuffix(strings.Repeat("*a"+was+", ", 9), ", ") + "]\n"
	}
	return map[string]string{
		"100 KB of [":     strings.Repeat("[", 100<<10),
		"nested lists":    strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"nested mappings": strings.Repeat("{a: ", 500) + strings.Repeat("}", 500),
		"nested dashes":   strings.Repeat("- ", 500) + "x",
		"alias bomb":      bomb,
		"too big":         "# " + strings.Repeat("x", MaxSize),
		"many documents":  strings.Repeat("--- a\n", 300),
		"many values":     "[" + strings.Repeat("1,", maxNodes) + "]",
		"not text":        "\xff\xfe\x00a",
		"a NUL":           "a: \x00",
	}
}

func TestHostileInput(t *testing.T) {
	for name, in := range hostile() {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(strings.NewReader(in), "bad.yaml")
			var e *api.Error
			if !errors.As(err, &e) || e.Kind != api.KindInvalid || !strings.HasPrefix(e.Message, "bad.yaml") {
				t.Errorf("got %.200v", err)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{"replicsa": "replicas", "Image": "image", "memroy": "memory", "xyz": "", "imaeg": "image", strings.Repeat("a", 100): ""} {
		got, _ := nearest(name, []string{"image", "memory", "replicas"})
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(full)
	for _, in := range hostile() {
		if len(in) <= 100<<10 {
			f.Add(in)
		}
	}
	if data, err := os.ReadFile("testdata/errors.txt"); err == nil {
		for _, block := range strings.Split(string(data), "=== ")[1:] {
			_, rest, _ := strings.Cut(block, "\n")
			input, _, _ := strings.Cut(rest, "---\n")
			f.Add(input)
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		docs, err := Decode(strings.NewReader(in), "fuzz.yaml")
		if err != nil {
			for _, e := range flatten(err) {
				if e.Kind == api.KindInternal || e.Message == "" {
					t.Errorf("%q: %#v", in, e)
				}
			}
			return
		}
		for _, d := range docs {
			if err := d.Workload.Validate("spec"); err != nil {
				t.Errorf("%q was accepted: %v", in, err)
			}
		}
	})
}

// A field of a later version, or one that nobody knows, hides nothing.
func TestEveryProblemIsTold(t *testing.T) {
	_, err := Decode(strings.NewReader(one("image: web\nvolumes: []\nreplicaz: 2\nrestart: {policy: sometimes}\nports: [{port: 0}]")), "")
	var got []string
	for _, e := range flatten(err) {
		got = append(got, e.Error())
	}
	for _, want := range []string{"spec.volumes: a volume is not supported", `no field "replicaz"`, "spec.restart.policy", "spec.ports[0].port"} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s is not told: %q", want, got)
		}
	}
	// Without the value nothing can be said of the rest.
	_, err = Decode(strings.NewReader(one("image: web\nreplicas: many\nrestart: {policy: sometimes}")), "")
	if n := len(flatten(err)); n != 1 {
		t.Errorf("%d problems with a value that does not parse: %v", n, err)
	}
}
