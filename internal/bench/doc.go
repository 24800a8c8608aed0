// Bench measures the gateway against what else could stand in its place: nothing,
// nginx, a bare reverse proxy, the same proxy with the SDK's signature. Each of them is
// a process of its own on one core; the generator of calls and the stand-in for Bedrock
// share the other cores. The stand-in answers from memory, in constant time.
//
//	go run ./internal/bench            # everything, in less than eight minutes
//	go run ./internal/bench --quick    # in one or two
//
// What is compared is compared within one run, in turn and then in the opposite turn: a
// ratio holds from one machine to the next, an absolute time does not. Latency is
// measured in an open loop: calls leave by the clock, and a call that leaves late counts
// its wait. A closed loop is for saturation alone.
//
// A fast wrong gateway is disqualified: every answer is compared with what was to come,
// byte for byte; every body that arrives is compared with what was sent, outside the
// stamped member; as many calls arrive as were sent; a sample of signatures is verified;
// and every call of waybilld is in its journal afterwards, with its usage.
package main
