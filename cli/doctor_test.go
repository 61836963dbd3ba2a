package cli

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// daemonFake is a daemon that says how it is.
type daemonFake struct {
	pb.UnimplementedSystemServiceServer
	status api.Status
	err    error
}

func (s daemonFake) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return &pb.GetStatusResponse{Status: wire.StatusToPB(s.status)}, wire.ErrorToStatus(s.err)
}

func (s daemonFake) serve(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterSystemServiceServer(server, s)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return socket
}

func TestDoctor(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "s")
	ready := daemonFake{status: api.Status{Name: "pi", ClusterName: "home", Ready: true}}.serve(t)
	for name, tt := range map[string]struct {
		socket string
		found  []api.Check
		code   int
		want   string
	}{
		"a healthy machine without a node": {nowhere, []api.Check{{Name: "kernel", Status: api.CheckOK, Detail: "6.18.0"}}, exitOK,
			"✓ kernel  6.18.0\n✓ daemon  no node runs here: there is no " + nowhere + "\n\n2 ok, 0 warnings, 0 failures\n"},
		"with a node, and a warning": {ready, []api.Check{{Name: "swap", Status: api.CheckWarn, Detail: "it is not encrypted", Fix: "encrypt it"}}, exitOK,
			"! swap    it is not encrypted\n          → encrypt it\n✓ daemon  node pi of cluster home is ready\n\n1 ok, 1 warning, 0 failures\n"},
		"unfit": {nowhere, []api.Check{{Name: "cgroups", Status: api.CheckFail, Detail: "none"}}, exitError,
			"✗ cgroups  none\n✓ daemon   no node runs here: there is no " + nowhere + "\n\n1 ok, 0 warnings, 1 failure\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var got HostConfig
			examine := HostDoctor(func(_ context.Context, cfg HostConfig) []api.Check { got = cfg; return tt.found })
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), []string{"doctor", "--socket", tt.socket, "--data-dir", "/d", "--containerd", "/c"}, nil, &stdout, &stderr, examine)
			if code != tt.code || stdout.String() != tt.want || stderr.Len() > 0 {
				t.Errorf("exit code %d, got\n%s%s\nwant\n%s", code, &stdout, &stderr, tt.want)
			}
			if want := (HostConfig{DataDir: "/d", Socket: tt.socket, Containerd: "/c"}); got != want {
				t.Errorf("it was told to look at %+v, want %+v", got, want)
			}
		})
	}
}

func TestDaemonIsAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		daemon daemonFake
		status api.CheckStatus
		detail string
	}{
		"not ready":       {daemonFake{status: api.Status{Name: "pi", ClusterName: "home", Reason: "its state is suspect"}}, api.CheckWarn, "its state is suspect"},
		"does not answer": {daemonFake{err: api.Errorf(api.KindInternal, "a fault")}, api.CheckFail, "a fault"},
		"refuses":         {daemonFake{err: api.Errorf(api.KindDenied, "not you")}, api.CheckFail, "not you"},
	} {
		t.Run(name, func(t *testing.T) {
			c := checkDaemon(t.Context(), tt.daemon.serve(t))
			if c.Status != tt.status || !strings.Contains(c.Detail, tt.detail) || c.Fix == "" {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestChecksAreColoured(t *testing.T) {
	var out bytes.Buffer
	_ = printChecks(&printer{out: &out, format: formatTable, coloured: true}, sampleChecks())
	for _, want := range []string{"\x1b[33m!\x1b[0m nat", "\x1b[32m✓\x1b[0m path/pi", "\x1b[31m✗\x1b[0m udp"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}
