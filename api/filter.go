package api

import "time"

// EventFilter selects events; what is zero selects all.
type EventFilter struct {
	Type   EventType
	Object Object // kind alone, or kind and name
	Since  time.Time
}

// Matches reports whether the filter selects an event.
func (f *EventFilter) Matches(e *Event) bool {
	return (f.Type == "" || f.Type == e.Type) &&
		(f.Object.Kind == "" || f.Object.Kind == e.Object.Kind) &&
		(f.Object.Name == "" || f.Object.Name == e.Object.Name) &&
		!e.Time.Before(f.Since)
}
