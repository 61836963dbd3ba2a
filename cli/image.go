package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Bring images into the cluster"}
	cmd.AddCommand(
		a.imageImportCommand(),
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the images of the cluster",
			Args: exactly(),
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
				return runImageList(ctx, c, p)
			}),
		},
		&cobra.Command{
			Use: "remove REF", Aliases: []string{"rm"}, Short: "Forget an image",
			Args: exactly("REF"),
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				return runImageRemove(ctx, args[0], c, p)
			}),
		},
	)
	return cmd
}

type imageImportOptions struct {
	file string
	name string
}

func (a *app) imageImportCommand() *cobra.Command {
	var opts imageImportOptions
	cmd := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Import an image archive (OCI layout or docker save, maybe gzipped)",
		Args:  exactly("FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts.file = args[0]
		archive, err := a.open(opts.file)
		if err != nil {
			return err
		}
		defer archive.Close()
		return a.stream(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runImageImport(ctx, opts, a.watchReads(archive), c, p)
		})(cmd, args)
	}
	cmd.Flags().StringVar(&opts.name, "name", "", "call the image `REF`, not as the archive says")
	return cmd
}

func runImageImport(ctx context.Context, opts imageImportOptions, archive *progress, c *client.Client, p *printer) error {
	images, err := c.ImportImage(ctx, opts.name, archive)
	archive.end(err == nil)
	if err != nil {
		return err
	}
	return printImages(p, images)
}

func runImageList(ctx context.Context, c *client.Client, p *printer) error {
	images, err := c.Images(ctx)
	if err != nil {
		return err
	}
	return printImages(p, images)
}

func printImages(p *printer, images []api.Image) error {
	return printList(p, images, array(images, newImageJSON), func(i api.Image) string { return i.Ref }, imageColumns)
}

func runImageRemove(ctx context.Context, ref string, c *client.Client, p *printer) error {
	if err := c.RemoveImage(ctx, ref); err != nil {
		return err
	}
	removed := struct {
		Ref     string `json:"ref"`
		Removed bool   `json:"removed"`
	}{ref, true}
	return p.done(removed, ref, "image %s removed", ref)
}

type imageJSON struct {
	Ref        string       `json:"ref"`
	Digest     string       `json:"digest"`
	Size       int64        `json:"size"`
	Platforms  []string     `json:"platforms"`
	Holders    []api.NodeID `json:"holders"`
	ImportedAt moment       `json:"imported_at"`
}

func newImageJSON(i api.Image) imageJSON {
	return imageJSON{
		i.Ref, i.Digest, i.Size, append([]string{}, i.Platforms...), append([]api.NodeID{}, i.Holders...), moment(i.ImportedAt),
	}
}

var imageColumns = []column[api.Image]{
	{title: "REF", text: func(_ *printer, i api.Image) string { return i.Ref }},
	{title: "SIZE", text: func(_ *printer, i api.Image) string { return size(i.Size) }},
	{title: "PLATFORMS", text: func(_ *printer, i api.Image) string { return or(strings.Join(i.Platforms, ","), none) }},
	{title: "HOLDERS", text: func(_ *printer, i api.Image) string { return strconv.Itoa(len(i.Holders)) }},
	{title: "AGE", text: func(p *printer, i api.Image) string { return age(p.now, i.ImportedAt) }},
	{title: "DIGEST", wide: true, text: func(_ *printer, i api.Image) string { return i.Digest }},
}

// progress passes an archive on and says on stderr how far it is: as it goes on
// a terminal, once at the end elsewhere.
type progress struct {
	archive io.Reader
	out     io.Writer
	live    bool
	total   int64 // 0 when it is not known
	done    int64
	said    time.Time
}

func (a *app) watchReads(archive io.Reader) *progress {
	p := &progress{archive: archive, out: a.stderr, live: isTerminal(a.stderr)}
	if f, ok := archive.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			p.total = info.Size()
		}
	}
	return p
}

// Read implements io.Reader.
func (p *progress) Read(b []byte) (int, error) {
	n, err := p.archive.Read(b)
	p.done += int64(n)
	if p.live && time.Since(p.said) > 100*time.Millisecond {
		p.said = time.Now()
		fmt.Fprintf(p.out, "\r\x1b[K%s", p.text("sending"))
	}
	return n, err
}

func (p *progress) text(verb string) string {
	if p.total > 0 {
		return fmt.Sprintf("%s %s of %s (%d%%)", verb, size(p.done), size(p.total), 100*p.done/p.total)
	}
	return fmt.Sprintf("%s %s", verb, size(p.done))
}

func (p *progress) end(succeeded bool) {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	if succeeded {
		fmt.Fprintln(p.out, p.text("sent"))
	}
}
