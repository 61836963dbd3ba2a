package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/internal/atomicfile"
	"github.com/cloudless-project/cloudless/security/identity"
)

func (a *app) anchorRecoveryKeyCommand() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use: "recovery-key", Short: "Make the key that opens the snapshots which ordinary nodes keep",
		Long: "Make the key that opens the snapshots which ordinary nodes keep, and show it once.\n\n" +
			"From then on the leader hands sealed snapshots of the cluster to ordinary nodes. Write the\n" +
			"key down and keep it outside the cluster: whoever has it and a snapshot is the cluster.",
		Args: exactly(),
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runAnchorRecoveryKey(ctx, replace, c, p)
		}),
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "although there is one, which opens older snapshots alone then")
	return cmd
}

// recoveryKeyJSON is a recovery key as scripts see it.
type recoveryKeyJSON struct {
	RecoveryKey string `json:"recovery_key"`
	Fingerprint string `json:"fingerprint"`
}

func runAnchorRecoveryKey(ctx context.Context, replace bool, c *client.Client, p *printer) error {
	key, err := identity.NewRecoveryKey()
	if err != nil {
		return err
	}
	if err := c.SetRecoveryKey(ctx, key.Public(), replace); err != nil {
		return err
	}
	made := recoveryKeyJSON{key.String(), identity.RecoveryFingerprint(key.Public())}
	return p.done(made, made.RecoveryKey, "%s", made.RecoveryKey)
}

func (a *app) anchorSnapshotsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "snapshots", Short: "List the sealed snapshots that ordinary nodes keep; needs no anchor",
		Args: exactly(),
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runAnchorSnapshots(ctx, c, p)
		}),
	}
}

// snapshotJSON is a sealed snapshot as scripts see it.
type snapshotJSON struct {
	Node      api.NodeID `json:"node"`
	NodeName  string     `json:"node_name"`
	Epoch     uint64     `json:"epoch"`
	Index     uint64     `json:"index"`
	Size      int64      `json:"size"`
	CreatedAt moment     `json:"created_at"`
	Key       string     `json:"key"`
}

func newSnapshotJSON(s api.Snapshot) snapshotJSON {
	return snapshotJSON{s.Node, s.NodeName, s.Epoch, s.Index, s.Size, moment(s.CreatedAt), s.Key}
}

var snapshotColumns = []column[api.Snapshot]{
	{title: "NODE", text: func(_ *printer, s api.Snapshot) string { return s.NodeName }},
	{title: "MADE", text: func(p *printer, s api.Snapshot) string { return age(p.now, s.CreatedAt) + " ago" }},
	{title: "INDEX", text: func(_ *printer, s api.Snapshot) string { return strconv.FormatUint(s.Index, 10) }},
	{title: "SIZE", text: func(_ *printer, s api.Snapshot) string { return size(s.Size) }},
	{title: "KEY", text: func(_ *printer, s api.Snapshot) string { return s.Key }},
	{title: "EPOCH", wide: true, text: func(_ *printer, s api.Snapshot) string { return strconv.FormatUint(s.Epoch, 10) }},
	{title: "ID", wide: true, text: func(_ *printer, s api.Snapshot) string { return string(s.Node) }},
}

func runAnchorSnapshots(ctx context.Context, c *client.Client, p *printer) error {
	all, err := c.Snapshots(ctx)
	if err != nil {
		return err
	}
	return printList(p, all, array(all, newSnapshotJSON), func(s api.Snapshot) string { return s.NodeName }, snapshotColumns)
}

func (a *app) anchorFetchCommand() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "fetch FILE", Short: "Save the newest sealed snapshot in a file; needs no anchor",
		Args: exactly("FILE"),
		RunE: a.within(func() time.Duration { return backupTimeout }, func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			return runAnchorFetch(ctx, args[0], node, c, p)
		}),
	}
	cmd.Flags().StringVar(&node, "node", "", "that of `NODE` instead of the newest of all")
	_ = cmd.RegisterFlagCompletionFunc("node", a.completeNodes)
	return cmd
}

// runAnchorFetch tries the snapshots from the newest on: the node that keeps it
// may go away between the list and the fetch.
func runAnchorFetch(ctx context.Context, file, node string, c *client.Client, p *printer) error {
	all, err := c.Snapshots(ctx)
	if err != nil {
		return err
	}
	missing := api.Errorf(api.KindNotFound, "no node in reach keeps a snapshot").
		WithHint("look from another node; or restore a file that was made with: cloudless anchor backup")
	for _, s := range all {
		if node != "" && s.NodeName != node && string(s.Node) != node {
			continue
		}
		var content bytes.Buffer // bounded by its keeper
		if err := c.FetchSnapshot(ctx, s, &content); err != nil {
			missing = api.Errorf(api.KindUnavailable, "the snapshot of %s could not be fetched: %w", s.NodeName, err)
			continue
		}
		h, err := identity.ReadBackupHeader(bytes.NewReader(content.Bytes()), int64(content.Len()))
		if err != nil {
			return err
		}
		if err := saveSealed(file, content.Bytes()); err != nil {
			return err
		}
		return p.done(newSnapshotJSON(s), file, "cluster %s as of %s saved in %s (%s); the recovery key %s opens it",
			h.Name, h.CreatedAt.Format(time.RFC3339), file, size(s.Size), h.Recovery)
	}
	return missing
}

// saveSealed writes a file that is worth nothing without its secret, and is
// nobody's business all the same.
func saveSealed(file string, content []byte) error {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return api.Invalid("FILE", "%v", err)
	}
	defer root.Close()
	if err := atomicfile.Write(root, filepath.Base(file), content, 0o600); err != nil {
		return api.Invalid("FILE", "%v", err)
	}
	return nil
}

// backupSecret makes the key of a backup from what the user gave: a passphrase
// or, for a snapshot, the recovery key.
func backupSecret(h identity.BackupHeader, secret []byte) ([]byte, error) {
	if len(h.Sealed) == 0 {
		return identity.BackupKey(secret, h.Salt), nil
	}
	if !identity.LooksLikeRecoveryKey(string(secret)) {
		return nil, api.Errorf(api.KindInvalid, "this is a snapshot, it is opened by recovery key %s and not by a passphrase", h.Recovery).
			WithHint("it was shown by: cloudless anchor recovery-key")
	}
	key, err := identity.ParseRecoveryKey(string(secret))
	if err != nil {
		return nil, err
	}
	return key.Unseal(h)
}
