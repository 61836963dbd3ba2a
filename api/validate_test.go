package api_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// valid returns the smallest spec that people write, with its defaults.
func valid(change func(*api.WorkloadSpec)) *api.WorkloadSpec {
	s := &api.WorkloadSpec{Image: "web:1.2", Replicas: 3}
	change(s)
	s.SetDefaults()
	return s
}

func TestDefaults(t *testing.T) {
	s := valid(func(s *api.WorkloadSpec) {
		s.Ports = []api.Port{{Port: 80}, {Port: 53, Protocol: "udp", Name: "dns", Target: 5353}}
		s.Probes.Readiness = &api.Probe{HTTP: &api.HTTPProbe{Port: 80}}
		s.Placement.Strategy = api.StrategySpread
		s.Placement.AntiAffinity = []api.AntiAffinity{{}}
	})
	if err := s.Validate("spec"); err != nil {
		t.Fatal(err)
	}
	yes := true
	want := &api.WorkloadSpec{
		Image: "docker.io/library/web:1.2", Replicas: 3,
		Resources: api.ResourceSpec{CPU: 100, Memory: 64 << 20, PIDs: 512},
		Placement: api.Placement{Strategy: "spread", SpreadBy: "node", AntiAffinity: []api.AntiAffinity{{Topology: "node"}}},
		Ports: []api.Port{
			{Name: "tcp-80", Port: 80, Target: 80, Protocol: "tcp"},
			{Name: "dns", Port: 53, Target: 5353, Protocol: "udp"},
		},
		Probes: api.Probes{Readiness: &api.Probe{HTTP: &api.HTTPProbe{Path: "/", Port: 80},
			Period: api.Duration(2 * time.Second), Timeout: api.Duration(time.Second), Failures: 3}},
		Restart:      api.RestartPolicy{Policy: "always", Backoff: api.Backoff{Initial: api.Duration(500 * time.Millisecond), Max: api.Duration(time.Minute)}},
		Update:       api.UpdatePolicy{MaxSurge: 1, Order: "start-first", HealthyDeadline: api.Duration(5 * time.Minute)},
		OnDisconnect: api.OnDisconnect{Mode: "replace", After: api.Duration(30 * time.Second)},
		Security:     api.SecuritySpec{ReadOnlyRootfs: &yes, Sandbox: "default"},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	s.SetDefaults()
	if !reflect.DeepEqual(s, want) {
		t.Error("setting the defaults twice changes the spec")
	}
}

func TestMinAvailable(t *testing.T) {
	two := 2
	for _, c := range []struct {
		replicas int
		asked    *int
		want     int
	}{{0, nil, 0}, {1, nil, 0}, {2, nil, 1}, {5, nil, 4}, {5, &two, 2}, {1, &two, 1}} {
		s := api.WorkloadSpec{Replicas: c.replicas, Update: api.UpdatePolicy{MinAvailable: c.asked}}
		if got := s.MinAvailable(); got != c.want {
			t.Errorf("replicas %d, minAvailable %v: got %d, want %d", c.replicas, c.asked, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	five := 5
	for _, c := range []struct {
		name   string
		change func(*api.WorkloadSpec)
		want   []string // the whole errors, in order
	}{
		{"nothing wrong", func(*api.WorkloadSpec) {}, nil},
		{"no replicas", func(s *api.WorkloadSpec) { s.Replicas = 0 }, nil},
		{"image", func(s *api.WorkloadSpec) { s.Image = "Web" },
			[]string{`spec.image: "Web" is not an image reference: repository name (library/Web) must be lowercase`}},
		{"everything at once", func(s *api.WorkloadSpec) { s.Image, s.Replicas, s.WorkingDir = "", 1001, "tmp" }, []string{
			"spec.image: an image is needed", `spec.workingDir: "tmp" is not an absolute path`,
			"spec.replicas: 1001 is out of range: it must be from 0 to 1000"}},
		{"env", func(s *api.WorkloadSpec) { s.Env = map[string]string{"1A": "", "B": "\x00"} }, []string{
			`spec.env: "1A" is not the name of a variable: use letters, digits and underscores, not starting with a digit`,
			"spec.env.B: a NUL character cannot be passed to a process"}},
		{"memory", func(s *api.WorkloadSpec) { s.Resources.Memory = 1 << 20 },
			[]string{"spec.resources.memory: 1Mi is out of range: it must be from 4Mi to 1024Ti"}},
		{"limits", func(s *api.WorkloadSpec) { s.Resources.Limits = &api.LimitSpec{CPU: 50} },
			[]string{"spec.resources.limits.cpu: the limit 50m is below the request 100m"}},
		{"ports", func(s *api.WorkloadSpec) {
			s.Ports = []api.Port{{Port: 80}, {Port: 80, Name: "x"}, {Port: 80, Protocol: "udp"}, {Port: 70000}, {Port: 1, Protocol: "sctp", Name: "x"}}
		}, []string{"spec.ports[1].port: 80/tcp is taken by spec.ports[0]",
			"spec.ports[3].port: 70000 is out of range: it must be from 1 to 65535",
			`spec.ports[4].protocol: "sctp" is not one of tcp, udp`, `spec.ports[4].name: "x" is taken by spec.ports[1]`}},
		{"probe", func(s *api.WorkloadSpec) {
			s.Probes.Liveness = &api.Probe{TCP: &api.TCPProbe{}, Exec: &api.ExecProbe{Command: []string{"true"}}, Period: 1}
		}, []string{"spec.probes.liveness.tcp.port: 0 is out of range: it must be from 1 to 65535",
			"spec.probes.liveness: a probe has exactly one of http, tcp and exec, this one has 2",
			"spec.probes.liveness.period: 1ns is out of range: it must be from 100ms to 1h0m0s"}},
		{"affinity", func(s *api.WorkloadSpec) {
			s.Placement.Affinity = []api.Affinity{{Key: "zone", Operator: "In"}, {Key: "a b", Operator: "Like"}}
		}, []string{"spec.placement.affinity[0].values: operator In needs values",
			`spec.placement.affinity[1].key: "a b" is not a label key: use up to 63 letters, digits, dashes, dots, slashes and underscores`,
			`spec.placement.affinity[1].operator: "Like" is not one of In, NotIn, Exists, DoesNotExist`}},
		{"spreadBy", func(s *api.WorkloadSpec) { s.Placement.SpreadBy = "zone" },
			[]string{"spec.placement.spreadBy: strategy binpack does not spread"}},
		{"update", func(s *api.WorkloadSpec) { s.Update.MinAvailable = &five },
			[]string{"spec.update.minAvailable: 5 is out of range: it must be from 0 to 3"}},
		{"rollback", func(s *api.WorkloadSpec) { s.Update.OnFailure = "rollback" },
			[]string{"spec.update.onFailure: rollback is not supported by this version"}},
		{"onDisconnect", func(s *api.WorkloadSpec) {
			s.OnDisconnect = api.OnDisconnect{Mode: "stop", After: api.Duration(5 * time.Second)}
		}, []string{"spec.onDisconnect.after: must be at least 15s with mode stop: a node hears from the anchors every few seconds"}},
		{"backoff", func(s *api.WorkloadSpec) {
			s.Restart.Backoff = api.Backoff{Initial: api.Duration(time.Minute), Max: api.Duration(time.Second)}
		}, []string{"spec.restart.backoff.max: 1s is below backoff.initial, which is 1m0s"}},
		{"security", func(s *api.WorkloadSpec) {
			s.User = "0:100"
			s.Security = api.SecuritySpec{RunAsNonRoot: true, Sandbox: "gvisor",
				Capabilities: api.Capabilities{Add: []string{"NET_ADMIN", "cap_net_raw", "FLY", "NET_ADMIN"}}}
		}, []string{"spec.security.runAsNonRoot: user is 0:100, which is root",
			`spec.security.capabilities.add[1]: "cap_net_raw" has another spelling here`,
			`spec.security.capabilities.add[2]: "FLY" is not a capability of the kernel`,
			"spec.security.capabilities.add[3]: NET_ADMIN is there already",
			"spec.security.sandbox: sandbox gvisor is not supported by this version"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := valid(c.change).Validate("spec")
			if got := lines(err); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func TestAbsentSandboxIsUnsupported(t *testing.T) {
	err := valid(func(s *api.WorkloadSpec) { s.Security.Sandbox = "gvisor" }).Validate("spec")
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindUnsupported || e.Hint == "" {
		t.Errorf("got %#v, want an unsupported error with a hint", err)
	}
}

func TestValidateName(t *testing.T) {
	for _, name := range []string{"a", "web-2", strings.Repeat("a", 63)} {
		if err := api.ValidateName("name", name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "-a", "a-", "A", "a.b", "a b", strings.Repeat("a", 64), "ä"} {
		if api.KindOf(api.ValidateName("name", name)) != api.KindInvalid {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestValidateLabels(t *testing.T) {
	if err := api.ValidateLabels("labels", map[string]string{"example.org/tier": "front", "empty": ""}); err != nil {
		t.Error(err)
	}
	if got := lines(api.ValidateLabels("labels", map[string]string{"": "x", "k": "a b"})); len(got) != 2 {
		t.Errorf("got %q", got)
	}
}

func TestNormaliseImageRef(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string]string{
		"web":                     "docker.io/library/web:latest",
		"web:1.2":                 "docker.io/library/web:1.2",
		"me/web":                  "docker.io/me/web:latest",
		"docker.io/web":           "docker.io/library/web:latest",
		"index.docker.io/web":     "docker.io/library/web:latest",
		"localhost/web":           "localhost/web:latest",
		"reg.example:5000/a/b/c":  "reg.example:5000/a/b/c:latest",
		"web" + digest:            "docker.io/library/web" + digest,
		"web:1" + digest:          "docker.io/library/web:1" + digest,
		"docker.io/library/web:1": "docker.io/library/web:1",
		"":                        "", "Web": "", "web:": "", "web@sha256:abc": "", "a b": "", strings.Repeat("a", 600): "",
	} {
		got, err := api.NormaliseImageRef(ref)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q (%v), want %q", ref, got, err, want)
		}
		if err == nil {
			if again, _ := api.NormaliseImageRef(got); again != got {
				t.Errorf("%q: not stable: %q", got, again)
			}
		}
	}
}
