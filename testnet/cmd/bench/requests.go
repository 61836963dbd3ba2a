//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/cloudless-project/cloudless/testnet"
)

const (
	probeWord = "probe" // first argument of this program inside a device
	requests  = 1000    // one after the other

	resolverAddr = "10.213.0.53:53"
)

// requests measures how long small things take: a name, and a page over a new connection
// through the virtual address, beside the same page on the replica's own node.
func (b *bench) requests(ctx context.Context) error {
	image := filepath.Join(b.lab.Dir, "page.tar")
	const ref = "cloudless.test/page:1"
	if err := testnet.WriteWebImage(image, ref, 1); err != nil {
		return err
	}
	server, client := b.lab.Device("a1"), b.lab.Device("a2")
	if _, err := server.Cloudless(ctx, "image", "import", image); err != nil {
		return err
	}
	if err := b.vps.Apply(ctx, manifest("page", ref, 8080, server.Name)); err != nil {
		return err
	}
	w, err := b.vps.AwaitReplicas(ctx, patient, "page", 1)
	if err != nil {
		return err
	}
	names, err := probe(ctx, client, "dns", "page.cloudless.internal.")
	if err != nil {
		return err
	}
	direct, err := probe(ctx, server, "http", fmt.Sprintf("http://%s:8080/ballast", w.Ready()[0].Address))
	if err != nil {
		return err
	}
	through, err := probe(ctx, client, "http", "http://page.cloudless.internal:8080/ballast")
	if err != nil {
		return err
	}
	fmt.Printf("%-32s DNS P50 %.2f ms P99 %.2f ms, page by VIP P50 %.2f ms P99 %.2f ms, on its own node P50 %.2f ms P99 %.2f ms\n",
		"small requests", names.P50, names.P99, through.P50, through.P99, direct.P50, direct.P99)
	b.figures = append(b.figures,
		figure{Name: "dns_p50_ms", Value: names.P50, Unit: "ms"},
		figure{Name: "dns_p99_ms", Value: names.P99, Unit: "ms"},
		compared("vip_request_p50_ms", "ms", through.P50, direct.P50, through.P50/direct.P50),
		compared("vip_request_p99_ms", "ms", through.P99, direct.P99, through.P99/direct.P99))
	return b.remove(ctx, "page")
}

// delays are those of a probe, in milliseconds.
type delays struct{ P50, P99 float64 }

// probe has this program make requests from inside a device.
func probe(ctx context.Context, d *testnet.Device, what, target string) (delays, error) {
	self, err := os.Executable()
	if err != nil {
		return delays{}, err
	}
	out, err := d.Output(ctx, self, probeWord, what, target)
	if err != nil {
		return delays{}, err
	}
	var result delays
	return result, json.Unmarshal([]byte(out), &result)
}

// probing is what this program does inside a device.
func probing() bool {
	if len(os.Args) != 4 || os.Args[1] != probeWord {
		return false
	}
	ask := map[string]func(string) error{"dns": askName, "http": getPage}[os.Args[2]]
	if err := json.NewEncoder(os.Stdout).Encode(timeRequests(ask, os.Args[3])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// timeRequests waits for the first answer; from then on no request may fail.
func timeRequests(ask func(string) error, target string) delays {
	for deadline := time.Now().Add(patient); ask(target) != nil && time.Now().Before(deadline); {
		<-time.After(100 * time.Millisecond)
	}
	took := make([]time.Duration, requests)
	for i := range took {
		start := time.Now()
		if err := ask(target); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return delays{P50: ms(took[requests/2]), P99: ms(took[requests*99/100])}
}

func askName(name string) error {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	answer, err := dns.Exchange(m, resolverAddr)
	if err == nil && len(answer.Answer) != 1 {
		err = fmt.Errorf("%d answers for %s", len(answer.Answer), name)
	}
	return err
}

// getPage opens a new connection each time.
func getPage(url string) error {
	resp, err := oneShot.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

var oneShot = &http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true}}
