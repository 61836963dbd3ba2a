//go:build linux

package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errOff means that a device has no power.
var errOff = errors.New("the device is off")

// send opens a connection to a device's init and makes one request.
func send(ctx context.Context, socket string, req request, files ...*os.File) (*net.UnixConn, *json.Decoder, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, nil, errOff
	}
	if err != nil {
		return nil, nil, err
	}
	c := conn.(*net.UnixConn)
	msg, err := json.Marshal(req)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	// The descriptors go with the first byte, the rest follows as plain data.
	n, _, err := c.WriteMsgUnix(msg, rights, nil)
	if err == nil && n < len(msg) {
		_, err = c.Write(msg[n:])
	}
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("send request: %w", err)
	}
	return c, json.NewDecoder(c), nil
}

// receive reads one request and its descriptors.
func receive(c *net.UnixConn) (request, []*os.File, error) {
	buf := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return request{}, nil, fmt.Errorf("read request: %w", err)
	}
	var files []*os.File
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	var req request
	rest := io.LimitReader(io.MultiReader(bytes.NewReader(buf[:n]), c), maxRequest)
	if err := json.NewDecoder(rest).Decode(&req); err != nil {
		for _, f := range files {
			f.Close()
		}
		return request{}, nil, fmt.Errorf("read request: %w", err)
	}
	return req, files, nil
}

// ask makes a request that is answered once.
func ask(ctx context.Context, socket string, req request, files ...*os.File) (reply, error) {
	c, dec, err := send(ctx, socket, req, files...)
	if err != nil {
		return reply{}, err
	}
	defer c.Close()
	return next(ctx, c, dec)
}

// next reads a reply; the end of ctx ends the wait.
func next(ctx context.Context, c *net.UnixConn, dec *json.Decoder) (reply, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var r reply
	if err := dec.Decode(&r); err != nil {
		if ctx.Err() != nil {
			return reply{}, ctx.Err()
		}
		return reply{}, fmt.Errorf("read reply: the device lost power: %w", err)
	}
	if r.Err != "" {
		return reply{}, errors.New(r.Err)
	}
	return r, nil
}

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find command: %w", err)
	}
	return path, nil
}

// lookPathIn finds a command by the PATH of an environment.
func lookPathIn(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return lookPath(name)
	}
	for _, kv := range env {
		path, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return found, nil
			}
		}
	}
	return "", fmt.Errorf("find command: %s is not in the device's PATH", name)
}
