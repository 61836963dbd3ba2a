//go:build linux

package natmatrix

import (
	"os"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/testnet"
)

// TestMain makes this test binary serve two more purposes: the init of a
// device, and the mesh that runs on it.
func TestMain(m *testing.M) {
	testnet.RunInit()
	RunProgram()
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
}

// TestMatrix measures the pairs that decide most in practice; `make nat`
// measures all of them.
func TestMatrix(t *testing.T) {
	needRoot(t)
	pairs := append(Pairs("cone", "symmetric"), Pairs("full-cone", "symmetric")[1])
	pairs = append(pairs, Pairs("dual", "v6")[1], Pairs("double", "cone")[1], Pairs("cone", "tcp-only")[1])
	m, err := NewMatrix(t.Context(), pairs)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	m.Settle, m.Within = 2*time.Second, 30*time.Second
	for _, p := range pairs {
		t.Run(p.A.Name+"-"+p.B.Name, func(t *testing.T) {
			r := m.Measure(t.Context(), p)
			if r.Err != nil {
				t.Error(r.Err)
			}
			t.Logf("%s: first path %v, direct %v, echo %v", r.Path, r.First, r.Direct, r.Echo)
		})
	}
}

func TestScenarios(t *testing.T) {
	needRoot(t)
	for _, s := range Scenarios() {
		if s.Long {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			figures, err := s.Run(t.Context())
			if err != nil {
				t.Error(err)
			}
			for _, f := range figures {
				t.Logf("%s: %.2f %s (aim %.1f)", f.Name, f.Value, f.Unit, f.Baseline)
			}
		})
	}
}

func TestExpect(t *testing.T) {
	kinds := make(map[string]Kind)
	for _, k := range Kinds() {
		kinds[k.Name] = k
	}
	for _, tt := range []struct {
		a, b string
		want api.Path
	}{
		{"cone", "cone", api.PathDirect}, {"cone", "symmetric", api.PathRelayed}, {"full-cone", "symmetric", api.PathDirect},
		{"upnp", "symmetric", api.PathDirect}, {"tcp-only", "nat-pmp", api.PathDirect}, {"tcp-only", "full-cone", api.PathRelayed},
		{"dual", "v6", api.PathDirect}, {"cone", "v6", api.PathRelayed}, {"dual", "cone", api.PathRelayed},
	} {
		if got := Expect(kinds[tt.a], kinds[tt.b]); got != tt.want {
			t.Errorf("%s and %s: %s expected, want %s", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3}
	for p, want := range map[int]float64{1: 1, 50: 3, 95: 5, 100: 5} {
		if got := percentile(samples, p); got != want {
			t.Errorf("P%d of %v is %v, want %v", p, samples, got, want)
		}
	}
}

func TestWriteFigures(t *testing.T) {
	path := t.TempDir() + "/bench.jsonl"
	const other = `{"name":"vip_gbit","value":1,"unit":"Gbit/s","baseline":null,"ratio":null}`
	if err := os.WriteFile(path, []byte(other+"\n"+`{"name":"a","value":9}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFigures(path, []Figure{{Name: "a", Value: 1, Unit: "s", Baseline: 2, Ratio: 0.5}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := other + "\n" + `{"name":"a","value":1,"unit":"s","baseline":2,"ratio":0.5}` + "\n"
	if string(got) != want {
		t.Errorf("the file holds\n%s\nwant\n%s", got, want)
	}
}
