package control

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
)

// The bounds of what is remembered of earlier answers.
const (
	maxAnswers = 1024
	answerTTL  = 10 * time.Minute
	maxKey     = 128 // bytes
)

// answers remembers what was answered to requests with an idempotency key, so
// that a client that missed an answer gets the same one again. It lives with
// the leader: after a change of leader a repeated apply is still harmless, and
// says that nothing changed.
type answers struct {
	mu    sync.Mutex
	given map[string]answer
	order []string // oldest first
}

type answer struct {
	reply proto.Message
	at    time.Time
}

func newAnswers() *answers { return &answers{given: make(map[string]answer)} }

// answerKey is a caller's key for a method; "" when the request has none.
func answerKey(c *Caller, method, key string) (string, error) {
	if key == "" {
		return "", nil
	}
	if len(key) > maxKey {
		return "", api.Invalid("idempotency_key", "is longer than %d bytes", maxKey)
	}
	return c.Name() + "\x00" + method + "\x00" + key, nil
}

// recall returns the answer given before, if it is still known.
func (a *answers) recall(key string, now time.Time) (proto.Message, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	given, ok := a.given[key]
	if !ok || now.Sub(given.at) > answerTTL {
		return nil, false
	}
	return given.reply, true
}

// remember keeps an answer, and forgets the oldest beyond the bound.
func (a *answers) remember(key string, reply proto.Message, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, again := a.given[key]; !again {
		a.order = append(a.order, key)
	}
	a.given[key] = answer{reply, now}
	for len(a.order) > maxAnswers {
		delete(a.given, a.order[0])
		a.order = a.order[1:]
	}
}
