package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/internal/retry"
)

// prober asks a container how it is. It runs on the node, so it works when
// every anchor is away.
type prober struct {
	runtime container.Execer
	id      string
	ip      string
}

// watch runs a probe until ctx ends and yields its verdict whenever that
// changes: nil for success, an error after enough failures in a row. The
// channel is nil when there is no probe.
func (p *prober) watch(ctx context.Context, probe *api.Probe) <-chan error {
	if probe == nil {
		return nil
	}
	verdicts := make(chan error)
	go func() {
		if retry.Sleep(ctx, probe.InitialDelay.Std()) != nil {
			return
		}
		failures, known, healthy := 0, false, false
		for {
			err := p.ask(ctx, probe)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				failures = 0
			} else {
				failures++
			}
			if changed := err == nil && !(known && healthy) || failures >= probe.Failures && !(known && !healthy); changed {
				known, healthy = true, err == nil
				select {
				case verdicts <- err:
				case <-ctx.Done():
					return
				}
			}
			wait := probe.Period.Std()
			if !known {
				wait = min(wait, eagerPeriod) // a replica should serve as soon as it can
			}
			if retry.Sleep(ctx, retry.Jitter(wait)) != nil {
				return
			}
		}
	}()
	return verdicts
}

// eagerPeriod is how often a replica is asked that has not answered yet.
const eagerPeriod = 200 * time.Millisecond

// ask runs a probe once.
func (p *prober) ask(ctx context.Context, probe *api.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, probe.Timeout.Std())
	defer cancel()
	switch {
	case probe.HTTP != nil:
		return p.http(ctx, probe.HTTP)
	case probe.TCP != nil:
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(p.ip, strconv.Itoa(probe.TCP.Port)))
		if err != nil {
			return err
		}
		return conn.Close()
	default:
		return p.exec(ctx, probe.Exec)
	}
}

// probeClient never follows redirects (a probe asks this replica, nobody else)
// and keeps no connections.
var probeClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (p *prober) http(ctx context.Context, h *api.HTTPProbe) error {
	url := "http://" + net.JoinHostPort(p.ip, strconv.Itoa(h.Port)) + "/" + strings.TrimPrefix(h.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s answered %s", h.Path, resp.Status)
	}
	return nil
}

func (p *prober) exec(ctx context.Context, e *api.ExecProbe) error {
	var out bytes.Buffer
	limited := &limitedWriter{w: &out, left: 256}
	code, err := p.runtime.Exec(ctx, p.id, container.ExecSpec{Args: e.Command, Stdout: limited, Stderr: limited})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("exited %d: %s", code, strings.TrimSpace(out.String()))
	}
	return nil
}

// limitedWriter keeps the first bytes and swallows the rest.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
