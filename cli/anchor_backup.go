package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/security/identity"
)

// minSecret is the shortest secret that a backup is sealed with, in bytes: the
// file may lie about for years.
const minSecret = 12

// backupTimeout is how long a backup may take unless --timeout says otherwise.
const backupTimeout = 5 * time.Minute

// RestoreConfig is what "anchor restore" was told.
type RestoreConfig struct {
	DataDir string
	Name    string // of the new node, "" for the host's
	Backup  io.ReaderAt
	Size    int64  // of the backup, in bytes
	Key     []byte // that opens it
}

// Restored is what became of a restore.
type Restored struct {
	Cluster     string     `json:"cluster"` // ID
	ClusterName string     `json:"cluster_name"`
	Node        api.NodeID `json:"node"`
	Name        string     `json:"name"`
	Epoch       uint64     `json:"epoch"`
}

// Restorer gives "anchor restore" the work that only a node can do.
func Restorer(restore func(context.Context, RestoreConfig) (Restored, error)) Option {
	return func(a *app) { a.restore = restore }
}

func (a *app) anchorBackupCommand() *cobra.Command {
	var secretFile string
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Save the state and the authority, sealed with a passphrase",
		Args: exactly("FILE"),
		RunE: a.within(func() time.Duration { return backupTimeout }, func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			secret, err := a.readSecret(secretFile, true)
			if err != nil {
				return err
			}
			defer clear(secret)
			return runAnchorBackup(ctx, args[0], secret, c, p)
		}),
	}
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "take the passphrase, or a key, from `FILE`; - for stdin")
	return cmd
}

// backupJSON is a backup as scripts see it.
type backupJSON struct {
	File      string `json:"file"`
	Size      int64  `json:"size"`
	Cluster   string `json:"cluster"`
	Epoch     uint64 `json:"epoch"`
	CreatedAt moment `json:"created_at"`
}

func runAnchorBackup(ctx context.Context, file string, secret []byte, c *client.Client, p *printer) error {
	salt, err := identity.NewBackupSalt()
	if err != nil {
		return err
	}
	var content bytes.Buffer // a state is some megabytes
	if err := c.Backup(ctx, identity.BackupKey(secret, salt), salt, &content); err != nil {
		return err
	}
	h, err := identity.ReadBackupHeader(bytes.NewReader(content.Bytes()), int64(content.Len()))
	if err != nil {
		return err
	}
	if err := saveSealed(file, content.Bytes()); err != nil {
		return err
	}
	saved := backupJSON{file, int64(content.Len()), h.Cluster, h.Epoch, moment(h.CreatedAt)}
	return p.done(saved, file, "cluster %s saved in %s (%s); without the passphrase it is worth nothing", h.Name, file, size(saved.Size))
}

func (a *app) anchorRestoreCommand() *cobra.Command {
	var secretFile string
	cfg := RestoreConfig{}
	cmd := &cobra.Command{
		Use:   "restore FILE --data-dir DIR",
		Short: "Make this machine the only anchor of a cluster, from a backup or snapshot",
		Long: "Make this machine the only anchor of a cluster, from a backup.\n\n" +
			"It is for a cluster that has lost its anchors for good: those that come back are put\n" +
			"out of office. It works without a daemon, on a machine that is not a node yet.\n" +
			"Afterwards start the node on the same directory: cloudless node start --data-dir DIR",
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runAnchorRestore(cmd.Context(), args[0], secretFile, cfg, a)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", "", "`DIR` of the new node, empty or not there yet")
	f.StringVar(&cfg.Name, "name", "", "`NAME` of the new node (default the host's)")
	f.StringVar(&secretFile, "secret-file", "", "take the passphrase, or the recovery key, from `FILE`; - for stdin")
	return cmd
}

func runAnchorRestore(ctx context.Context, file, secretFile string, cfg RestoreConfig, a *app) error {
	switch {
	case cfg.DataDir == "":
		return badUsage("cloudless anchor restore", "--data-dir is missing")
	case a.restore == nil:
		return api.Errorf(api.KindUnsupported, "this platform cannot be a node").WithHint("restore on a Linux machine")
	}
	f, err := os.Open(file)
	if err != nil {
		return api.Errorf(api.KindNotFound, "%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return api.Errorf(api.KindInternal, "%w", err)
	}
	h, err := identity.ReadBackupHeader(f, info.Size())
	if err != nil {
		return err
	}
	secret, err := a.readSecret(secretFile, false)
	if err != nil {
		return err
	}
	defer clear(secret)
	if err := a.confirm("Make this machine the only anchor of %s, as it was at %s? Its other anchors, if any live, are put out of office.",
		h.Name, h.CreatedAt.Format(time.RFC3339)); err != nil {
		return err
	}
	key, err := backupSecret(h, secret)
	if err != nil {
		return err
	}
	cfg.Backup, cfg.Size, cfg.Key = f, info.Size(), key
	r, err := a.restore(ctx, cfg)
	if err != nil {
		return err
	}
	return a.printer().done(r, r.Name, "%s is the only anchor of %s; start it with: cloudless node start --data-dir %s", r.Name, r.ClusterName, cfg.DataDir)
}

// readSecret returns what seals or opens a backup: the content of a file, or
// what a person types, twice when it is new.
func (a *app) readSecret(file string, fresh bool) ([]byte, error) {
	if file == "" {
		return a.askSecret(fresh)
	}
	r, err := a.open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	secret, err := io.ReadAll(io.LimitReader(r, maxTokenFile))
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return checkSecret(bytes.TrimRight(secret, "\r\n"))
}

func (a *app) askSecret(fresh bool) ([]byte, error) {
	in, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(a.stdin) || !isTerminal(a.stderr) {
		return nil, api.Invalid("--secret-file", "is missing").WithHint("name a file with the passphrase, or - for stdin")
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(a.stderr, prompt)
		defer fmt.Fprintln(a.stderr)
		return term.ReadPassword(int(in.Fd()))
	}
	prompt := "passphrase: "
	if !fresh {
		prompt = "passphrase, or recovery key: "
	}
	secret, err := ask(prompt)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	if fresh {
		again, err := ask("once more: ")
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		if !bytes.Equal(secret, again) {
			return nil, api.Invalid("passphrase", "the two are not the same")
		}
	}
	return checkSecret(secret)
}

func checkSecret(secret []byte) ([]byte, error) {
	if len(secret) < minSecret {
		return nil, api.Invalid("passphrase", "has %d characters, at least %d are needed", len(secret), minSecret).
			WithHint("several random words make a good one")
	}
	return secret, nil
}
