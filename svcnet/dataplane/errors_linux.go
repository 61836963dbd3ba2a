package dataplane

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

// explain turns the refusals of a kernel into what a person can do about them.
func explain(doing string, err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return api.Errorf(api.KindDenied, "%s: %w", doing, err).
			WithHint("the node needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root, or start it with --no-workloads")
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return api.Errorf(api.KindUnsupported, "%s: %w", doing, err).
			WithHint("the kernel lacks something: it needs bridge, veth, network namespaces and nf_tables with masquerade")
	}
	return fmt.Errorf("%s: %w", doing, err)
}
