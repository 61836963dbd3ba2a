package node

import (
	"bytes"
	"testing"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// rebuilt makes a backup, stops the anchor for good, and restores it as another
// device that is not started yet.
func rebuilt(t *testing.T, old *device) *device {
	t.Helper()
	key := bytes.Repeat([]byte{1}, identity.BackupKeySize)
	var backup bytes.Buffer
	c := old.client()
	defer c.Close()
	if err := c.Backup(t.Context(), key, []byte("salt"), &backup); err != nil {
		t.Fatal(err)
	}
	old.shutdown()
	fresh := newDevice(t, "fresh")
	_, err := Restore(t.Context(), RestoreConfig{
		DataDir: fresh.cfg.DataDir, Name: "fresh", Backup: bytes.NewReader(backup.Bytes()), Size: int64(backup.Len()), Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// TestMembersFindARestoredAnchor: nobody can dial the member, as behind a NAT: it
// listens elsewhere now than the backup says. It finds the new anchor all the
// same, without a token (NFR-R1).
func TestMembersFindARestoredAnchor(t *testing.T) {
	leads := map[string]api.AnchorStanding{"fresh": api.AnchorLeader}
	t.Run("at the address of the old one", func(t *testing.T) {
		t.Parallel()
		old, member := newDevice(t, "old"), newDevice(t, "member")
		old.cfg.Listen = []string{"/ip4/127.0.0.1/tcp/" + freePort(t)}
		old.start(func(cfg *Config) { cfg.Init = true })
		join := old.token(api.RoleNode)
		member.start(func(cfg *Config) { cfg.Join = join })
		fresh := rebuilt(t, old)
		member.shutdown()
		fresh.cfg.Listen = old.cfg.Listen
		fresh.start(nil)
		member.start(nil)
		member.standings(leads)
	})
	t.Run("by way of a neighbour", func(t *testing.T) {
		t.Parallel()
		old, near, member := newDevice(t, "old"), newDevice(t, "near"), newDevice(t, "member")
		near.cfg.Listen = []string{"/ip4/127.0.0.1/tcp/" + freePort(t)} // where both find it
		old.start(func(cfg *Config) { cfg.Init = true })
		for _, d := range []*device{near, member} {
			join := old.token(api.RoleNode)
			d.start(func(cfg *Config) { cfg.Join = join })
		}
		fresh := rebuilt(t, old)
		member.shutdown()
		fresh.start(nil)
		member.start(nil)
		member.standings(leads)
	})
}
