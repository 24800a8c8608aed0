// Package clients has no code: its tests run stock clients of Bedrock, as their
// registries give them out, against AWS's stand-in and through the real waybilld, and
// hold what both ways give against each other, byte for byte. What a client must be
// told to go through the gateway is an address and a key, never a change of code; the
// table that users copy from is docs/operate/clients.md.
//
// The clients for JavaScript need Node.js and `npm ci` in testdata/js; those for Python
// need the packages of testdata/py/requirements.txt for the python3 on the PATH. What is
// not there is skipped, and named.
package clients
