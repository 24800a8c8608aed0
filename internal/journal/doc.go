// Package journal is the book of original entry: it keeps what the gateway saw of
// each call on local disk, safe from a killed process at once and from a power cut
// within milliseconds, until ingest has taken it.
//
// # Files
//
// A journal is a directory that one process writes, kept out of each other's way by
// a lock file. Entries go to one live segment, NAME.open. It is sealed when it is
// large or old enough, and when the process ends: a footer is written and the file
// becomes NAME.wbj, which never changes again. Names sort by time. A segment is
//
//	8 bytes    magic "WBJRNL01": the last two digits are the format's version
//	records    length uint32, CRC-32C of the payload uint32, payload
//	footer     a record whose length has the top bit set
//
// all integers little endian. A record's payload is one waybill.Entry as JSON; the
// footer's is the number of records (uint64) and the SHA-256 of all bytes before it. No
// record is empty: zeros in the place of a head are what a live segment has been allocated
// ahead. A sealed one has none.
//
// # Writing
//
// On Linux the end of the live segment is allocated and mapped, a piece at a time, and an
// entry is copied there, its head last. Elsewhere, and on file systems that refuse either,
// entries are written with write(2): the bytes are the same.
//
// # Promises
//
// Close returns when the entry is in the file: a process killed after that has lost
// nothing. Open returns at once; the function it gives waits for the disk. Whatever
// is written is on disk within Config.SyncWithin.
//
// Calls still open when a segment is sealed are in the next one before, so a segment
// can be judged by itself: a call that a dead process left open in its last
// segment is interrupted. Recovery, in Start and in Recover, closes it there as such.
// So readers need only sealed segments, and in them only Closed entries.
//
// After a failed write or sync the segment is finished and never retried: the kernel
// may have dropped the pages. The next entry goes to a new one.
package journal
