package api

// Problems returns every *Error that err is made of, in order. Validation joins
// one for each thing that is wrong, so that a person mends them all at once. An
// *Error speaks for its causes: they are not looked into.
func Problems(err error) []*Error {
	switch e := any(err).(type) { // the chain is walked here: errors.As would look past what was joined
	case nil:
		return nil
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, part := range e.Unwrap() {
			all = append(all, Problems(part)...)
		}
		return all
	case interface{ Unwrap() error }:
		return Problems(e.Unwrap())
	}
	return nil
}
