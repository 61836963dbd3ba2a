package p2p

import "sync"

// each calls do for every item, at most limit at a time, and returns when all
// calls have.
func each[T any](items []T, limit int, do func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, limit)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(item)
		})
	}
	wg.Wait()
}
