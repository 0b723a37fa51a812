// Package badinput asks: what does peel do with what it cannot do anything
// with?
//
// Wrong names, wrong places, registries that refuse, hostile layers,
// interruptions, missing devices and full disks each end with a message that
// names the thing, a documented exit code, and nothing left behind: no mount,
// no process, no temporary file.
package badinput
