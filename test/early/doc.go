// Package early holds end-to-end tests: is what "peel mount --early" shows of
// an image that has not come yet what the image turns out to be?
package early
