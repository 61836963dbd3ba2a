//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/testnet"
)

// The registers of a history are workloads that never run; the value of one is a
// label. A value is written once at most, so it stands for the version that a
// compare-and-set expects.
const (
	registers     = 8
	valueLabel    = "value"
	registerImage = "cloudless.test/none:1"
	opTimeout     = 3 * time.Second
	breath        = 20 * time.Millisecond  // between two operations of a client
	afterFailure  = 400 * time.Millisecond // bounds how many outcomes are unknown
)

// operation is one call of a client, as it prints it.
type operation struct {
	Client  int    `json:"client"`
	Key     string `json:"key"`
	Kind    string `json:"kind"`   // read, write or cas
	Expect  string `json:"expect"` // of a cas
	Value   string `json:"value"`  // written, or read
	Outcome string `json:"outcome"`
	Start   int64  `json:"start"` // Unix nanoseconds: all devices share a clock
	End     int64  `json:"end"`
}

// The outcomes. A write that failed may have been made all the same.
const (
	outcomeOK       = "ok"
	outcomeConflict = "conflict"
	outcomeUnknown  = "unknown"
)

// registerClient reads and writes registers at the node of its device until its
// standard input ends, and prints what became of it. It runs on a device.
func registerClient(id string) int {
	n, err := strconv.Atoi(id)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c, err := client.Dial(client.Options{Socket: "/run/cloudless/cloudless.sock"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	r := &registerUser{id: n, client: c, rand: rand.New(rand.NewPCG(uint64(n), 7)), seen: map[string]api.WorkloadStatus{}}
	out := json.NewEncoder(os.Stdout)
	for {
		op := r.step()
		if err := out.Encode(op); err != nil {
			return 1
		}
		pause := breath
		if op.Outcome == outcomeUnknown {
			pause = afterFailure
		}
		select {
		case <-stop:
			return 0
		case <-time.After(pause):
		}
	}
}

type registerUser struct {
	id     int
	client *client.Client
	rand   *rand.Rand
	seen   map[string]api.WorkloadStatus // as it was read last
	writes int
}

func (r *registerUser) step() operation {
	op := operation{Client: r.id, Key: fmt.Sprintf("reg%d", r.rand.IntN(registers)), Kind: "read", Start: time.Now().UnixNano()}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	var err error
	switch before, known := r.seen[op.Key]; {
	case r.rand.IntN(2) == 0 && known && r.rand.IntN(4) > 0:
		op.Kind, op.Expect = "cas", before.Labels[valueLabel]
		err = r.write(ctx, &op, before.Version)
	case r.rand.IntN(2) == 0:
		op.Kind = "write"
		err = r.write(ctx, &op, 0)
	default:
		var w api.WorkloadStatus
		if w, err = r.client.Workload(ctx, op.Key); err == nil {
			op.Value, r.seen[op.Key] = w.Labels[valueLabel], w
		}
	}
	op.End = time.Now().UnixNano()
	switch {
	case err == nil:
		op.Outcome = outcomeOK
	case op.Kind == "cas" && api.KindOf(err) == api.KindConflict:
		op.Outcome = outcomeConflict
	default:
		op.Outcome = outcomeUnknown
	}
	return op
}

func (r *registerUser) write(ctx context.Context, op *operation, version uint64) error {
	r.writes++
	op.Value = fmt.Sprintf("c%d-%d", r.id, r.writes)
	delete(r.seen, op.Key)
	_, _, err := r.client.Apply(ctx, register(op.Key, op.Value, version))
	return err
}

func register(key, value string, version uint64) api.ApplyRequest {
	return api.ApplyRequest{
		Name: key, Labels: map[string]string{valueLabel: value}, ExpectVersion: version,
		Spec: api.WorkloadSpec{Image: registerImage, Replicas: 0},
	}
}

// history collects what clients on devices do.
type history struct {
	t       *testing.T
	mu      sync.Mutex
	all     []operation
	clients sync.WaitGroup
	stops   []io.Closer
}

// attend runs a client on a device until the history ends.
func (h *history) attend(d *testnet.Device, id int) {
	self, err := os.Executable()
	must(h.t, err)
	in, stop := io.Pipe()
	out, lines := io.Pipe()
	h.stops = append(h.stops, stop)
	h.clients.Go(func() {
		err := d.Run(h.t.Context(), testnet.Cmd{Args: []string{self, "registers", strconv.Itoa(id)}, Stdin: in, Stdout: lines, Stderr: os.Stderr})
		lines.CloseWithError(io.EOF)
		if err != nil && h.t.Context().Err() == nil {
			h.t.Errorf("the client on %s: %v", d.Name, err)
		}
	})
	h.clients.Go(func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			var op operation
			if err := json.Unmarshal(scan.Bytes(), &op); err != nil {
				h.t.Errorf("the client on %s says %q: %v", d.Name, scan.Text(), err)
				return
			}
			h.mu.Lock()
			h.all = append(h.all, op)
			h.mu.Unlock()
		}
	})
}

