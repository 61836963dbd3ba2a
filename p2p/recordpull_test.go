package p2p

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// pullOver has one book ask another through a pipe and returns how many bytes
// went over it.
func pullOver(t *testing.T, asker, other *recordBook) (bytes int, same bool) {
	t.Helper()
	a, b := net.Pipe()
	counter := &countedPipe{Conn: a}
	answered := make(chan error, 1)
	go func() {
		defer b.Close()
		_, err := other.answerPull(b)
		answered <- err
	}()
	same, err := asker.askPull(counter, func(raw []byte) {
		r, err := openRecord(raw)
		if err != nil {
			t.Error(err)
		}
		asker.put(r)
	})
	a.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	return counter.n, same
}

type countedPipe struct {
	net.Conn
	n int
}

func (c *countedPipe) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n += n
	return n, err
}

func (c *countedPipe) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n += n
	return n, err
}

func TestPullBringsWhatIsLacking(t *testing.T) {
	a, b := newRecordBook(), newRecordBook()
	var owners []owner
	for range 300 {
		o := newOwner(t)
		owners = append(owners, o)
		b.put(o.sign(t, 5, "/ip4/192.0.2.1/tcp/1"))
	}
	for i, o := range owners[:200] { // one hundred are missing, one hundred old, one hundred newer than theirs
		a.put(o.sign(t, uint64(4+2*(i%2)), "/ip4/192.0.2.2/tcp/1"))
	}
	if _, same := pullOver(t, a, b); same {
		t.Error("the books count as equal")
	}
	for i, o := range owners {
		want := uint64(5)
		if i < 200 && i%2 == 1 {
			want = 6
		}
		if r, ok := a.get(o.id); !ok || r.seq != want {
			t.Errorf("record %d: %d, want %d", i, r.seq, want)
		}
	}
	pullOver(t, b, a)
	if !bytes.Equal(a.root(), b.root()) {
		t.Error("the books differ after both have asked")
	}
	n, same := pullOver(t, a, b)
	if !same || n > 120 {
		t.Errorf("equal books: same = %v, %d bytes", same, n)
	}
}

func TestOneChangeCostsLittle(t *testing.T) {
	a, b := newRecordBook(), newRecordBook()
	var last owner
	for range 500 {
		last = newOwner(t)
		r := last.sign(t, 1, "/ip4/192.0.2.1/tcp/1")
		a.put(r)
		b.put(r)
	}
	changed := last.sign(t, 2, "/ip4/192.0.2.9/tcp/1")
	b.put(changed)
	n, _ := pullOver(t, a, b)
	if r, _ := a.get(last.id); r.seq != 2 {
		t.Error("the change did not arrive")
	}
	if n > 8<<10 {
		t.Errorf("one record of %d bytes among 500 cost %d bytes", len(changed.raw), n)
	}
}

func TestBookKeepsTheNewest(t *testing.T) {
	b, o := newRecordBook(), newOwner(t)
	empty := b.digest()
	second, first := o.sign(t, 2), o.sign(t, 1)
	if _, taken := b.put(second); !taken {
		t.Fatal("the first one is not taken")
	}
	for _, r := range []signedRecord{first, second} {
		if _, taken := b.put(r); taken || b.newer(r) {
			t.Errorf("%d is taken after 2", r.seq)
		}
	}
	gone := b.drop(func(signedRecord) bool { return true })
	if len(gone) != 1 || b.size() != 0 || !bytes.Equal(empty, b.digest()) {
		t.Errorf("dropped %v, %d are left", gone, b.size())
	}
}

func TestPullRefusesNonsense(t *testing.T) {
	for name, answer := range map[string]any{
		"a short digest":  pullDigest{Buckets: make([]byte, 8)},
		"no digest":       "hello",
		"an empty digest": pullDigest{},
	} {
		a, b := net.Pipe()
		go func() {
			defer b.Close()
			var request pullRequest
			if readFrame(b, maxPullRequest, &request) == nil {
				_ = writeFrame(b, maxPullDigest, answer)
			}
		}()
		if _, err := newRecordBook().askPull(a, func([]byte) {}); err == nil {
			t.Errorf("%s is believed", name)
		}
		a.Close()
	}
}

// FuzzPull plays a peer that says anything, to either side.
func FuzzPull(f *testing.F) {
	frames := func(messages ...any) []byte {
		var b bytes.Buffer
		for _, m := range messages {
			if err := writeFrame(&b, maxPullWant, m); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	o := newOwner(f)
	record := o.sign(f, 3, "/ip4/192.0.2.1/tcp/1")
	f.Add(frames(pullRequest{Root: []byte("x")}, pullWant{Buckets: []int{-1, 0, 1 << 40, bucketOf(o.id)}, Have: map[api.NodeID]uint64{"x": 1}}))
	f.Add(frames(pullDigest{Buckets: make([]byte, 8*recordBuckets)}, pullRecords{Records: [][]byte{record.raw}, Last: true}))
	f.Add(frames(pullDigest{Buckets: make([]byte, 8*recordBuckets)}, pullRecords{}))
	f.Fuzz(func(t *testing.T, said []byte) {
		b := newRecordBook()
		b.put(record)
		var out bytes.Buffer
		_, _ = b.answerPull(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), &out})
		if out.Len() > maxPullDigest+maxPullRecords {
			t.Errorf("%d bytes for one record", out.Len())
		}
		taken := 0
		_, _ = b.askPull(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard}, func([]byte) { taken++ })
		if taken > len(said) {
			t.Error(fmt.Sprint(taken, " records"))
		}
	})
}

// TestWhoAnswersSeesWhatItLacks: the numbers that come with a question tell that
// the asker has heard more.
func TestWhoAnswersSeesWhatItLacks(t *testing.T) {
	a, b := newRecordBook(), newRecordBook()
	o, other := newOwner(t), newOwner(t)
	a.put(o.sign(t, 2))
	b.put(o.sign(t, 1))
	b.put(other.sign(t, 1))
	all := make([]int, recordBuckets)
	for i := range all {
		all[i] = i
	}
	if !b.behind(a.want(all)) {
		t.Error("a newer record was not noticed")
	}
	b.put(o.sign(t, 2))
	if b.behind(a.want(all)) {
		t.Error("who holds less counts as ahead")
	}
	c := newRecordBook()
	if !c.behind(a.want(all)) {
		t.Error("a record of somebody new was not noticed")
	}
}
