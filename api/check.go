package api

// CheckStatus is how a check of a doctor came out.
type CheckStatus string

// The outcomes of a check.
const (
	CheckOK   CheckStatus = "ok"
	CheckWarn CheckStatus = "warn" // works, and could be better or safer
	CheckFail CheckStatus = "fail" // does not work, or is not safe
)

// Check is one thing that a doctor has looked at. Names are stable, so that
// scripts can rely on them.
type Check struct {
	Name   string      `json:"name"`
	Status CheckStatus `json:"status"`
	Detail string      `json:"detail"`
	Fix    string      `json:"fix"` // what a person can do, "" when there is nothing to do
}
