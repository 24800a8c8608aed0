package fakeaws

import (
	"encoding/binary"
	"hash/crc32"
)

// Frame is one message of an AWS event stream: a prelude of two lengths and their
// checksum, headers, payload, and a checksum of it all.
func Frame(messageType, kind string, payload []byte) []byte {
	var headers []byte
	add := func(name, value string) {
		headers = append(headers, byte(len(name)))
		headers = append(headers, name...)
		headers = append(headers, 7) // a string
		headers = binary.BigEndian.AppendUint16(headers, uint16(len(value)))
		headers = append(headers, value...)
	}
	add(":"+messageType+"-type", kind)
	add(":content-type", "application/json")
	add(":message-type", messageType)
	total := 12 + len(headers) + len(payload) + 4
	b := make([]byte, 0, total)
	b = binary.BigEndian.AppendUint32(b, uint32(total))
	b = binary.BigEndian.AppendUint32(b, uint32(len(headers)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(b, headers...)
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}
