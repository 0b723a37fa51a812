// Command peel shows container images without pulling them: it mounts them
// lazily, and looks into them without mounting.
//
// Order: main.go starts, root.go has the global flags, wire.go gives fs its
// registry and its cache, exit.go turns errors into messages and exit codes,
// view.go and table.go are what several commands print with; every sub-command
// has a file of its name.
//
// A mount is served by a process of its own: peel mount starts this program
// anew (spawn_linux.go), relays the server's progress and errors as if they
// were its own, and returns when the mount answers. Until then the two are tied
// together by a socket: when either end goes away, the other cleans up and
// ends. Nothing but the cache folder is shared with other runs.
//
// Exit codes are stable: 0 done, 1 failed, 2 wrong usage, 3 image or path not
// found, 4 login needed or access denied, 5 verification failed, 6 registry
// unreachable, 130 interrupted.
package main
