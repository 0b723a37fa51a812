// Package index asks: is a plain layer as good as one with a table of contents
// once somebody, anywhere, has indexed it?
//
// That is: the indexes of SOCI and of peel are found, wherever they were put,
// with few requests; one that is wrong is told of and never shows as a wrong
// byte; and what nobody has compared with the layer is not called proved.
package index
