package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newRegistry returns a registry with the process's own metrics.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// metricsServer serves /metrics: in clear on a loopback address, where only
// this machine can ask, and otherwise with mutual TLS for members.
func metricsServer(address string, reg *prometheus.Registry, adm *admission, key ed25519.PrivateKey) (func(context.Context) error, error) {
	l, err := listenTCP("--metrics-listen", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	srv := &http.Server{
		Handler: mux, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	secure := !isLoopback(l.Addr())
	if secure {
		srv.TLSConfig = serverTLS(adm, key)
		srv.Handler = membersOnly(adm, mux)
	}
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() {
			srv.Close()
			l.Close() // the server knows it only once it serves
		})
		defer stop()
		var err error
		if secure {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
			return nil
		}
		return err
	}, nil
}

// membersOnly asks for every request anew: a connection may outlive the
// membership that opened it.
func membersOnly(adm *admission, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "members only", http.StatusForbidden)
			return
		}
		if _, err := memberOf(adm, *r.TLS); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().IsLoopback()
}
