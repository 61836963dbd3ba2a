package node

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

func TestCertificateMetrics(t *testing.T) {
	adm := newBureau(t).admission(false)
	d := &daemon{registry: prometheus.NewRegistry(), admission: adm, twins: newTwins(adm, "/d", zap.NewNop()), views: &viewCache{}}
	d.registerCertificateMetrics()
	values := func() map[string]float64 {
		t.Helper()
		families, err := d.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]float64)
		for _, f := range families {
			out[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
		return out
	}
	got := values()
	if left := got["cloudless_node_certificate_expiry_seconds"]; left < 23*3600 || left > 24*3600 {
		t.Errorf("the certificate ends in %v s", left)
	}
	if got["cloudless_node_certificate_authority_generation"] != 1 || got["cloudless_node_authority_generation"] != 1 || got["cloudless_node_duplicated"] != 0 {
		t.Errorf("values %v", got)
	}
	d.twins.Told(api.NodeID("anchor"), "/ip4/192.0.2.1/tcp/1")
	if values()["cloudless_node_duplicated"] != 1 {
		t.Error("a twin does not show")
	}
}
