//go:build linux

package containerd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// layersAtOnce is how many layers of one image travel at the same time. A home
// uplink gains nothing from more.
const layersAtOnce = 3

// Pull implements container.Images.
func (r *Runtime) Pull(ctx context.Context, ref string) (container.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.PullTimeout)
	defer cancel()
	img, err := r.client.Pull(ctx, ref, client.WithResolver(newResolver()), client.WithMaxConcurrentDownloads(layersAtOnce))
	if err != nil {
		return container.Image{}, r.explain(explainPull(err, ref), "pull", "image "+ref)
	}
	return r.image(ctx, img.Metadata())
}

func newResolver() remotes.Resolver {
	transport := docker.DefaultHTTPTransport(nil)
	transport.ResponseHeaderTimeout = 30 * time.Second
	http := &http.Client{Transport: transport}
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(
			docker.WithClient(http),
			docker.WithPlainHTTP(docker.MatchLocalhost),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(http))),
		),
	})
}

// explainPull names what people can do something about.
func explainPull(err error, ref string) error {
	var (
		status    remoteerrors.ErrUnexpectedStatus
		dns       *net.DNSError
		transport *url.Error
	)
	switch {
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden),
		errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return api.Errorf(api.KindDenied, "the registry refuses %s: %w", ref, err).
			WithHint("it is private or does not exist; import it with 'cloudless image import'")
	case errdefs.IsNotFound(err):
		return api.Errorf(api.KindNotFound, "the registry has no image %s for this platform: %w", ref, err).
			WithHint("check name and tag, or import it with 'cloudless image import'")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &dns), errors.As(err, &transport):
		return api.Errorf(api.KindUnavailable, "the registry of %s cannot be reached: %w", ref, err).
			WithHint("check the network of this node, or import the image with 'cloudless image import'")
	}
	return err
}
