package cli

import "io"

// sequence prints values that come one after the other: as they come, one per
// line, when somebody follows; otherwise as one array, which is not held in
// memory either.
type sequence struct {
	p      *printer
	follow bool
	begun  bool
}

func newSequence(p *printer, follow bool) *sequence { return &sequence{p: p, follow: follow} }

func (s *sequence) add(v any) error {
	if s.follow {
		return s.p.line(v)
	}
	if s.p.format == formatYAML {
		s.begun = true
		return s.p.value([]any{v}) // items of one YAML sequence may stand one by one
	}
	separator := ",\n"
	if !s.begun {
		separator = "[\n"
		s.begun = true
	}
	text, err := encodeJSON(v, "")
	if err != nil {
		return err
	}
	_, err = io.WriteString(s.p.out, separator+"  "+string(text[:len(text)-1]))
	return err
}

func (s *sequence) close() error {
	end := "\n]\n"
	switch {
	case s.follow || (s.begun && s.p.format == formatYAML):
		return nil
	case !s.begun:
		end = "[]\n"
	}
	_, err := io.WriteString(s.p.out, end)
	return err
}