// acknowledged counts the writes that have succeeded.
func (h *history) acknowledged() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.all {
		if op.Kind != "read" && op.Outcome == outcomeOK {
			n++
		}
	}
	return n
}

// goesOn waits until writes are acknowledged again.
func (h *history) goesOn(after string) {
	h.t.Helper()
	before := h.acknowledged()
	await(h.t, "writes to go on after "+after, func(context.Context) error {
		if n := h.acknowledged(); n < before+10 {
			return fmt.Errorf("%d more are acknowledged", n-before)
		}
		return nil
	})
}

// end stops the clients and returns what they did.
func (h *history) end() []operation {
	for _, s := range h.stops {
		_ = s.Close()
	}
	h.clients.Wait()
	return h.all
}

// registerModel is a register that is read, written, and compared and set.
var registerModel = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range all {
			key := op.Input.(operation).Key
			by[key] = append(by[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range by {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		op, now := input.(operation), state.(string)
		switch {
		case op.Kind == "read":
			return op.Value == now, now
		case op.Kind == "write":
			return true, op.Value
		case op.Outcome == outcomeConflict:
			return op.Expect != now, now
		case op.Expect == now:
			return true, op.Value
		}
		return op.Outcome == outcomeUnknown, now
	},
	DescribeOperation: func(input, _ any) string {
		op := input.(operation)
		return strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", op.Kind, op.Key, op.Expect, op.Value, op.Outcome))
	},
}

// checkLinearizable makes sure that there is an order of the operations that
// explains all that the clients saw. A write whose outcome is unknown may happen
// at any time after it began, or after everything else.
func checkLinearizable(t *testing.T, all []operation) {
	t.Helper()
	var ops []porcupine.Operation
	unknown := 0
	for _, op := range all {
		p := porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Start, Return: op.End}
		if op.Outcome == outcomeUnknown {
			if op.Kind == "read" {
				continue // it saw nothing
			}
			unknown++
			p.Return = 1<<63 - 1
		}
		ops = append(ops, p)
	}
	result, info := porcupine.CheckOperationsVerbose(registerModel, ops, time.Minute)
	t.Logf("%d operations, %d of unknown outcome: %s", len(ops), unknown, result)
	if result == porcupine.Ok {
		return
	}
	picture, err := os.CreateTemp("", "cloudless-history-*.html")
	must(t, err)
	defer picture.Close()
	must(t, porcupine.Visualize(registerModel, info, picture))
	t.Errorf("the history is not linearizable, or too tangled to tell: %s; see %s", result, picture.Name())
}

// TestRegisterModel: the check finds what it is there for.
func TestRegisterModel(t *testing.T) {
	op := func(start, end int64, kind, expect, value, outcome string) operation {
		return operation{Client: int(start), Key: "reg0", Kind: kind, Expect: expect, Value: value, Outcome: outcome, Start: start, End: end}
	}
	for _, c := range []struct {
		name string
		all  []operation
		want porcupine.CheckResult
	}{
		{"one after another", []operation{op(1, 2, "write", "", "a", "ok"), op(3, 4, "read", "", "a", "ok")}, porcupine.Ok},
		{"a stale read", []operation{op(1, 2, "write", "", "a", "ok"), op(3, 4, "write", "", "b", "ok"), op(5, 6, "read", "", "a", "ok")}, porcupine.Illegal},
		{"a lost write", []operation{op(1, 2, "write", "", "a", "ok"), op(3, 4, "read", "", "", "ok")}, porcupine.Illegal},
		{"two who set the same", []operation{op(1, 9, "cas", "", "a", "ok"), op(2, 8, "cas", "", "b", "ok")}, porcupine.Illegal},
		{"a conflict without a reason", []operation{op(1, 2, "cas", "", "a", "conflict")}, porcupine.Illegal},
		{"unheard, and made", []operation{op(1, 1<<62, "write", "", "a", "unknown"), op(3, 4, "read", "", "a", "ok")}, porcupine.Ok},
		{"unheard, and not made", []operation{op(1, 1<<62, "write", "", "a", "unknown"), op(3, 4, "read", "", "", "ok")}, porcupine.Ok},
	} {
		var ops []porcupine.Operation
		for _, o := range c.all {
			ops = append(ops, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Start, Return: o.End})
		}
		if got := porcupine.CheckOperationsTimeout(registerModel, ops, time.Minute); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
