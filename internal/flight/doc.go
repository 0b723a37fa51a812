// Package flight does a piece of work once for all who wait for its results,
// however often the waiters change their minds.
//
// # Concepts
//
// A [Group] maps keys to the work that is going to deliver them. [Group.Do]
// claims the keys that nobody works on yet, starts one piece of work for all
// of them, and waits for the keys it wants, whoever works on them. The work
// delivers its keys one by one; a waiter gets each as it comes, and need not
// wait for the end of the work. A key leaves the group when it is delivered:
// whoever asks later starts new work, and that work should first look whether
// the result has been kept somewhere. [Group.Begin] does not wait: its [Hold]
// keeps the work going while the caller does something else first, or waits for
// the end of it all without keeping the values. Work learns that somebody joined
// it by what [Request].Joined does to its context.
//
// # Contexts
//
// Work runs on a context that is detached from those of its waiters. A reader
// of a FUSE file is interrupted by any signal, and its program then reads
// again: with a 300 ms fetch and a 100 ms interval timer, cancelling the fetch
// with its waiter means no progress at all. So the work goes on for a grace
// period after the last Do that named one of its keys has returned, and is
// cancelled only then. Cancelled work owns no keys: a later Do starts afresh
// and never sees the error of work that others gave up.
//
// # Life cycle
//
// One goroutine per piece of work. It ends when the work returns, at the
// latest some time after its context is cancelled: by the end of the grace
// period or by [Group.Close], which waits for all of it.
//
// # Errors
//
// A waiter gets the error its key was delivered with, its own context's error,
// or [ErrClosed]. Keys that work returns without having delivered are
// delivered with [ErrUndelivered].
//
// A Group may be used by any number of goroutines. Delivered values are shared
// by all waiters, who must not change them.
package flight
