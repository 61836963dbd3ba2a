//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// TestAcknowledgedWritesSurviveKills: the anchor's daemon is killed again and
// again while tokens and workloads are written; what was acknowledged is there
// afterwards (CLD-REQ-012).
func TestAcknowledgedWritesSurviveKills(t *testing.T) {
	const kills = 6
	ctx := t.Context()
	lab := newCluster(t)
	vps := lab.Device("vps")
	var w writer
	for range kills {
		done := make(chan struct{})
		round, stop := context.WithCancel(ctx)
		go func() {
			defer close(done)
			w.write(round, vps)
		}()
		goal := w.count() + 4
		await(t, "some writes to be acknowledged", func(context.Context) error {
			if n := w.count(); n < goal {
				return fmt.Errorf("%d of %d are", n, goal)
			}
			return nil
		})
		must(t, vps.SignalNode(ctx, syscall.SIGKILL)) // in the middle of the next one
		_, err := vps.WaitNode(ctx)
		must(t, err)
		stop()
		<-done
		must(t, vps.Restart(ctx))
		await(t, "the anchor to lead again", func(ctx context.Context) error {
			_, err := vps.Nodes(ctx)
			return err
		})
	}

	var tokens []testnet.Token
	must(t, vps.CloudlessJSON(ctx, &tokens, "token", "list"))
	var workloads []testnet.Workload
	must(t, vps.CloudlessJSON(ctx, &workloads, "workload", "list"))
	t.Logf("%d writes acknowledged over %d kills", w.count(), kills)
	for _, id := range w.tokens {
		if !slices.ContainsFunc(tokens, func(t testnet.Token) bool { return t.ID == id }) {
			t.Errorf("token %s was acknowledged and is gone", id)
		}
	}
	for _, name := range w.workloads {
		if !slices.ContainsFunc(workloads, func(w testnet.Workload) bool { return w.Name == name }) {
			t.Errorf("workload %s was acknowledged and is gone", name)
		}
	}
}

// writer writes until told to stop and remembers what was acknowledged.
type writer struct {
	mu        sync.Mutex
	n         int
	tokens    []string
	workloads []string
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tokens) + len(w.workloads)
}

func (w *writer) write(ctx context.Context, d *testnet.Device) {
	for ctx.Err() == nil {
		var token testnet.Token
		if d.CloudlessJSON(ctx, &token, "token", "create") == nil {
			w.mu.Lock()
			w.tokens = append(w.tokens, token.ID)
			w.mu.Unlock()
		}
		w.n++
		name := fmt.Sprintf("w%d", w.n)
		manifest := "apiVersion: cloudless/v1\nkind: Workload\nmetadata: {name: " + name + "}\nspec: {image: cloudless.test/none:1, replicas: 0}\n"
		if d.Apply(ctx, manifest) == nil {
			w.mu.Lock()
			w.workloads = append(w.workloads, name)
			w.mu.Unlock()
		}
	}
}
