package api

import (
	"strings"
	"time"
)

func (b *Probe) validate(p *problems, prefix string) {
	if b == nil {
		return
	}
	at := fieldAt(prefix)
	asked := 0
	if b.HTTP != nil {
		asked++
		between(p, at("http.port"), b.HTTP.Port, 1, 65535)
		if !strings.HasPrefix(b.HTTP.Path, "/") || len(b.HTTP.Path) > maxPath || strings.ContainsAny(b.HTTP.Path, " \r\n\x00") {
			p.add(at("http.path"), "%q is not the path of a URL: it starts with / and has no spaces", clip(b.HTTP.Path))
		}
	}
	if b.TCP != nil {
		asked++
		between(p, at("tcp.port"), b.TCP.Port, 1, 65535)
	}
	if b.Exec != nil {
		asked++
		if len(b.Exec.Command) == 0 {
			p.add(at("exec.command"), "a command is needed")
		}
		validateArgs(p, at("exec.command"), b.Exec.Command)
	}
	if asked != 1 {
		p.add(prefix, "a probe has exactly one of http, tcp and exec, this one has %d", asked)
	}
	between(p, at("initialDelay"), b.InitialDelay, 0, Duration(time.Hour))
	between(p, at("period"), b.Period, Duration(100*time.Millisecond), Duration(time.Hour))
	between(p, at("timeout"), b.Timeout, Duration(10*time.Millisecond), Duration(5*time.Minute))
	between(p, at("failures"), b.Failures, 1, 100)
}
