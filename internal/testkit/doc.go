// Package testkit has the real parts that end-to-end tests are made of: a
// registry, a proxy before it that counts and breaks, images of Debian
// packages in every layer form with umoci's unpack as the oracle, the peel
// binary with a cache of its own, and listings to compare.
//
// Everything takes a testing.TB, fails it with a sentence that says what is
// missing, and cleans up after it: servers end, mounts go (lazily if need be),
// processes started for the test are gone. Values may be used by several
// goroutines unless they say otherwise.
//
// Images are built once per machine below the user's cache directory, under a
// name that changes with the recipe, and shared by test packages under a file
// lock. What a run of its own needs (registries, caches, mount points) lies in
// the test's temporary directory.
//
// Linux only, and root for mounts other than a user's.
package testkit
