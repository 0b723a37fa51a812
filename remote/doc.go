// Package remote asks registries: which hosts stand for a name, with which
// credentials, for manifests, for blobs by byte range and for referrers; and
// pushes manifests and blobs.
//
// # Life cycle
//
// New makes a Client, which holds connections, tokens, redirects and what was
// learned of each host until Close. Open makes a Blob without any I/O; its
// ReadRange sends the first request. Readers are closed by their callers
// before the Client is closed. A registry's hosts.toml is read at first use
// and again after the registry could not be reached. An Upload is a blob on its
// way; Close gives up what was not committed.
//
// # Concurrency
//
// Client, Repository and Blob may be used by any number of goroutines; a reader
// returned by ReadRange, or an Upload, by one. The package starts no goroutine
// of its own. At most Options.MaxPerHost bodies are open per host; who comes
// later waits, and that wait is not counted against the retry budget. A caller
// that opens several readers must drain or close them without waiting for
// another one to open.
//
// # Retries
//
// A request, or the rest of a body that died, is asked for again when the
// connection failed, when no bytes came for Retry.Progress, or when the host
// answered 408, 429 or 5xx. Mirrors are tried in their order first, those that
// failed lately last. After Retry.Attempts tries, or Retry.Budget of waiting,
// without 16 KiB (or the rest, if less) arriving, the error is final. A Read
// therefore never waits much longer than the budget. 401 renews the token
// once; 403 and 404 are final, except from a remembered redirect, which is
// forgotten and the registry asked again.
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
// that a mirror never sees those of the origin. Query strings never show in
// errors or logs. A public registry may not redirect to loopback, private or
// link-local addresses.
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
// referrers, 20 changes of a referrers tag. An Upload keeps 16 MiB in memory,
// or the chunk that the registry demands, of 128 MiB at most.
package remote
