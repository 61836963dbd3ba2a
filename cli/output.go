package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"github.com/cloudless-project/cloudless/api"
)

// The formats of output.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
)

var formats = []string{formatTable, formatWide, formatJSON, formatYAML, formatName}

// printer writes the results of a command to stdout, in the format asked for.
type printer struct {
	out       io.Writer
	format    string
	noHeaders bool
	coloured  bool
	now       time.Time // ages count from here
}

func (a *app) printer() *printer {
	return &printer{
		out:       a.stdout,
		format:    a.flags.output,
		noHeaders: a.flags.noHeaders,
		coloured:  a.coloured(),
		now:       a.now(),
	}
}

// column is one column of a table of T.
type column[T any] struct {
	title string
	wide  bool // only with -o wide
	text  func(*printer, T) string
	state bool // the text is a state and may be coloured
}

// printList prints things: value to programs, name or columns to people.
func printList[T any](p *printer, items []T, value any, name func(T) string, columns []column[T]) error {
	switch p.format {
	case formatJSON, formatYAML:
		return p.value(value)
	case formatName:
		return printNames(p, items, name)
	}
	return printTable(p, items, columns)
}

func printNames[T any](p *printer, items []T, name func(T) string) error {
	for _, item := range items {
		if _, err := fmt.Fprintln(p.out, plain(name(item))); err != nil {
			return err
		}
	}
	return nil
}

func printTable[T any](p *printer, items []T, columns []column[T]) error {
	var shown []column[T]
	for _, c := range columns {
		if !c.wide || p.format == formatWide {
			shown = append(shown, c)
		}
	}
	var rows [][]string
	if !p.noHeaders {
		rows = append(rows, titles(shown))
	}
	for _, item := range items {
		row := make([]string, len(shown))
		for i, c := range shown {
			row[i] = plain(c.text(p, item))
		}
		rows = append(rows, row)
	}
	paint := func(row, col int) colour {
		if !p.coloured || !shown[col].state || (row == 0 && !p.noHeaders) {
			return colourNone
		}
		return stateColours[rows[row][col]]
	}
	return writeAligned(p.out, rows, paint)
}

func titles[T any](columns []column[T]) []string {
	row := make([]string, len(columns))
	for i, c := range columns {
		row[i] = c.title
	}
	return row
}

// writeAligned writes rows with two spaces between columns and none at the end.
func writeAligned(out io.Writer, rows [][]string, paint func(row, col int) colour) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for r, row := range rows {
		gap := ""
		for c, cell := range row {
			if cell == "" {
				gap += strings.Repeat(" ", widths[c]+2)
				continue
			}
			b.WriteString(gap)
			if code := paint(r, c); code != colourNone {
				fmt.Fprintf(&b, "\x1b[%dm%s\x1b[0m", code, cell)
			} else {
				b.WriteString(cell)
			}
			gap = strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// field is one line of what is known about a thing.
type field struct{ name, text string }

// fields writes lines of a name and a text, leaving out those without text.
func (p *printer) fields(all []field) error {
	var rows [][]string
	for _, f := range all {
		if f.text != "" {
			rows = append(rows, []string{f.name + ":", plain(f.text)})
		}
	}
	return writeAligned(p.out, rows, func(_, col int) colour { return colourNone })
}

// done reports a change: the thing as it is now to programs, its name, or a
// sentence to people.
func (p *printer) done(value any, name, sentence string, args ...any) error {
	switch p.format {
	case formatJSON, formatYAML:
		return p.value(value)
	case formatName:
		_, err := fmt.Fprintln(p.out, plain(name))
		return err
	}
	_, err := fmt.Fprintln(p.out, plain(fmt.Sprintf(sentence, args...)))
	return err
}

// machine reports whether a program reads the output.
func (p *printer) machine() bool { return p.format == formatJSON || p.format == formatYAML }

// value prints one document of JSON or YAML.
func (p *printer) value(v any) error {
	text, err := encodeJSON(v, "  ")
	if err != nil {
		return err
	}
	if p.format == formatYAML {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return api.Errorf(api.KindInternal, "write YAML: %w", err)
		}
	}
	_, err = p.out.Write(text)
	return err
}

// line prints a value as one line of JSON, or as one YAML document of many.
func (p *printer) line(v any) error {
	if p.format == formatYAML {
		if _, err := io.WriteString(p.out, "---\n"); err != nil {
			return err
		}
		return p.value(v)
	}
	text, err := encodeJSON(v, "")
	if err != nil {
		return err
	}
	_, err = p.out.Write(text)
	return err
}

func encodeJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return nil, api.Errorf(api.KindInternal, "write JSON: %w", err)
	}
	return b.Bytes(), nil
}

// moment is a time in JSON: null when there is none.
type moment time.Time

// MarshalJSON implements json.Marshaler.
func (m moment) MarshalJSON() ([]byte, error) {
	if time.Time(m).IsZero() {
		return []byte("null"), nil
	}
	return time.Time(m).UTC().MarshalJSON()
}

// array returns s converted, and an empty array rather than none.
func array[From, To any](s []From, convert func(From) To) []To {
	out := make([]To, len(s))
	for i, v := range s {
		out[i] = convert(v)
	}
	return out
}

// object returns m, and an empty object rather than none.
func object(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
