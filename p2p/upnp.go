package p2p

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

// libp2p finds a router in more than four seconds: it searches for one type of
// device after the other, waits three seconds for the answers to each, and
// takes whatever answers. Here all types are searched for at once, the gateway
// is asked directly as well, and the first useful answer ends the search.
//
// Anybody on the LAN may answer a search. Only what comes from the default
// gateway counts: the answer, the address that it names, and everything that is
// fetched afterwards; all of it is bounded.

const (
	ssdpWithin   = 2 * time.Second // for the whole search; a device answers within MX
	ssdpMX       = 1               // seconds, the least that the standard allows
	ssdpAgain    = 300 * time.Millisecond
	ssdpPort     = 1900
	maxSSDP      = 2 << 10 // bytes of one answer
	maxAnswers   = 32      // answers that are looked at, whoever sends them
	maxLocations = 4       // descriptions that are fetched
	upnpTimeout  = 2 * time.Second
	maxUPnPBody  = 256 << 10 // bytes of a description, or of an answer

	upnpName = "cloudless"
	// errPermanentOnly is how a router says that its mappings have no end.
	errPermanentOnly = 725
)

var ssdpGroup = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)

// ssdpTargets are all under which a router may answer.
var ssdpTargets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	internetgateway2.URN_WANIPConnection_1,
	internetgateway2.URN_WANIPConnection_2,
	internetgateway2.URN_WANPPPConnection_1,
}

// wanConnection is the service of a router that maps ports, in any version.
type wanConnection interface {
	AddPortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string, internalPort uint16,
		internalClient string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
}

// upnp asks one gateway for ports.
type upnp struct {
	route
	ask    []netip.AddrPort // where to search
	within time.Duration    // for a search
	found  wanConnection    // nil before, and after it has failed
}

func newUPnP(at route) *upnp {
	return &upnp{route: at, ask: []netip.AddrPort{netip.AddrPortFrom(at.gateway, ssdpPort), ssdpGroup}, within: ssdpWithin}
}

func (u *upnp) mapPorts(ctx context.Context, sockets []socket, lifetime time.Duration) (mappings, error) {
	if u.found == nil {
		var err error
		if u.found, err = u.search(ctx); err != nil {
			return nil, err
		}
	}
	outside, err := u.outside(ctx)
	if err != nil {
		u.found = nil // it may be gone, or another one: search again
		return nil, err
	}
	ports := make(mappings)
	var failed []error
	for _, s := range sockets {
		port, err := u.mapPort(ctx, s, lifetime)
		if err != nil {
			failed = append(failed, fmt.Errorf("map %s port %d: %w", s.proto, s.port, err))
			continue
		}
		ports[s] = netip.AddrPortFrom(outside, port)
	}
	return ports, errors.Join(failed...)
}

func (u *upnp) outside(ctx context.Context) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpTimeout)
	defer cancel()
	text, err := u.found.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ask router for its address: %w", err)
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || !ip.Is4() || ip.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("ask router for its address: it says %.40q", text)
	}
	return ip, nil
}

// mapPort maps a port to the same one outside or, when somebody else has that,
// to one that follows from it.
func (u *upnp) mapPort(ctx context.Context, s socket, lifetime time.Duration) (uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpTimeout)
	defer cancel()
	lease := uint32(lifetime / time.Second)
	var err error
	for _, port := range []uint16{uint16(s.port), 10000 + uint16(s.port*7)%50000, 10000 + uint16(s.port*13)%50000} {
		err = u.found.AddPortMappingCtx(ctx, "", port, upnpProto(s), uint16(s.port), u.local.String(), true, upnpName, lease)
		if upnpCode(err) == errPermanentOnly {
			err = u.found.AddPortMappingCtx(ctx, "", port, upnpProto(s), uint16(s.port), u.local.String(), true, upnpName, 0)
		}
		if err == nil {
			return port, nil
		}
	}
	return 0, err
}

// unmap ends mappings.
func (u *upnp) unmap(ctx context.Context, ports mappings) error {
	if u.found == nil {
		return nil
	}
	var failed []error
	for s, outside := range ports {
		failed = append(failed, u.found.DeletePortMappingCtx(ctx, "", outside.Port(), upnpProto(s)))
	}
	return errors.Join(failed...)
}

func upnpProto(s socket) string { return strings.ToUpper(s.proto) }

func upnpCode(err error) int {
	var fault *soap.SOAPFaultError
	if errors.As(err, &fault) {
		return fault.Detail.UPnPError.Errorcode
	}
	return 0
}

