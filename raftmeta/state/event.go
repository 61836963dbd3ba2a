package state

import (
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// RecordEvent records something that no other command tells about, such as an
// election or a refused enrolment. ID and Type of the event are set here.
type RecordEvent struct {
	Event api.Event `json:"event"`
}

func (c RecordEvent) apply(t *tx) (any, error) {
	e := c.Event
	if typeOf(e.Code) == "" {
		return nil, api.Invalid("code", "%q is not a code of an event", clip(string(e.Code)))
	}
	for _, id := range []string{e.Reason, e.Object.Kind, e.Object.Name} {
		if err := checkID("event", id); err != nil {
			return nil, err
		}
	}
	if err := checkLabels("fields", e.Fields); err != nil {
		return nil, err
	}
	t.emit(e)
	return nil, nil
}

// typeOf returns the type that the first digit of a code stands for.
func typeOf(code api.Code) api.EventType {
	digits, ok := strings.CutPrefix(string(code), "CLD")
	if !ok || len(digits) != 4 {
		return ""
	}
	switch digits[0] {
	case '1':
		return api.EventMembership
	case '2':
		return api.EventScheduling
	case '3':
		return api.EventStorage
	case '4':
		return api.EventNetwork
	case '5':
		return api.EventSecurity
	}
	return ""
}
