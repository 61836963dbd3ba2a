package p2p

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// router is a fake one that speaks UPnP on the loopback.
type router struct {
	search netip.AddrPort
	url    string

	mu      sync.Mutex
	actions []string
	leases  bool // it gives mappings an end
}

const description = `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase>http://192.0.2.66:80/</URLBase><device>
 <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
 <deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>
  <deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>
   <serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
    <serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>%s</controlURL>
   </service></serviceList></device></deviceList></device></deviceList></device></root>`

// newRouter starts a router. location is what it answers a search with, control
// where its service is; "" are the right ones.
func newRouter(t *testing.T, location, control string) *router {
	t.Helper()
	r := &router{leases: true}
	if control == "" {
		control = "/ctl"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/desc.xml", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, description, control) })
	mux.HandleFunc("/ctl", r.control)
	mux.Handle("/away", http.RedirectHandler("/desc.xml", http.StatusFound))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	r.url = s.URL
	if location == "" {
		location = s.URL + "/desc.xml"
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	r.search = c.LocalAddr().(*net.UDPAddr).AddrPort()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "InternetGatewayDevice:1") {
				_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: %s\r\n\r\n", location), from)
			}
		}
	}()
	return r
}

func (r *router) control(w http.ResponseWriter, req *http.Request) {
	_, action, _ := strings.Cut(strings.Trim(req.Header.Get("SOAPACTION"), `"`), "#")
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	value := func(name string) string {
		_, rest, _ := strings.Cut(string(body), "<"+name+">")
		v, _, _ := strings.Cut(rest, "</")
		return v
	}
	r.actions = append(r.actions, strings.TrimSpace(action+" "+value("NewProtocol")+" "+value("NewExternalPort")+" "+value("NewLeaseDuration")))
	fault := func(code int) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
	}
	switch {
	case action == "AddPortMapping" && value("NewExternalPort") == "4717" && value("NewProtocol") == "TCP":
		fault(718) // somebody else has it
		return
	case action == "AddPortMapping" && !r.leases && value("NewLeaseDuration") != "0":
		fault(errPermanentOnly)
		return
	}
	out := ""
	if action == "GetExternalIPAddress" {
		out = "<NewExternalIPAddress>9.0.0.1</NewExternalIPAddress>"
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%[1]sResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">%[2]s</u:%[1]sResponse></s:Body></s:Envelope>`, action, out)
}

func (r *router) did(action string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.actions {
		if a == action {
			return true
		}
	}
	return false
}

func (r *router) client() *upnp {
	home := netip.MustParseAddr("127.0.0.1")
	return &upnp{route: route{home, home}, ask: []netip.AddrPort{r.search}, within: testTimeout}
}

func TestUPnPMapsPorts(t *testing.T) {
	r := newRouter(t, "", "")
	u := r.client()
	sockets := []socket{{"udp", 4000}, {"tcp", 4717}}
	ports, err := u.mapPorts(testContext(t), sockets, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	outside := netip.MustParseAddr("9.0.0.1")
	if ports[sockets[0]] != netip.AddrPortFrom(outside, 4000) {
		t.Errorf("UDP port 4000 is mapped to %v", ports[sockets[0]])
	}
	if p := ports[sockets[1]]; p.Addr() != outside || p.Port() == 4717 || p.Port() < 1024 {
		t.Errorf("TCP port 4717, which is taken, is mapped to %v", p)
	}
	if !r.did("AddPortMapping UDP 4000 60") {
		t.Errorf("the mapping has another lifetime: %q", r.actions)
	}
	if err := u.unmap(testContext(t), ports); err != nil || !r.did("DeletePortMapping UDP 4000") {
		t.Errorf("the mapping was not ended: %v, %q", err, r.actions)
	}
}

func TestUPnPWithoutLeases(t *testing.T) {
	r := newRouter(t, "", "")
	r.leases = false
	ports, err := r.client().mapPorts(testContext(t), []socket{{"udp", 4000}}, time.Minute)
	if err != nil || len(ports) != 1 || !r.did("AddPortMapping UDP 4000 0") {
		t.Errorf("%v, %v, %q", ports, err, r.actions)
	}
}

// TestUPnPTrustsTheGatewayAlone: whoever else answers on the LAN, or is pointed
// to, is not asked for anything.
func TestUPnPTrustsTheGatewayAlone(t *testing.T) {
	asked := make(chan string, 10)
	other, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: other, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		fmt.Fprintf(w, description, "/ctl")
	})}}
	s.Start()
	t.Cleanup(s.Close)
	for name, r := range map[string]*router{
		"a location elsewhere":   newRouter(t, s.URL+"/desc.xml", ""),
		"a service elsewhere":    newRouter(t, "", s.URL+"/ctl"),
		"a location by name":     newRouter(t, "http://localhost:1/desc.xml", ""),
		"a location that is not": newRouter(t, "file:///etc/passwd", ""),
	} {
		t.Run(name, func(t *testing.T) {
			u := r.client()
			u.within = 200 * time.Millisecond // nothing will come
			if ports, err := u.mapPorts(testContext(t), []socket{{"udp", 4000}}, time.Minute); err == nil {
				t.Errorf("ports were mapped: %v", ports)
			}
		})
	}
	if len(asked) > 0 {
		t.Errorf("somebody else was asked for %s", <-asked)
	}
	r := newRouter(t, "", "")
	u := r.client()
	u.gateway, u.within = netip.MustParseAddr("127.0.0.3"), 200*time.Millisecond
	if _, err := u.search(testContext(t)); err == nil {
		t.Error("an answer of somebody who is not the gateway was taken")
	}
}

func TestUPnPFollowsNoRedirect(t *testing.T) {
	r := newRouter(t, "", "")
	u := r.client()
	away, err := url.Parse(r.url + "/away")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.describe(testContext(t), away); err == nil {
		t.Error("a redirect was followed")
	}
}

func FuzzUPnPAnswer(f *testing.F) {
	gateway := netip.MustParseAddr("192.168.1.1")
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/desc.xml\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://user@192.168.1.1/\r\n\r\n"))
	f.Add([]byte("NOTIFY * HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		location, err := parseSSDP(b, gateway, gateway)
		if err == nil && location.Hostname() != gateway.String() {
			t.Errorf("%q leads to %s", b, location)
		}
	})
}

func FuzzUPnPDescription(f *testing.F) {
	location := &url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/desc.xml"}
	gateway := netip.MustParseAddr("192.168.1.1")
	f.Add(fmt.Appendf(nil, description, "/ctl"))
	f.Add(fmt.Appendf(nil, description, "http://192.0.2.1/ctl"))
	f.Add([]byte("<root>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := parseDescription(strings.NewReader(string(b)), location)
		if err != nil {
			return
		}
		_, _ = newUPnP(route{gateway, gateway}).connection(root, location)
	})
}
