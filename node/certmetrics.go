package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// registerCertificateMetrics lets people see a certificate run out before it
// does.
func (d *daemon) registerCertificateMetrics() {
	gauge := func(name, help string, value func() float64) {
		d.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "cloudless", Subsystem: "node", Name: name, Help: help}, value))
	}
	gauge("certificate_expiry_seconds", "Seconds until the membership certificate ends; negative once it has.", func() float64 {
		return time.Until(d.admission.self().NotAfter).Seconds()
	})
	gauge("certificate_authority_generation", "Generation of the cluster's authority that issued the membership certificate.", func() float64 {
		return float64(d.admission.self().Authority)
	})
	gauge("authority_generation", "Generation of the cluster's authority that issues, as far as this node has heard.", func() float64 {
		c := d.views.current().Cluster
		return float64(c.IssuingAuthority())
	})
	gauge("duplicated", "1 while another device runs with the identity of this node.", func() float64 {
		if d.twins.duplicated() != nil {
			return 1
		}
		return 0
	})
}
