// Package remote asks registries: which hosts stand for a name, with which
// credentials, for manifests, for blobs by byte range and for referrers; and
// pushes manifests and blobs.
//
// # Life cycle
//
// New makes a Client, which holds connections, tokens, redirects and what was
// learned of each host until Close. Open makes a Blob without any I/O; its
// ReadRange sends the first request. Readers are closed by their callers
// before the Client is closed. A registry's hosts.toml is read at first use, and
// again when it has changed or the registry could not be reached. An Upload is a
// blob on its way; Close gives up what was not committed. A Fetcher gets objects
// of one repository by their descriptors, be they manifests or blobs.
//
// # Concurrency
//
// Client, Repository and Blob may be used by any number of goroutines; a reader
// returned by ReadRange, or an Upload, by one. The package starts no goroutine
// of its own, but for the second of two requests (see Late answers), which its
// reader waits for. At most Options.MaxPerHost bodies are open per host, and twice
// as many by all clients together that share Options.StateDir; who comes later
// waits, and that wait is not counted against the retry budget. A caller that
// opens several readers must drain or close them without waiting for another one
// to open.
// Other processes are waited for 3 s at most, since they may have been stopped.
//
// # Classes
//
// Contexts say how urgent a request is (internal/priority), and may become more
// urgent at any time. Per host, who waits is served by class, then as they came.
// At most twelve requests of class Prefetch are under way, and one of class Fill,
// which begins when nothing else is; both leave a quarter of the slots, and of
// the requests that may be sent at once, to Demand. Of the slots that clients
// share they take those of one half only, and none while any client's demand
// waits for one. Bodies pause between reads, for a second at most each time, while
// a request of a more urgent class is under way. Until a second after the last demand, no further request of a lower
// class is sent while more than two round trips' worth of theirs is to come. So
// what a demand finds on the line is about one range of the others at most. No
// host is asked more often than Options.RequestRate, tokens aside.
//
// # The link
//
// Per host that serves, after redirects, Blob.Link and Client.Links tell the
// median of the last 32 round trips (request sent to first byte, on connections
// used before), and the bandwidth: the best of ten windows of all bodies
// together, each of 100 ms, or of 256 KiB and 10 ms, in which readers waited for
// the host. It is unknown as long as consumers are slower than the line.
//
// # Late answers
//
// When the first byte for a range of class Demand takes longer than 50 ms and
// three times the median, known from 16 answers, the next host is asked as well,
// or the same one by another connection; the first answer is taken, the other
// request is cancelled. Of the requests to a host no more than one in fifty are
// such, with two saved up at most, and none waits for a slot.
//
// # Retries
//
// A request, or the rest of a body that died, is asked for again when the
// connection failed, when no bytes came for Retry.Progress, or when the host
// answered 408, 429 or 5xx. Mirrors are tried in their order first, those that
// failed lately last. Back-off doubles up to Retry.Max, with jitter. An error is
// final after Retry.Budget of waiting, or Retry.Attempts tries, without 16 KiB
// (or the rest, if less) arriving that need not be asked for again. Byte ranges
// of blobs have twice the budget of documents and pushes, as a mount has no use
// for errors. Documents and pushes are tried five times where nobody is at the
// address, or DNS knows none; and four times more if they come with another
// digest than they should.
//
// A host that answers 429 or 503 with Retry-After is asked by no client of the
// machine until then; its mirrors are. If that is beyond the budget, the
// operation fails at once and tells how long to wait. Shorter such waits are
// counted apart, up to four budgets in all.
//
// 401 renews the token once, or again if it ended before it could be used; 403
// to a token does so once for reading. What a registry redirects to is
// remembered per blob until three quarters of its life have passed, or 10 s
// before its end, and asked for anew by one reader for all. If it answers 401,
// 403, 404 or 410, the registry is asked again, once.
//
// # Forms of answers
//
// A whole blob in place of a range is taken from its start if the range begins
// within 1 MiB, otherwise the host is passed over for a minute, and ErrRange is
// the error if there is no other. 200 with a Content-Range, and multipart
// answers of one part, are taken for 206. 206 without or with a wrong
// Content-Range is ErrRange. Any Content-Encoding is refused.
//
// # Foreign layers
//
// A descriptor's urls are asked before the registry, in their order, at hosts
// that Options.ForeignHosts name, without credentials or headers of the
// registry. If none is allowed and the registry has not got the blob, the error
// is ErrDenied and names the hosts.
//
// # Pushes
//
// Only the host configured last is pushed to, if it has the capability, never a
// mirror. A blob of known digest is sent from its start again when its request
// dies, one sent in chunks from where the registry says it got to. Bytes sent
// are no progress that Retry.Attempts are counted from, bytes that the registry
// says it has are.
// Nobody is waited for longer than Retry.Progress while it takes no bytes, or
// ten times that for the answer after the last one. Referrers tags are written
// by read, change and write, looked at again later, and repeated if another
// writer was faster.
//
// # Secrets
//
// Authorization and the headers of hosts.toml go to the host they were
// configured for, never to a redirect's target or to another host that uploads
// go to. Credentials are looked up under the name of the host that asks, so
// that a mirror never sees those of the origin; Options.Credentials are for
// the own host of one registry and its token server. DefaultKeychain reads
// docker's and podman's files and asks credential helpers, anew for every token;
// nothing of it is kept. A token is renewed by one request for all that wait.
// Query strings never show in errors or logs. The files of Options.StateDir hold names of hosts and times.
//
// A host that is public, by its name and by the address it answers from, may not
// lead to loopback, private, link-local, carrier's or metadata addresses: not by
// redirect, for tokens, pages or uploads, and neither by a name that resolves to
// one. A proxy looks names up by itself; then only the name is looked at. The
// same holds for foreign layers of hosts that are allowed by a pattern.
//
// # Trust
//
// Manifest and Blob return verified bytes. ReadRange yields exactly the bytes
// asked for or an error, and has checked that the blob's length is that of its
// descriptor, but not the bytes: that is what layer does.
//
// # Errors
//
// All errors name the reference and the host, say what to do if anything can
// be done, and wrap one of this package's sentinels, except that a cancelled
// context gives context.Canceled.
//
// # Limits
//
// Manifests and whole blobs 8 MiB, token answers 1 MiB, error texts 4 KiB of
// which 200 bytes are shown, 10 redirects, 32 pages or 10000 entries of
// referrers, 20 changes of a referrers tag, 16 urls of a descriptor, headers of
// 256 KiB, an hour that a host may ask to wait. An Upload keeps 16 MiB in memory,
// or the chunk that the registry demands, of 128 MiB at most.
package remote
