// Package convert asks: does a converted image show what the original shows,
// to peel, lazily, and to tools that know nothing of peel, and is it the same
// whenever it is converted?
package convert
