// Package cold asks: how long does a container take to start and do its work
// when nothing of its image is on the machine, how many bytes does that fetch,
// and how far is it from what the line allows?
//
// "make bench-cold" runs it. Six workloads in images of Debian and npm packages
// (the test kit builds them once per machine), each in four forms, over two
// simulated lines: a mount by peel with an empty cache, and a container by runc
// over it, first with nothing known, then with the profile of the first run in
// the registry. Beside them, in the same run: full pulls by containerd and by
// podman over the same lines, and the same container over the extracted layers
// on the local disk. Before each run the kernel's caches are dropped; what
// belongs to this machine (runc, peel, the peers' programs) is then read once,
// so that only the image is cold.
//
// Each workload has a registry of its own, which ends with it, in this process:
// on two processors, what the registry does is taken from what it serves.
// COLD selects workloads, lines and ways by name. The results go to a page, a
// chart and a file of raw figures unless COLD is set.
//
// Each step is a sub-benchmark with a time limit, and takes away what it
// mounted and started. The make target runs all of it in a mount and a process
// namespace, so that an interrupt leaves nothing either.
//
// "make test" runs a tiny container through the same code.
package cold
