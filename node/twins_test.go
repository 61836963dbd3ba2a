package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// peek opens a device's data directory beside its daemon.
func peek(h *device) (*dataDir, error) {
	root, err := os.OpenRoot(h.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	return &dataDir{Root: root, path: h.cfg.DataDir}, nil
}

// errorSays fails unless an error's message or hint holds one of the texts.
func errorSays(err error, texts ...string) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return errors.Join(errors.New("want an *api.Error"), err)
	}
	for _, text := range texts {
		if strings.Contains(e.Message+" "+e.Hint, text) {
			return nil
		}
	}
	return fmt.Errorf("%q, hint %q, does not say %v", e.Message, e.Hint, texts)
}

// copyDir copies a directory as it is, modes included.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCopiedDataDirectory: two daemons with one identity are found, both are told
// what to do, and the cluster knows; a restart is no such thing (CLD-REQ-060).
func TestCopiedDataDirectory(t *testing.T) {
	t.Parallel()
	anchor, original := newDevice(t, "anchor"), newDevice(t, "original")
	anchor.start(func(c *Config) { c.Init = true })
	join := anchor.token(api.RoleNode)
	original.start(func(c *Config) { c.Join = join })
	original.shutdown()
	clone := newDevice(t, "original")
	copyDir(t, original.cfg.DataDir, clone.cfg.DataDir)
	for range 2 {
		original.start(nil) // the identity has been here before; it is alone
		original.shutdown()
	}
	original.start(nil)
	c := anchor.client()
	defer c.Close()
	problem := func(ctx context.Context) (string, error) {
		n, err := c.Node(ctx, "original")
		return n.Problem, err
	}
	if p, err := problem(t.Context()); err != nil || p != "" {
		t.Fatalf("after restarts: %q, %v", p, err)
	}

	clone.launch(nil)
	for _, d := range []*device{original, clone} {
		own := d.client()
		defer own.Close()
		d.eventually("both devices refuse people's calls and say why", func(ctx context.Context) error {
			_, err := own.Nodes(ctx)
			return errors.Join(errorSays(err, "another device runs with the identity of this node"), errorSays(err, "wipe "+d.cfg.DataDir))
		})
		d.eventually("both devices' status tells", func(ctx context.Context) error {
			st, err := own.Status(ctx)
			if err == nil && (st.Ready || !strings.Contains(st.Reason, "another device")) {
				err = fmt.Errorf("ready %v: %s", st.Ready, st.Reason)
			}
			return err
		})
	}
	anchor.eventually("the cluster tells", func(ctx context.Context) error {
		p, err := problem(ctx)
		if err == nil && !strings.Contains(p, "fresh token") {
			err = fmt.Errorf("the node's problem is %q", p)
		}
		return err
	})
	anchor.awaitEvent(api.CodeNodeDuplicated, "original")
}
