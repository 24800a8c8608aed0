// Package control knows what must hold in an AWS account so that every Bedrock dollar
// can be attributed: one list of controls, read two ways. An audit observes the account
// and reports where a control does not hold; a set-up shows the changes that make it
// hold and, when asked, makes them.
//
// Observing and judging are apart. A Snapshot is what AWS said, question by question, and
// what it refused to say; a control is a function of a snapshot, and never takes silence
// for good news. A remedy is data, the very calls to be made, so what a plan shows is
// what an apply does and a record keeps.
package control