// search asks everywhere at once and takes the first answer that leads to a
// router that maps ports.
func (u *upnp) search(ctx context.Context) (wanConnection, error) {
	ctx, cancel := context.WithTimeout(ctx, u.within)
	defer cancel()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: u.local.AsSlice()})
	if err != nil {
		return nil, fmt.Errorf("search for a router: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	u.send(c)
	again := time.AfterFunc(ssdpAgain, func() { u.send(c) }) // datagrams get lost
	defer again.Stop()

	seen := make(map[string]bool)
	buf := make([]byte, maxSSDP)
	failed := errors.New("nobody answers")
	for range maxAnswers {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		location, err := parseSSDP(buf[:n], from.Addr().Unmap(), u.gateway)
		if err != nil || seen[location.String()] || len(seen) == maxLocations {
			continue
		}
		seen[location.String()] = true
		found, err := u.describe(ctx, location)
		if err == nil {
			return found, nil
		}
		failed = err
	}
	return nil, fmt.Errorf("search for a router: %w", failed)
}

func (u *upnp) send(c *net.UDPConn) {
	for _, to := range u.ask {
		for _, target := range ssdpTargets {
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil,
				"M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: %d\r\nST: %s\r\n\r\n", ssdpGroup, ssdpMX, target), to)
		}
	}
}

// parseSSDP reads an answer to a search. Who sent it must be the gateway, and
// point to nobody else.
func parseSSDP(b []byte, from, gateway netip.Addr) (*url.URL, error) {
	if from != gateway {
		return nil, errors.New("the answer is not the gateway's")
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	defer r.Body.Close()
	location, err := url.Parse(r.Header.Get("Location"))
	if err != nil {
		return nil, fmt.Errorf("read location: %w", err)
	}
	if r.StatusCode != http.StatusOK || !pointsTo(location, gateway) {
		return nil, errors.New("the answer does not point to the gateway")
	}
	return location, nil
}

// pointsTo reports whether a URL names an HTTP server at exactly this address.
func pointsTo(u *url.URL, gateway netip.Addr) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && u.Scheme == "http" && u.User == nil && ip == gateway
}

// describe fetches what the router says of itself and finds the service that
// maps ports.
func (u *upnp) describe(ctx context.Context, location *url.URL) (wanConnection, error) {
	client := http.Client{Transport: gatewayOnly{u.gateway}, CheckRedirect: noRedirect}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("fetch description: %w", err)
	}
	r, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch description: %w", err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch description: %s", r.Status)
	}
	root, err := parseDescription(r.Body, location)
	if err != nil {
		return nil, err
	}
	return u.connection(root, location)
}

// parseDescription reads a description. The addresses of its services are taken
// relative to where it came from, whatever it says of that.
func parseDescription(r io.Reader, location *url.URL) (*goupnp.RootDevice, error) {
	root := new(goupnp.RootDevice)
	d := xml.NewDecoder(io.LimitReader(r, maxUPnPBody))
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(root); err != nil {
		return nil, fmt.Errorf("read description: %w", err)
	}
	root.SetURLBase(location)
	return root, nil
}

// connection returns the best service that maps ports and has an address
// outside.
func (u *upnp) connection(root *goupnp.RootDevice, location *url.URL) (wanConnection, error) {
	bounded := func(c goupnp.ServiceClient) {
		c.SOAPClient.HTTPClient = http.Client{Transport: gatewayOnly{u.gateway}, CheckRedirect: noRedirect}
	}
	if cs, err := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, location); err == nil {
		bounded(cs[0].ServiceClient)
		return cs[0], nil
	}
	if cs, err := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, location); err == nil {
		bounded(cs[0].ServiceClient)
		return cs[0], nil
	}
	if cs, err := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, location); err == nil {
		bounded(cs[0].ServiceClient)
		return cs[0], nil
	}
	return nil, errors.New("the router maps no ports")
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// gatewayOnly carries requests to the gateway and to nobody else, each on a
// connection of its own, and cuts long answers off.
type gatewayOnly struct{ gateway netip.Addr }

func (g gatewayOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if !pointsTo(r.URL, g.gateway) {
		return nil, fmt.Errorf("the router leads to %s, which is not the gateway", strconv.Quote(r.URL.Host))
	}
	t := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxUPnPBody, ResponseHeaderTimeout: upnpTimeout}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxUPnPBody), resp.Body}
	return resp, nil
}
