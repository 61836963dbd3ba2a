package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// jsonNames returns the names of the fields of a struct in JSON.
func jsonNames(v any) []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func testToken(t *testing.T, role api.Role) identity.Token {
	t.Helper()
	authority, err := identity.NewAuthority("home", noon)
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.NewToken(authority.ClusterID(), []string{"/ip4/192.0.2.1/tcp/4717/p2p/12D3KooWBhMbLvQQ1hQWFqWhKGgKXxvYnnvYNTPyuCHpKMQSYLzF"}, role)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestNodeStart(t *testing.T) {
	token := testToken(t, api.RoleNode).String()
	var got NodeConfig
	daemon := Daemon(func(ctx context.Context, cfg NodeConfig) error {
		got = cfg
		return nil
	})
	args := []string{
		"node", "start", "--data-dir", "/d", "--join", "-", "--name", "pi", "--region", "eu", "--zone", "home-a",
		"--label", "a=1", "--label", "b=", "--taint", "gpu=yes:NoSchedule", "--taint", "slow:PreferNoSchedule",
		"--listen", "/ip4/0.0.0.0/tcp/1", "--announce", "/ip4/192.0.2.1/tcp/1", "--public", "yes", "--anchor", "never", "--raft-timing", "wan",
		"--relay-limit", "50Mbps", "--bandwidth", "20Mbps", "--socket", "/s", "--api-listen", ":443", "--metrics-listen", "127.0.0.1:9090", "--containerd", "/c", "--no-workloads",
	}
	var stderr bytes.Buffer
	if code := Run(t.Context(), args, strings.NewReader(token+"\n"), nil, &stderr, daemon); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	want := NodeConfig{
		DataDir: "/d", Join: token, Name: "pi", Region: "eu", Zone: "home-a",
		Labels: map[string]string{"a": "1", "b": ""},
		Taints: []api.Taint{{Key: "gpu", Value: "yes", Effect: "NoSchedule"}, {Key: "slow", Effect: "PreferNoSchedule"}},
		Listen: []string{"/ip4/0.0.0.0/tcp/1"}, Announce: []string{"/ip4/192.0.2.1/tcp/1"}, Public: "yes", Anchor: "never", RelayLimit: 50e6, Bandwidth: 20e6,
		Socket: "/s", APIListen: ":443", MetricsListen: "127.0.0.1:9090", Containerd: "/c", NoWorkloads: true, RaftTiming: "wan",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestNodeStopsWithoutAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	daemon := Daemon(func(ctx context.Context, _ NodeConfig) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	if code := Run(ctx, []string{"node", "start", "--data-dir", "d"}, nil, nil, &bytes.Buffer{}, daemon); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A person who follows ends it by interrupting.
func TestInterruptedFollow(t *testing.T) {
	_, socket := newFakeNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &cancelAt{text: "nas is ready", cancel: cancel}
	code := Run(ctx, []string{"--socket", socket, "events", "--follow"}, nil, stdout, &bytes.Buffer{}, at(noon))
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestInterruptedQuestion(t *testing.T) {
	_, socket := newFakeNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	var stderr bytes.Buffer
	code := Run(ctx, []string{"--socket", socket, "node", "show", "slow"}, nil, &bytes.Buffer{}, &stderr, at(noon))
	if code != exitError || stderr.String() != "cloudless: interrupted\n" {
		t.Errorf("exit code %d, %q", code, &stderr)
	}
}

// cancelAt cancels when a text is written.
type cancelAt struct {
	text   string
	cancel func()
}

func (c *cancelAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.text)) {
		c.cancel()
	}
	return len(p), nil
}

func TestCompletion(t *testing.T) {
	_, socket := newFakeNode(t)
	got := run(t, "", "--socket", socket, "__complete", "node", "show", "")
	if !strings.HasPrefix(got.stdout, "pi\nvps\n") {
		t.Errorf("nodes: %q", got.stdout)
	}
	got = run(t, "", "--socket", socket, "__complete", "workload", "logs", "")
	if !strings.HasPrefix(got.stdout, "web\n") {
		t.Errorf("workloads: %q", got.stdout)
	}
	got = run(t, "", "completion", "bash")
	if got.code != 0 || !strings.Contains(got.stdout, "cloudless") {
		t.Errorf("bash: exit code %d", got.code)
	}
}

func TestVersion(t *testing.T) {
	got := run(t, "", "version", "-o", "json")
	var v api.Version
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Version == "" || v.Go == "" || v.OS == "" || v.Arch == "" || v.Commit == "" {
		t.Errorf("%q: %v", got.stdout, err)
	}
}

func TestColours(t *testing.T) {
	var out bytes.Buffer
	p := &printer{out: &out, format: formatTable, coloured: true, now: noon}
	if err := printTable(p, sampleNodes(), nodeColumns[:3]); err != nil {
		t.Fatal(err)
	}
	want := "NAME  STATE    ROLES\n" +
		"pi    \x1b[33msuspect\x1b[0m  worker\n" +
		"vps   \x1b[32mready\x1b[0m    anchor,leader,relay\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestNoTrailingSpaces(t *testing.T) {
	var out bytes.Buffer
	rows := [][]string{{"a", "", "c"}, {"aaa", "b", ""}, {"ü", "", ""}}
	if err := writeAligned(&out, rows, func(int, int) colour { return colourNone }); err != nil {
		t.Fatal(err)
	}
	if want := "a       c\naaa  b\nü\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1023: "1023", 1024: "1Ki", 1536: "1.5Ki", 128 << 20: "128Mi", 1<<30 - 1: "1Gi", 5 << 40: "5Ti"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 3 * time.Minute: "3m", 47 * time.Hour: "47h", 73 * time.Hour: "3d"} {
		if got := age(noon, noon.Add(-d)); got != want {
			t.Errorf("age of %s = %s, want %s", d, got, want)
		}
	}
	for ms, want := range map[float64]string{0: "-", 0.26: "0.3ms", 42.4: "42ms"} {
		if got := milliseconds(ms); got != want {
			t.Errorf("milliseconds(%v) = %s, want %s", ms, got, want)
		}
	}
}

func TestWantsJSON(t *testing.T) {
	for args, want := range map[string]bool{
		"node list -o json": true, "-ojson node list": true, "--output json x": true, "--output=json": true, "-o=json": true,
		"node list": false, "-o yaml": false, "workload exec web -- tool -o json": false, "-o": false,
	} {
		if got := wantsJSON(strings.Fields(args)); got != want {
			t.Errorf("wantsJSON(%q) = %v", args, got)
		}
	}
}
