// Package lake keeps the facts: Apache Iceberg tables on a directory or an S3 bucket,
// written and read by DuckDB, with a catalog that needs nothing but a conditional put.
// It is the only package with cgo.
//
// Nothing is ever overwritten. A table is a run of metadata files v1, v2, ...; the
// highest number is the table, and who puts a number first has committed. What was
// loaded is in the same commit as its rows: the snapshot names a small file that lists
// the objects. So a process killed at any instant leaves at most files that no
// snapshot names.
//
// Facts are append-only and keep both sources of a call; the hourly roll-up merges
// them. The roll-up is a cache: it says which files it was made from, and is made
// again when those differ.
package lake
