//go:build linux

package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// probeEnv tells RunInit that this process is a client that asks a URL again
// and again.
const probeEnv = "CLOUDLESS_LAB_PROBE"

// The rhythm of a probe: often enough to see an outage of a tenth of a second,
// seldom enough to leave the machine to what is measured.
const (
	probeInterval = 25 * time.Millisecond
	probeTimeout  = 2 * time.Second // of one request
)

// answer is one line of a probe's output.
type answer struct {
	At    time.Time     `json:"at"` // of the answer
	Took  time.Duration `json:"took"`
	Body  string        `json:"body,omitempty"`
	Error string        `json:"error,omitempty"`
}

// runProbe is the program behind Device.Probe. Each request resolves the name
// and opens a connection of its own, as a new client would.
func runProbe(url string) error {
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	enc := json.NewEncoder(os.Stdout)
	for tick := time.Tick(probeInterval); ; <-tick {
		start := time.Now()
		body, err := get(context.Background(), client, url)
		a := answer{At: time.Now(), Took: time.Since(start), Body: strings.TrimSpace(body)}
		if err != nil {
			a.Error = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", resp.Status)
	}
	return string(body), nil
}

// Probe is a client on a device that asks a URL some forty times a second and
// remembers how long it ever had to wait for an answer.
type Probe struct {
	Device string
	stop   context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	last     time.Time // of the last good answer, or of the start
	longest  time.Duration
	answers  int
	failures int
	lastErr  string
}

// Probe starts a client that asks url until Stop.
func (d *Device) Probe(ctx context.Context, url string) (*Probe, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	p := &Probe{Device: d.Name, stop: stop, done: make(chan struct{}), last: time.Now()}
	out, in := io.Pipe()
	var stderr bytes.Buffer
	go func() {
		err := d.Run(ctx, Cmd{Args: []string{self}, Env: []string{probeEnv + "=" + url}, Stdout: in, Stderr: &stderr})
		in.CloseWithError(err)
	}()
	go func() {
		defer close(p.done)
		p.follow(out)
	}()
	return p, nil
}

func (p *Probe) follow(r io.Reader) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var a answer
		if err := json.Unmarshal(sc.Bytes(), &a); err != nil {
			continue
		}
		p.mu.Lock()
		if a.Error != "" {
			p.failures++
			p.lastErr = a.Error
		} else {
			p.longest = max(p.longest, a.At.Sub(p.last))
			p.last = a.At
			p.answers++
		}
		p.mu.Unlock()
	}
	if err := sc.Err(); err != nil && !errors.Is(err, context.Canceled) {
		p.mu.Lock()
		p.lastErr = err.Error()
		p.mu.Unlock()
	}
}

// Result is what a probe has seen since its start or the last Reset.
type Result struct {
	Longest  time.Duration // without an answer
	Answers  int
	Failures int
	LastErr  string
}

// Result returns what was seen so far. A silence that has not ended counts.
func (p *Probe) Result() Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Result{max(p.longest, time.Since(p.last)), p.answers, p.failures, p.lastErr}
}

// Reset forgets what was seen so far.
func (p *Probe) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.longest, p.answers, p.failures, p.lastErr = time.Now(), 0, 0, 0, ""
}

// Stop ends the probe and returns what it has seen.
func (p *Probe) Stop() Result {
	r := p.Result()
	p.stop()
	<-p.done
	return r
}
